"""Fields that only older clients ask for."""

from typing import Any

from ariadne import ObjectType, SchemaBindable

from launch_async.server.context import Info

upsert_payload = ObjectType("UpsertBucketPayload")

BINDABLES: list[SchemaBindable] = [upsert_payload]

Json = dict[str, Any]


@upsert_payload.field("serverSettings")
def resolve_server_settings(_: Any, _info: Info) -> Json:
    """Return what the server wants the user of a run to read: nothing."""
    return {"server_messages": []}
