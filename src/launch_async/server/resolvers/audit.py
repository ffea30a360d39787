"""The audit trail as the admins of an entity read it."""

from typing import Any

from ariadne import ObjectType, SchemaBindable

from launch_async.server import audit
from launch_async.server.access import Role, require_role
from launch_async.server.context import Info, request_of
from launch_async.server.ids import encode_id
from launch_async.server.projects import EntityRow
from launch_async.server.resolvers.projects import connection_of, page_size, page_start

entity = ObjectType("Entity")
BINDABLES: list[SchemaBindable] = [entity]

Json = dict[str, Any]


@entity.field("auditLog")
async def resolve_audit_log(
    row: EntityRow, info: Info, first: int | None = None, after: str | None = None
) -> Json:
    """Return who changed what in an entity, the newest first."""
    request = request_of(info)
    require_role(request.viewer, row.name, Role.ADMIN)
    size = page_size(first)
    async with request.store.read() as connection:
        found = await audit.entries(
            connection,
            entity=row.name,
            before_id=page_start(after) if after else None,
            limit=size + 1,
        )
    nodes = [
        {
            "id": encode_id("AuditEntry", each.id),
            "at": each.at,
            "username": each.username,
            "action": each.action,
            "subject": each.subject,
            "details": each.details,
        }
        for each in found[:size]
    ]
    cursors = [str(each.id) for each in found[:size]]
    return connection_of(nodes, cursors, has_next=len(found) > size)
