"""How W&B's client reads a queue's resource config: two documents, and what they answer."""

from typing import Any

import msgspec

from launch_async.domain.policy import QueueDefaults

MAX_CONFIG_BYTES = 1 << 20

QUEUE_METADATA = """
query GetRunQueueMetadata($projectName: String!, $entityName: String!, $runQueue: String!) {
  project(name: $projectName, entityName: $entityName) {
    runQueue(name: $runQueue) { id defaultResourceConfigID }
  }
}
"""

RESOURCE_CONFIG = """
query GetDefaultResourceConfig($entityName: String!, $id: ID!) {
  entity(name: $entityName) {
    defaultResourceConfig(id: $id) { config resource templateVariables { name schema } }
  }
}
"""


def decode_resource_config(node: Any) -> QueueDefaults:
    """A `defaultResourceConfig`: its documents are objects, or JSON as text.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is not one, or larger than 1 MiB.
    """
    if len(msgspec.json.encode(node)) > MAX_CONFIG_BYTES:
        msg = "the queue's resource config is larger than 1 MiB"
        raise ValueError(msg)
    resource = str(node["resource"])
    all_args = _document(node["config"]).get("resource_args") or {}
    args = all_args.get(resource)
    if args is None and resource == "gcp-vertex":
        args = all_args.get("vertex")
    variables = {
        str(variable["name"]): _document(variable["schema"])
        for variable in node.get("templateVariables") or ()
    }
    return QueueDefaults(
        resource=resource,
        args=_document(args or {}),
        variables={name: _schema(schema) for name, schema in variables.items()},
    )


class _Schema(msgspec.Struct, frozen=True):
    """What is used of a JSON Schema must be as it should."""

    type: str | None = None
    enum: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None


def _schema(document: dict[str, Any]) -> dict[str, Any]:
    found = _document(document.get("schema", document))
    msgspec.convert(found, _Schema)
    return found


def _document(value: Any) -> dict[str, Any]:
    found = msgspec.json.decode(value) if isinstance(value, str) else value
    if not isinstance(found, dict):
        msg = "a part of the queue's resource config is no object"
        raise TypeError(msg)
    return found
