"""Every document of the installed wandb client that we serve is valid: we validate strictly."""

import pytest
from client_documents import client_document
from server_harness import Template

from launch_async.server.graphql import GraphQLErrors

RUN_SIDE = (
    "CreateProject.python",
    "CreateRunFiles.core",
    "CreateRunFiles.runs",
    "DeleteRun.artifacts",
    "DeleteRun.plain",
    "EntityIsTeam.api",
    "EvalTableProjectScope._writer_ces",
    "FetchOrgEntityFromEntity.core",
    "FetchOrgInfoFromEntity.python",
    "FetchOrganization.python",
    "GetDefaultEntity.python",
    "GetProject.python",
    "GetProjects.python",
    "GetTeamEntity.python",
    "GetViewer.python",
    "HistoryPage.core",
    "IsProjectReadOnly.python",
    "MarkRunFilesUploaded.core",
    "NotifyScriptableRunAlert.core",
    "OrgFeatureFlags.core",
    "OrganizationCoreWeaveOrganizationID.core",
    "Project.verify",
    "QueryRunInfo.core",
    "Run.full",
    "Run.lazy",
    "RunConsoleLogPage.core",
    "RunConsoleLogTail.core",
    "RunFiles.files",
    "RunFullHistory.events",
    "RunFullHistory.history",
    "RunHistoryKeys.runs",
    "RunParquetHistory.core",
    "RunResumeStatus.core",
    "RunSampledHistory.runs",
    "RunState.api",
    "RunState.core",
    "RunState.runs",
    "RunStoppedStatus.api",
    "Runs.full",
    "Runs.lazy",
    "SampledHistoryPage.core",
    "SearchUsers.python",
    "ServerFeaturesQuery.core",
    "ServerFeaturesQuery.python",
    "ServerInfo.verify",
    "StopRun.core",
    "UpdateRunState.runs",
    "UpsertBucket.api",
    "UpsertBucket.core",
    "UpsertBucket.summary",
    "UpsertBucket.update",
    "Viewer.core",
    "XXHashDigestsEnabled.core",
    "deleteFiles.files",
)
LAUNCH_SIDE = (
    "AddAliases.python",
    "ArtifactByID.python",
    "ArtifactCollectionAliases.python",
    "ArtifactCreatedBy.python",
    "ArtifactFileURLsByManifestEntries.core",
    "ArtifactManifest.core",
    "ArtifactMembershipByName.python",
    "ArtifactMembershipFiles.python",
    "ArtifactOfType.api",
    "ArtifactType.python",
    "ArtifactTypeArtifactCollections.python",
    "ArtifactUsedBy.python",
    "ClientIDMapping.core",
    "CommitArtifact.core",
    "CreateArtifact._gqlutils",
    "CreateArtifact.core",
    "CreateArtifactFiles.core",
    "CreateArtifactManifest.core",
    "CreateDefaultResourceConfig.core",
    "CreateRunQueue.core",
    "DeleteAliases.python",
    "DeleteArtifact.python",
    "DeleteArtifactSequence.python",
    "DeleteFromRunQueue.jobs",
    "DeleteRunQueue.jobs",
    "FetchArtifactDigestAlgorithm.core",
    "FetchArtifactManifest.python",
    "FetchLinkedArtifacts.python",
    "GetArtifactMembershipFileUrls.python",
    "GetDefaultResourceConfig.jobs",
    "GetRunQueueItem.jobs",
    "GetRunQueueItem.jobs2",
    "GetRunQueueItems.jobs",
    "GetRunQueueMetadata.jobs",
    "LaunchAgent.api",
    "ProjectArtifactCollection.python",
    "ProjectArtifactCollections.python",
    "ProjectArtifactType.python",
    "ProjectArtifactTypes.python",
    "ProjectArtifacts.python",
    "ProjectRunQueues.api",
    "RunInputArtifacts.python",
    "RunOutputArtifacts.python",
    "UpdateArtifact.core",
    "UpdateArtifact.python",
    "UpdateArtifactManifest.core",
    "UpdateArtifactSequence.python",
    "UpsertRunQueue.core",
    "UseArtifact.core",
    "UseArtifact.python",
    "ackRunQueueItem.api",
    "createLaunchAgent.api",
    "failRunQueueItem.api",
    "fetchRunQueuesFromProject.jobs",
    "popFromRunQueue.api",
    "pushToRunQueue.api",
    "pushToRunQueueByName.api",
    "pushToRunQueueByName.full",
    "updateLaunchAgent.api",
    "updateRunQueueItemWarning.api",
)


@pytest.mark.parametrize("name", RUN_SIDE + LAUNCH_SIDE)
def test_a_document_of_the_client_is_valid(template: Template, name: str) -> None:
    template.graphql.check(client_document(name))


def test_a_document_is_checked_once(template: Template) -> None:
    text = client_document("Viewer.core")
    assert template.graphql.check(text) is template.graphql.check(text)


def test_an_unknown_field_is_refused_in_the_words_that_the_client_looks_for(
    template: Template,
) -> None:
    with pytest.raises(GraphQLErrors, match="Cannot query field 'nonsense'"):
        template.graphql.check("{ viewer { nonsense } }")
