"""The audit trail: who changed what, kept in the same transaction as the change itself.

Names stand there, not references: the trail outlives people, teams and queues.
"""

from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.context import Request, utc_now
from launch_async.server.store.prepared import often
from launch_async.server.store.tables.people import audit_log

MAX_SUBJECT: Final = 256
ADD: Final = often(audit_log.insert())


class AuditEntry(msgspec.Struct, frozen=True):
    """One thing that somebody did."""

    id: int
    at: datetime
    username: str
    entity: str | None
    action: str
    subject: str
    details: dict[str, Any]


async def record(
    connection: AsyncConnection,
    request: Request,
    action: str,
    entity: str,
    subject: str,
    /,
    **details: Any,
) -> None:
    """Note what the viewer did in an entity: `queue.pause` of a queue's name, for example.

    Details are shown to the entity's admins: never a secret, never what a user wrote at length.
    """
    await note(connection, request.viewer.username, action, entity, subject, **details)


async def note(
    connection: AsyncConnection,
    username: str,
    action: str,
    entity: str | None,
    subject: str,
    /,
    **details: Any,
) -> None:
    """Note what somebody did; an entity of None stands for the server's own matters."""
    known = {name: value for name, value in details.items() if value is not None}
    await connection.execute(
        ADD,
        {
            "at": utc_now(),
            "username": username,
            "entity_name": entity,
            "action": action,
            "subject": subject[:MAX_SUBJECT],
            "details": msgspec.json.encode(known).decode(),
        },
    )


async def entries(
    connection: AsyncConnection, *, entity: str | None, before_id: int | None, limit: int
) -> list[AuditEntry]:
    """Return entries of an entity, of all when None, the newest first."""
    statement = select(audit_log).order_by(audit_log.c.id.desc()).limit(limit)
    if entity is not None:
        statement = statement.where(audit_log.c.entity_name == entity)
    if before_id is not None:
        statement = statement.where(audit_log.c.id < before_id)
    return [
        AuditEntry(
            id=row.id,
            at=row.at,
            username=row.username,
            entity=row.entity_name,
            action=row.action,
            subject=row.subject,
            details=msgspec.json.decode(row.details),
        )
        for row in await connection.execute(statement)
    ]
