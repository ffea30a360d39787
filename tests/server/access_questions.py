"""Questions for each field and mutation, put together from the schema and one team's things."""

import base64
from collections.abc import Iterator
from typing import Any

import msgspec
from access_table import PARTS
from access_world import MD5, PROJECT, RUN, World
from graphql import (
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    get_named_type,
    is_leaf_type,
    is_required_argument,
    is_required_input_field,
)

from launch_async.server.graphql import GraphQL
from launch_async.server.resolvers.bind import BINDABLES

SCHEMA: GraphQLSchema = GraphQL.load(BINDABLES).schema
COMPOSITE = (GraphQLObjectType, GraphQLInterfaceType, GraphQLUnionType)
ARGUMENTS = {
    "Query.entity": 'name: "{entity}"',
    "Query.model": 'name: "{project}", entityName: "{entity}"',
    "Query.project": 'name: "{project}", entityName: "{entity}"',
    "Query.models": 'entityName: "{entity}"',
    "Query.organization": 'name: "{entity}"',
    "Query.launchAgent": 'id: "{agent}"',
    "Query.artifact": 'id: "{artifact}"',
    "Query.artifactCollection": 'id: "{portfolio}"',
    "Query.clientIDMapping": 'clientID: "{entity}-artifact"',
    "Entity.project": 'name: "{project}"',
    "Entity.defaultResourceConfig": 'id: "{config}"',
    "Project.run": 'name: "{run_name}"',
    "Project.bucket": 'name: "{run_name}"',
    "Project.artifact": 'name: "data:latest"',
    "Project.artifactType": 'name: "dataset"',
    "Project.artifactCollection": 'name: "data"',
    "Project.artifactCollectionMembership": 'name: "data:latest"',
    "Project.runQueue": 'name: "q"',
    "Run.parquetHistory": 'liveKeys: ["a"]',
    "RunQueue.runQueueItem": 'id: "{leased}"',
    "Artifact.filesByManifestEntries": (
        'storageLayout: "V2", manifestVersion: "1", entries: [{{name: "f"}}]'
    ),
    "ArtifactType.artifactCollection": 'name: "data"',
    "ArtifactType.artifact": 'name: "data:latest"',
    "ArtifactType.artifactSequence": 'name: "data"',
    "ArtifactCollection.artifactMembership": 'aliasName: "latest"',
    "ArtifactSequence.artifactMembership": 'aliasName: "latest"',
}
"""Arguments of queries' fields; those without any are asked as they are."""


class Step(msgspec.Struct, frozen=True):
    """One field on the way to another."""

    parent: str
    field: str

    @property
    def arguments(self) -> str | None:
        """The arguments in a document, with names to fill in; None when one has no value."""
        known = ARGUMENTS.get(f"{self.parent}.{self.field}")
        if known is not None:
            return f"({known})"
        needed = any(is_required_argument(each) for each in self.declared.args.values())
        return None if needed else ""

    @property
    def declared(self) -> Any:
        """The field in the schema."""
        kind: Any = SCHEMA.type_map[self.parent]
        return kind.fields[self.field]

    @property
    def target(self) -> str:
        """The type that the field leads to."""
        return get_named_type(self.declared.type).name


def leading_fields() -> Iterator[Step]:
    """Yield each field that leads to another object, mutations left out."""
    for kind in SCHEMA.type_map.values():
        if not isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            continue
        if not kind.name.startswith("__") and kind is not SCHEMA.mutation_type:
            yield from _steps(kind.name)


def is_part(step: Step) -> bool:
    """Tell whether a field is but a part of what led to its parent."""
    return step.parent.endswith(PARTS)


def way_to(last: Step) -> tuple[Step, ...] | None:
    """Return the shortest way from Query to a field, None when no query leads there."""
    ways: list[tuple[str, tuple[Step, ...]]] = [("Query", ())]
    seen = {"Query"}
    for place, way in ways:  # it grows as we go
        if place == last.parent:
            return (*way, last)
        for step in _steps(place):
            if step.target not in seen and step.arguments is not None:
                seen.add(step.target)
                ways.append((step.target, (*way, step)))
    return None


def query_of(way: tuple[Step, ...], world: World) -> str:
    """Return a document that asks for the field at the end of a way."""
    text = "{ __typename }"
    for step in reversed(way):
        name = f"{step.parent}.{step.field}"
        assert step.arguments is not None, f"{name} needs arguments: add them to ARGUMENTS"
        text = f"{{ {step.field}{step.arguments.format(**_names(world)) or ''} {text} }}"
    return f"query Q {text}"


def value_at(data: Any, way: tuple[Step, ...]) -> Any:
    """Return what an answer holds at the end of a way: None for nothing, and for no entries."""
    for step in way:
        if isinstance(data, list):
            data = data[0] if data else None
        data = None if data is None else data.get(step.field)
    return data or None


def mutation_of(
    name: str, world: World, *, own_place: tuple[str, str] | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the document and the variables of a mutation on the team's things.

    With an entity and a project of the asker's own, only the ids in it are the team's.
    """
    field: Any = SCHEMA.mutation_type and SCHEMA.mutation_type.fields[name]
    kind: Any = get_named_type(field.args["input"].type)
    assert isinstance(kind, GraphQLInputObjectType)
    known = _inputs(name, world)
    if own_place is not None:
        entity, project = own_place
        known |= {"entityName": entity, "projectName": project, "modelName": project}
        known |= {"id": world.values["project_id"]} if name == "upsertModel" else {}
    given = {part: known[part] for part in kind.fields if part in known}
    for part, declared in kind.fields.items():
        needed = is_required_input_field(declared) and part not in given
        assert not needed, f"{name} needs {part}: add a value to the inputs"
    payload: Any = get_named_type(field.type)
    leaves = [part for part, each in payload.fields.items() if is_leaf_type(_inner(each.type))]
    document = (
        f"mutation M($input: {kind.name}!) {{ {name}(input: $input) "
        f"{{ __typename {' '.join(leaves)} }} }}"
    )
    return document, {"input": given}


def _steps(kind_name: str) -> Iterator[Step]:
    kind = SCHEMA.type_map[kind_name]
    if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
        for name, field in kind.fields.items():
            if isinstance(get_named_type(field.type), COMPOSITE):
                yield Step(kind_name, name)


def _inner(kind: Any) -> Any:
    return _inner(kind.of_type) if isinstance(kind, GraphQLNonNull) else get_named_type(kind)


def _names(world: World) -> dict[str, Any]:
    return {**world.values, "entity": world.entity, "project": PROJECT, "run_name": RUN}


def _inputs(name: str, world: World) -> dict[str, Any]:
    """Return what a mutation is given, by the names of its input's fields."""
    values = world.values
    alias = {"artifactCollectionName": "data", "alias": "latest"}
    whole_alias = {**alias, "entityName": world.entity, "projectName": PROJECT}
    file = {"artifactID": values["artifact"], "name": "g", "md5": base64.b64encode(MD5).decode()}
    own: dict[str, dict[str, Any]] = {
        "upsertModel": {"name": PROJECT, "description": "changed"},
        "upsertBucket": {"name": RUN, "displayName": "changed"},
        "createRunFiles": {"files": ["g.txt"]},
        "markRunFilesUploaded": {"files": ["f.txt"]},
        "deleteFiles": {"files": [values["file"]]},
        "notifyScriptableRunAlert": {"title": "t", "text": "x"},
        "updateRunState": {"id": values["run"], "state": "failed"},
        "stopRun": {"id": values["run"]},
        "deleteRun": {"id": values["run"]},
        "createArtifact": {
            "artifactTypeName": "dataset",
            "artifactCollectionName": "data",
            "digest": "f" * 32,
        },
        "createArtifactManifest": {"name": "wandb_manifest.json", "digest": ""},
        "createArtifactFiles": {"artifactFiles": [file]},
        "commitArtifact": {"artifactID": values["uploaded"]},
        "updateArtifact": {"description": "changed"},
        "addAliases": {"aliases": [{**whole_alias, "alias": "new"}]},
        "deleteAliases": {"aliases": [whole_alias]},
        "completeMultipartUploadArtifact": {
            "completeMultipartAction": "Complete",
            "completedParts": [{"partNumber": 1, "hexMD5": values["part"]}],
            "storagePath": values["storage_path"],
            "uploadID": values["upload"],
        },
        "linkArtifact": {"artifactPortfolioName": "links"},
        "deleteArtifact": {"deleteAliases": True},
        "createArtifactCollectionTagAssignments": {"tags": [{"tagName": "t"}]},
        "deleteArtifactCollectionTagAssignments": {"tags": [{"tagName": "t"}]},
        "moveArtifactSequence": {"destinationArtifactTypeName": "moved"},
        "updateArtifactSequence": {"description": "changed"},
        "createDefaultResourceConfig": {"resource": "local-process", "config": "{}"},
        "createRunQueue": {"queueName": "new", "access": "PROJECT"},
        "upsertRunQueue": {"resourceType": "local-process", "resourceConfig": "{}"},
        "updateRunQueue": {"paused": True},
        "ackRunQueueItem": {"runQueueItemId": values["leased"], "runName": "r3"},
        "failRunQueueItem": {"runQueueItemId": values["leased"]},
        "updateRunQueueItemWarning": {"runQueueItemId": values["leased"]},
        "cancelRunQueueItem": {"runQueueItemId": values["pending"]},
        "cancelRunQueueItems": {"includeRunning": False},
        "requeueRunQueueItem": {"runQueueItemId": values["ended"]},
        "deleteFromRunQueue": {"runQueueItemId": values["pending"]},
        "rewindRun": {"metricName": "_step", "metricValue": 0},
        "createServiceAccount": {"description": f"{world.entity}-ci"},
        "createInvite": {"username": world.stranger},
        "deleteInvite": {"id": values["viewer_id"]},
        "createUser": {"email": f"{world.entity}-new@example.com"},
        "createTeam": {"teamName": f"{world.entity}-made"},
        "deleteApiKey": {"id": values["key_id"]},
        "createLaunchAgent": {"runQueues": [values["queue"]], "hostname": "h"},
        "updateLaunchAgent": {"agentStatus": "RUNNING"},
    }
    return {
        "entityName": world.entity,
        "projectName": PROJECT,
        "modelName": PROJECT,
        "runName": RUN,
        "queueName": "q",
        "queueID": values["queue"],
        "queueIDs": [values["queue"]],
        "launchAgentId": values["agent"],
        "runSpec": values["spec"],
        "message": "said",
        "stage": "run",
        "defaultResourceConfigID": values["config"],
        "artifactID": values["artifact"],
        "baseArtifactID": values["artifact"],
        "artifactManifestID": values["manifest"],
        "artifactSequenceID": values["collection"],
        "artifactPortfolioID": values["portfolio"],
        "artifactCollectionName": "data",
        **own.get(name, {}),
    }
