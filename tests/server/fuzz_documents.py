"""Documents that ask for a field of the schema, wherever it is, with values of our choice.

place of a type: Query.project -> Project.run -> Run     with real arguments all the way
target: a field with arguments, or all plain fields of a type at once
"""

from collections import deque
from typing import Any

import msgspec
from fuzz_values import ENTITY, PROJECT, RUN
from graphql import (
    GraphQLField,
    GraphQLInputType,
    GraphQLNamedType,
    GraphQLObjectType,
    get_named_type,
    is_composite_type,
    is_interface_type,
    is_object_type,
    is_required_argument,
    is_union_type,
)

from launch_async.server.graphql import GraphQL
from launch_async.server.ids import encode_id
from launch_async.server.resolvers.bind import BINDABLES

PAYLOAD_LEVELS = 2
SCHEMA = GraphQL.load(BINDABLES).schema
REAL: dict[str, dict[str, Any]] = {
    "Query.project": {"name": PROJECT, "entityName": ENTITY},
    "Query.model": {"name": PROJECT, "entityName": ENTITY},
    "Query.entity": {"name": ENTITY},
    "Query.models": {"entityName": ENTITY},
    "Query.organization": {"name": ENTITY},
    "Query.users": {"query": ENTITY},
    "Query.launchAgent": {"id": encode_id("LaunchAgent", 1)},
    "Query.artifact": {"id": encode_id("Artifact", 1)},
    "Query.artifactCollection": {"id": encode_id("ArtifactCollection", 1)},
    "Query.clientIDMapping": {"clientID": "c1"},
    "Project.run": {"name": RUN},
    "Project.bucket": {"name": RUN},
    "Project.artifact": {"name": "data:latest"},
    "Project.artifactType": {"name": "dataset"},
    "Project.artifactCollection": {"name": "data"},
    "Project.artifactCollectionMembership": {"name": "data:latest"},
    "Project.runQueue": {"name": "q"},
    "RunQueue.runQueueItem": {"id": encode_id("RunQueueItem", 1)},
    "Run.parquetHistory": {"liveKeys": ["x"]},
    "Entity.project": {"name": PROJECT},
    "Entity.defaultResourceConfig": {"id": encode_id("DefaultResourceConfig", 1)},
    "Artifact.filesByManifestEntries": {"storageLayout": "V2", "manifestVersion": "1"},
}


class Target(msgspec.Struct, frozen=True):
    """A field to ask for, by the type that has it; no field: all of the type's plain ones."""

    holder: str
    field: str | None

    @property
    def arguments(self) -> dict[str, GraphQLInputType]:
        """The types of the field's arguments."""
        if self.field is None:
            return {}
        found = _field(self.holder, self.field).args
        return {name: argument.type for name, argument in found.items()}

    def __str__(self) -> str:
        return f"{self.holder}.{self.field or '*'}"


def targets() -> list[Target]:
    """Return everything that the schema lets one ask for."""
    found: list[Target] = []
    for kind in SCHEMA.type_map.values():
        if is_object_type(kind) and not kind.name.startswith("__") and kind.name in PLACES:
            found.append(Target(kind.name, None))
            found += [Target(kind.name, name) for name, field in kind.fields.items() if field.args]
    return found


def document(target: Target, given: dict[str, Any]) -> dict[str, Any]:
    """Return the query and the variables that ask for a target; `given` are its arguments."""
    holder, field = target.holder, target.field
    call = _Call(holder, field, given, "x")
    text = _plain(_kind(holder), 1) if field is None else call.text(PAYLOAD_LEVELS)
    steps = PLACES[holder]
    calls = [call]
    for number, (above, name, below) in reversed(list(enumerate(steps))):
        step = _Call(above, name, REAL.get(f"{above}.{name}", {}), f"p{number}")
        text = f"{step.head} {{ ... on {below} {{ {text} }} }}"
        calls.append(step)
    kind = "mutation" if holder == "Mutation" else "query"
    declared = ", ".join(each for one in calls for each in one.declarations)
    return {
        "query": f"{kind} Q{f'({declared})' if declared else ''} {{ {text} }}",
        "variables": {name: value for one in calls for name, value in one.variables.items()},
    }


class _Call:
    """A field with arguments, each of which comes in a variable."""

    def __init__(self, holder: str, field: str | None, given: dict[str, Any], prefix: str) -> None:
        self._field = None if field is None else _field(holder, field)
        kinds = {} if self._field is None else self._field.args
        words = ", ".join(f"{name}: ${prefix}_{name}" for name in given)
        self.head = f"{field}({words})" if words else f"{field}"
        self.declarations = [f"${prefix}_{name}: {kinds[name].type}" for name in given]
        self.variables = {f"{prefix}_{name}": value for name, value in given.items()}

    def text(self, levels: int) -> str:
        assert self._field is not None
        below = get_named_type(self._field.type)
        return (
            f"{self.head} {{ {_plain(below, levels)} }}" if is_composite_type(below) else self.head
        )


def _places() -> dict[str, list[tuple[str, str, str]]]:
    """Return the shortest way to each type: (type, field, type that it leads to), from the top."""
    assert SCHEMA.query_type is not None
    assert SCHEMA.mutation_type is not None
    found: dict[str, list[tuple[str, str, str]]] = {"Query": [], "Mutation": []}
    waiting = deque(["Query"])
    while waiting:
        name = waiting.popleft()
        for field_name, field in _kind(name).fields.items():
            if not _is_passable(name, field_name, field):
                continue
            for next_kind in _objects(get_named_type(field.type)):
                if next_kind not in found:
                    found[next_kind] = [*found[name], (name, field_name, next_kind)]
                    waiting.append(next_kind)
    return found


def _is_passable(holder: str, name: str, field: GraphQLField) -> bool:
    real = REAL.get(f"{holder}.{name}", {})
    return all(
        argument in real for argument, kind in field.args.items() if is_required_argument(kind)
    )


def _objects(kind: GraphQLNamedType) -> list[str]:
    if is_interface_type(kind) or is_union_type(kind):
        return [each.name for each in SCHEMA.get_possible_types(kind)]
    return [kind.name] if is_object_type(kind) else []


def _plain(kind: GraphQLNamedType, levels: int) -> str:
    """Return a selection of the fields that need no argument, and of those some levels below."""
    parts = ["__typename"]
    for name in _objects(kind):
        inner: list[str] = []
        for field_name, field in _kind(name).fields.items():
            if any(is_required_argument(each) for each in field.args.values()):
                continue
            below = get_named_type(field.type)
            if not is_composite_type(below):
                # Types of a union may have fields of one name and two types.
                inner.append(f"{name}_{field_name}: {field_name}")
            elif levels > 0:
                inner.append(f"{name}_{field_name}: {field_name} {{ {_plain(below, levels - 1)} }}")
        parts.append(f"... on {name} {{ {' '.join(inner)} }}" if inner else "")
    return " ".join(parts)


def _field(holder: str, name: str) -> GraphQLField:
    return _kind(holder).fields[name]


def _kind(name: str) -> GraphQLObjectType:
    kind = SCHEMA.type_map[name]
    assert isinstance(kind, GraphQLObjectType)
    return kind


PLACES = _places()
