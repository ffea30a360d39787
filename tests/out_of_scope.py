"""The GraphQL documents of the wandb clients that our server does not serve, and why."""

REGISTRIES = "registries, the artifacts of an organization"
AUTOMATIONS = "automations and the integrations that they call"
REPORTS = "reports and custom charts of W&B's web app"
SWEEPS = "sweeps"
ANONYMOUS = "accounts without a user, which W&B's own service makes"
TEMPLATE = "a template: what is made of it comes over the wire in tests/clients"
FALLBACK = "sent only to a server without the newer field, which ours has"
UNCALLED = "no code of the client sends it"

OUT_OF_SCOPE = {
    # registries
    "Collections": REGISTRIES,
    "CreateRegistryMembers": REGISTRIES,
    "DeleteRegistry": REGISTRIES,
    "DeleteRegistryMembers": REGISTRIES,
    "FetchAdvancedRegistryFeatures": REGISTRIES,
    "FetchRegistries": REGISTRIES,
    "FetchRegistry": REGISTRIES,
    "Registries": REGISTRIES,
    "RegistryCollections": REGISTRIES,
    "RegistryTeamMembers": REGISTRIES,
    "RegistryUserMembers": REGISTRIES,
    "RegistryVersions": REGISTRIES,
    "RenameRegistry": REGISTRIES,
    "UpdateTeamRegistryRole": REGISTRIES,
    "UpdateUserRegistryRole": REGISTRIES,
    "UpsertRegistry": REGISTRIES,
    "UpsertRegistryProject": REGISTRIES,
    "Versions": REGISTRIES,
    "deleteProject": REGISTRIES,
    "renameProject": REGISTRIES,
    # automations
    "CreateAutomation": AUTOMATIONS,
    "CreateGenericWebhookIntegration": AUTOMATIONS,
    "DeleteAutomation": AUTOMATIONS,
    "GenericWebhookIntegrationsByEntity": AUTOMATIONS,
    "GetAutomations": AUTOMATIONS,
    "GetAutomationsByEntity": AUTOMATIONS,
    "GetAutomationsLegacy": AUTOMATIONS,
    "GetEntityAutomations": AUTOMATIONS,
    "GetEntityAutomationsLegacy": AUTOMATIONS,
    "GetOrgAutomations": AUTOMATIONS,
    "IntegrationsByEntity": AUTOMATIONS,
    "SlackIntegrationsByEntity": AUTOMATIONS,
    "UpdateAutomation": AUTOMATIONS,
    # reports
    "CreateCustomChart": REPORTS,
    "ProjectViews": REPORTS,
    # sweeps
    "CreateAgent": SWEEPS,
    "EnqueueSweepRun": SWEEPS,
    "GetAgentRuns": SWEEPS,
    "GetSweep": SWEEPS,
    "GetSweepAgent": SWEEPS,
    "GetSweepAgents": SWEEPS,
    "GetSweepLegacy": SWEEPS,
    "GetSweepState": SWEEPS,
    "GetSweeps": SWEEPS,
    "Heartbeat": SWEEPS,
    "Sweep": SWEEPS,
    "SweepConfig": SWEEPS,
    "SweepRunsWithHistory": SWEEPS,
    "SweepWatchedRuns": SWEEPS,
    "SweepWithRuns": SWEEPS,
    "UpsertSweep": SWEEPS,
    "UpsertSweepState": SWEEPS,
    # the older clients' own
    "ArtifactByID.artifact": TEMPLATE,
    "ArtifactByIDShort.artifact": TEMPLATE,
    "CreateAnonymousApiKey": ANONYMOUS,
    "CreateArtifactFiles.internal_api": TEMPLATE,
    "CreateArtifactType": UNCALLED,
    "RunUploadUrls": FALLBACK,
    "UpsertBucket.internal_api": TEMPLATE,
    "Viewer.internal_api": TEMPLATE,
    "failRunQueueItem.internal_api2": FALLBACK,
}
"""Operation, or operation and place as in client_documents.py, and the reason."""


def scope_of(name: str) -> str | None:
    """Return the key of the reason why a document is not served; None for one that is."""
    operation = name.split(".", maxsplit=1)[0]
    return next((key for key in (name, operation) if key in OUT_OF_SCOPE), None)
