"""What a run's key may ask for: a run reads its entity's runs and artifacts, and changes its own.

Bound last. Every mutation that is not named here is refused, and so is every field that leads to
launch matters or to people; what a rule of its own would forget is closed all the same.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from ariadne import SchemaBindable
from graphql import GraphQLField, GraphQLObjectType, GraphQLSchema, get_named_type

from launch_async.server.context import Info, request_of
from launch_async.server.errors import ApiError

MUTATIONS: Final = frozenset(
    {
        "upsertBucket",
        "createRunFiles",
        "markRunFilesUploaded",
        "deleteFiles",
        "notifyScriptableRunAlert",
        "createArtifact",
        "createArtifactManifest",
        "updateArtifactManifest",
        "createArtifactFiles",
        "completeMultipartUploadArtifact",
        "commitArtifact",
        "updateArtifact",
        "useArtifact",
        "addAliases",
        "deleteAliases",
        "linkArtifact",
    }
)
"""Each of them holds what it changes against the run of the key."""

CLOSED_TYPES: Final = frozenset(
    {
        "RunQueue",
        "RunQueueItem",
        "LaunchAgent",
        "DefaultResourceConfig",
        "AuditEntryConnection",
        "Member",
        "UserConnection",
    }
)
REFUSAL: Final = "a run's key may not ask for {name}; use a key of your own"


class RunKeyGate(SchemaBindable):
    """Puts the gate before the resolvers that a schema has."""

    def bind_to_schema(self, schema: GraphQLSchema) -> None:
        """Wrap the resolver of each field that is closed to runs."""
        for kind in schema.type_map.values():
            if not isinstance(kind, GraphQLObjectType):
                continue
            for name, field in kind.fields.items():
                mutation = kind is schema.mutation_type and name not in MUTATIONS
                if mutation or get_named_type(field.type).name in CLOSED_TYPES:
                    _close(f"{kind.name}.{name}", field)


def _close(name: str, field: GraphQLField) -> None:
    resolve: Callable[..., Any] | None = field.resolve
    if resolve is None:
        return  # a plain part of what is closed itself

    @wraps(resolve)
    def gated(parent: Any, info: Info, **arguments: Any) -> Any:
        if request_of(info).viewer.run is not None:
            raise ApiError(REFUSAL.format(name=name), status=403)
        return resolve(parent, info, **arguments)

    field.resolve = gated


BINDABLES: list[SchemaBindable] = [RunKeyGate()]
