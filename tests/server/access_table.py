"""The rule of each field that leads somewhere, of each mutation and of each HTTP route.

What is not here fails `test_access_rules.py`: who adds a field says here who may ask for it.
"""

from enum import Enum


class Rule(Enum):
    """Who may ask."""

    PUBLIC = "whoever has a key; it tells nothing of anybody"
    OWN = "whoever has a key; it tells of the viewer alone"
    NOTHING = "whoever has a key; there is nothing to tell here"
    ENTITY_READ = "members in any role, and the keys of the entity's runs"
    TEAM_READ = "members in any role, but no key of a run"
    ADMIN_READ = "admins of the entity"
    RUN_WRITE = "members from the role member on, and the run's own key"
    MEMBER = "members from the role member on, but no key of a run"
    ADMIN = "admins of the entity, to change things"
    SERVER_ADMIN = "admins of the server, with a key of their own"
    KEY_OWNER = "the user whose key it is, and admins of the server"
    OPEN = "everybody"
    SIGNED = "who was handed the address"
    ADMIN_KEY = "the admin key, and users who are admins of the server"


R = Rule

PARTS = ("Connection", "Edge", "Payload", "Reference", "Portfolio")
"""Types that are parts of what led to them: their fields need no rule of their own.

A portfolio is what an ArtifactCollection is asked for with; a sequence is asked for as such too.
"""

FIELDS: dict[str, dict[str, Rule]] = {
    "Query": {
        "viewer": R.OWN,
        "serverInfo": R.PUBLIC,
        "entity": R.ENTITY_READ,
        "model": R.ENTITY_READ,
        "project": R.ENTITY_READ,
        "models": R.ENTITY_READ,
        "organization": R.NOTHING,
        "users": R.OWN,
        "launchAgent": R.TEAM_READ,
        "artifact": R.ENTITY_READ,
        "artifactCollection": R.ENTITY_READ,
        "clientIDMapping": R.ENTITY_READ,
    },
    "ServerInfo": {"features": R.PUBLIC, "latestLocalVersionInfo": R.NOTHING},
    "ServerSettings": {"serverMessages": R.NOTHING},
    "User": {"apiKeys": R.OWN, "teams": R.OWN, "organizations": R.NOTHING},
    "Entity": {
        "members": R.TEAM_READ,
        "organization": R.NOTHING,
        "user": R.OWN,  # a team has none, and a user's entity has no other member
        "project": R.ENTITY_READ,
        "projects": R.ENTITY_READ,
        "auditLog": R.ADMIN_READ,
        "defaultResourceConfig": R.TEAM_READ,
    },
    "Organization": {"orgEntity": R.NOTHING, "featureFlags": R.NOTHING},
    "Project": {
        "entity": R.ENTITY_READ,
        "user": R.ENTITY_READ,
        "run": R.ENTITY_READ,
        "bucket": R.ENTITY_READ,
        "runs": R.ENTITY_READ,
        "buckets": R.ENTITY_READ,
        "artifact": R.ENTITY_READ,
        "artifactType": R.ENTITY_READ,
        "artifactTypes": R.ENTITY_READ,
        "artifactCollection": R.ENTITY_READ,
        "artifactCollections": R.ENTITY_READ,
        "artifactCollectionMembership": R.ENTITY_READ,
        "runQueues": R.TEAM_READ,
        "runQueue": R.TEAM_READ,
        "launchAgents": R.TEAM_READ,
    },
    "Run": {
        "project": R.ENTITY_READ,
        "user": R.ENTITY_READ,
        "parquetHistory": R.ENTITY_READ,
        "runInfo": R.ENTITY_READ,
        "logLines": R.ENTITY_READ,
        "alerts": R.ENTITY_READ,
        "files": R.ENTITY_READ,
        "inputArtifacts": R.ENTITY_READ,
        "outputArtifacts": R.ENTITY_READ,
    },
    "RunInfo": {"git": R.ENTITY_READ},
    "Invite": {"toUser": R.ADMIN},
    "File": {"uploadMultipartUrls": R.NOTHING},
    "ArtifactFile": {"uploadMultipartUrls": R.RUN_WRITE, "artifact": R.RUN_WRITE},
    "UploadMultipartUrls": {"uploadUrlParts": R.RUN_WRITE},
    "RunQueue": {
        "runQueueItem": R.TEAM_READ,
        "runQueueItems": R.TEAM_READ,
        "defaultResourceConfig": R.TEAM_READ,
        "launchAgents": R.TEAM_READ,
    },
    "RunQueueItem": {"warnings": R.TEAM_READ},
    "DefaultResourceConfig": {"templateVariables": R.TEAM_READ},
    "LaunchAgent": {"items": R.TEAM_READ},
    "Artifact": {
        "artifactSequence": R.ENTITY_READ,
        "artifactType": R.ENTITY_READ,
        "tags": R.ENTITY_READ,
        "aliases": R.ENTITY_READ,
        "currentManifest": R.ENTITY_READ,
        "files": R.ENTITY_READ,
        "filesByManifestEntries": R.ENTITY_READ,
        "createdBy": R.ENTITY_READ,
        "usedBy": R.ENTITY_READ,
        "artifactMemberships": R.ENTITY_READ,
    },
    "ArtifactManifest": {"file": R.ENTITY_READ},
    "ArtifactType": {
        "artifactCollection": R.ENTITY_READ,
        "artifactCollections": R.ENTITY_READ,
        "artifact": R.ENTITY_READ,
        "artifactSequence": R.ENTITY_READ,
    },
    "ArtifactCollection": {
        "project": R.ENTITY_READ,
        "defaultArtifactType": R.ENTITY_READ,
        "tags": R.ENTITY_READ,
        "aliases": R.ENTITY_READ,
        "artifacts": R.ENTITY_READ,
        "artifactMembership": R.ENTITY_READ,
    },
    "ArtifactSequence": {
        "project": R.ENTITY_READ,
        "defaultArtifactType": R.ENTITY_READ,
        "tags": R.ENTITY_READ,
        "aliases": R.ENTITY_READ,
        "artifacts": R.ENTITY_READ,
        "artifactMembership": R.ENTITY_READ,
        "latestArtifact": R.ENTITY_READ,
    },
    "ArtifactCollectionMembership": {
        "aliases": R.ENTITY_READ,
        "artifactCollection": R.ENTITY_READ,
        "artifact": R.ENTITY_READ,
        "files": R.ENTITY_READ,
    },
    "ArtifactAlias": {"artifactCollection": R.ENTITY_READ},
}

MUTATIONS: dict[str, Rule] = {
    "upsertModel": R.MEMBER,
    "upsertBucket": R.RUN_WRITE,
    "createRunFiles": R.RUN_WRITE,
    "markRunFilesUploaded": R.RUN_WRITE,
    "deleteFiles": R.RUN_WRITE,
    "notifyScriptableRunAlert": R.RUN_WRITE,
    "createArtifact": R.RUN_WRITE,
    "createArtifactManifest": R.RUN_WRITE,
    "updateArtifactManifest": R.RUN_WRITE,
    "createArtifactFiles": R.RUN_WRITE,
    "completeMultipartUploadArtifact": R.RUN_WRITE,
    "commitArtifact": R.RUN_WRITE,
    "updateArtifact": R.RUN_WRITE,
    "useArtifact": R.RUN_WRITE,
    "addAliases": R.RUN_WRITE,
    "deleteAliases": R.RUN_WRITE,
    "linkArtifact": R.RUN_WRITE,
    "unlinkArtifact": R.MEMBER,
    "deleteArtifact": R.MEMBER,
    "updateArtifactSequence": R.MEMBER,
    "moveArtifactSequence": R.MEMBER,
    "updateArtifactPortfolio": R.MEMBER,
    "createArtifactCollectionTagAssignments": R.MEMBER,
    "deleteArtifactCollectionTagAssignments": R.MEMBER,
    "deleteArtifactPortfolio": R.MEMBER,
    "deleteArtifactSequence": R.MEMBER,
    "createDefaultResourceConfig": R.ADMIN,
    "createRunQueue": R.ADMIN,
    "upsertRunQueue": R.ADMIN,
    "createLaunchAgent": R.MEMBER,
    "updateLaunchAgent": R.MEMBER,
    "pushToRunQueue": R.MEMBER,
    "pushToRunQueueByName": R.MEMBER,
    "ackRunQueueItem": R.MEMBER,
    "updateRunQueueItemWarning": R.MEMBER,
    "failRunQueueItem": R.MEMBER,
    "cancelRunQueueItem": R.MEMBER,
    "deleteFromRunQueue": R.MEMBER,
    "requeueRunQueueItem": R.MEMBER,
    "popFromRunQueue": R.MEMBER,
    "cancelRunQueueItems": R.MEMBER,
    "stopLaunchAgent": R.MEMBER,
    "rewindRun": R.MEMBER,
    "updateRunState": R.MEMBER,
    "stopRun": R.MEMBER,
    "deleteRun": R.MEMBER,
    "updateRunQueue": R.ADMIN,
    "deleteRunQueues": R.ADMIN,
    "createServiceAccount": R.ADMIN,
    "createInvite": R.ADMIN,
    "deleteInvite": R.ADMIN,
    "createUser": R.SERVER_ADMIN,
    "createTeam": R.SERVER_ADMIN,
    "generateApiKey": R.OWN,
    "deleteApiKey": R.KEY_OWNER,
}
"""In an order in which each of them still finds what it is about."""

ADMIN_API = "/admin/v1"
ROUTES: dict[str, Rule] = {
    "POST /graphql": R.PUBLIC,
    "POST /files/{entity}/{project}/{run}/file_stream": R.RUN_WRITE,
    "GET /healthz": R.OPEN,
    "PUT /storage/{key}": R.SIGNED,
    "GET /storage/{key}": R.SIGNED,
    "OPTIONS /storage/{key}": R.OPEN,
    "GET /artifactsV2/{rest}": R.ENTITY_READ,
    "GET /artifacts/{entity}/{md5}": R.ENTITY_READ,
    "GET /{entity}/{project}/runs/{run}": R.ENTITY_READ,
    f"GET {ADMIN_API}/users": R.ADMIN_KEY,
    f"POST {ADMIN_API}/users": R.ADMIN_KEY,
    f"GET {ADMIN_API}/users/{{username}}": R.ADMIN_KEY,
    f"DELETE {ADMIN_API}/users/{{username}}": R.ADMIN_KEY,
    f"GET {ADMIN_API}/users/{{username}}/keys": R.ADMIN_KEY,
    f"POST {ADMIN_API}/users/{{username}}/keys": R.ADMIN_KEY,
    f"DELETE {ADMIN_API}/users/{{username}}/keys/{{key}}": R.ADMIN_KEY,
    f"GET {ADMIN_API}/teams": R.ADMIN_KEY,
    f"POST {ADMIN_API}/teams": R.ADMIN_KEY,
    f"GET {ADMIN_API}/teams/{{team}}": R.ADMIN_KEY,
    f"DELETE {ADMIN_API}/teams/{{team}}": R.ADMIN_KEY,
    f"PUT {ADMIN_API}/teams/{{team}}/members/{{username}}": R.ADMIN_KEY,
    f"DELETE {ADMIN_API}/teams/{{team}}/members/{{username}}": R.ADMIN_KEY,
    f"GET {ADMIN_API}/audit": R.ADMIN_KEY,
}
"""HEAD has the rule of its GET."""
