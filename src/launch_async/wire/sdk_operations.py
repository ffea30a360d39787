"""The GraphQL documents of the SDK: making jobs and queues, pushing items, following runs."""

CREATE_ARTIFACT = """
mutation CreateArtifact($input: CreateArtifactInput!) {
  createArtifact(input: $input) { artifact { id state } }
}
"""

CREATE_ARTIFACT_FILES = """
mutation CreateArtifactFiles($input: CreateArtifactFilesInput!) {
  createArtifactFiles(input: $input) { files { edges { node { uploadUrl uploadHeaders } } } }
}
"""

CREATE_ARTIFACT_MANIFEST = """
mutation CreateArtifactManifest($input: CreateArtifactManifestInput!) {
  createArtifactManifest(input: $input) {
    artifactManifest { id file { uploadUrl uploadHeaders } }
  }
}
"""

COMMIT_ARTIFACT = """
mutation CommitArtifact($artifactID: ID!) {
  commitArtifact(input: { artifactID: $artifactID }) { artifact { id digest } }
}
"""

UPSERT_PROJECT = """
mutation CreateProject($input: UpsertModelInput!) {
  upsertModel(input: $input) { project { id } }
}
"""

UPSERT_QUEUE = """
mutation UpsertRunQueue(
  $entityName: String!, $projectName: String!, $queueName: String!, $resourceType: String!,
  $resourceConfig: JSONString!
) {
  upsertRunQueue(input: {
    entityName: $entityName, projectName: $projectName, queueName: $queueName,
    resourceType: $resourceType, resourceConfig: $resourceConfig
  }) { success configSchemaValidationErrors }
}
"""

ITEM = """
query GetRunQueueItem(
  $projectName: String!, $entityName: String!, $runQueue: String!, $itemId: ID!
) {
  project(name: $projectName, entityName: $entityName) {
    runQueue(name: $runQueue) {
      runQueueItem(id: $itemId) { id state associatedRunId message }
    }
  }
}
"""

RUN = """
query Run($project: String!, $entity: String!, $name: String!) {
  project(name: $project, entityName: $entity) {
    run(name: $name) { name displayName state config summaryMetrics historyLineCount }
  }
}
"""
