"""Portfolios: collections of links to versions of other collections of the same entity.

A link gives a version a number and aliases of its own in the portfolio. A version that is not
committed yet may be linked too: the link takes effect with the commit.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.artifact_aliases import pass_latest_on, put_aliases, take_aliases
from launch_async.server.artifact_collections import ensure_collection, next_number
from launch_async.server.artifact_locks import lock_all_versions
from launch_async.server.artifact_members import MemberRow, load_members, members_select
from launch_async.server.artifact_rows import (
    COMMITTED,
    DELETED,
    LATEST,
    PORTFOLIO,
    ArtifactRow,
    CollectionRow,
    collections_by_number,
)
from launch_async.server.artifacts import reload
from launch_async.server.errors import ApiError
from launch_async.server.projects import ProjectRow
from launch_async.server.store.engine import insert
from launch_async.server.store.tables.artifacts import artifact_links, artifacts

REGISTRY: Final = "wandb-registry-"


async def link_artifact(
    connection: AsyncConnection,
    row: ArtifactRow,
    project: ProjectRow,
    *,
    name: str,
    aliases: Sequence[str],
    now: datetime,
) -> MemberRow | None:
    """Link a `locked` version to a portfolio, made when missing; None until it is committed.

    A second link of the same version only adds its aliases, and `latest`.
    """
    if row.state == DELETED:
        raise ApiError("this version was deleted and cannot be linked", status=404)
    if project.name.startswith(REGISTRY):
        raise ApiError("this server has no registries; link to a portfolio in a project")
    if project.entity_id != row.collection.entity_id:
        raise ApiError(
            f"a version of {row.collection.entity_name!r} can only be linked to a portfolio of "
            f"{row.collection.entity_name!r}, not of {project.entity_name!r}"
        )
    portfolio = await ensure_collection(
        connection,
        project,
        name=name,
        type_name=row.collection.type_name,
        kind=PORTFOLIO,
        now=now,
    )
    await lock_all_versions(connection, [portfolio.id])
    wanted = await _note_link(connection, row, portfolio, aliases, now=now)
    if row.state != COMMITTED:
        return None
    await _commit_link(connection, row, portfolio, wanted, now=now)
    row = await reload(connection, row.id)
    found = members_select(portfolio).where(artifacts.c.id == row.id)
    return (await load_members(connection, portfolio, found))[0]


async def unlink_artifact(
    connection: AsyncConnection, row: ArtifactRow, portfolio: CollectionRow
) -> None:
    """Take a `locked` version out of a portfolio; `latest` goes to the newest that is left."""
    await lock_all_versions(connection, [portfolio.id])
    names = [alias.name for alias in row.aliases_in(portfolio.id)]
    gone = await connection.execute(
        delete(artifact_links).where(
            artifact_links.c.artifact_id == row.id, artifact_links.c.collection_id == portfolio.id
        )
    )
    if gone.rowcount == 0:
        raise ApiError(f"this version is not linked to {portfolio.name!r}", status=404)
    await take_aliases(connection, row, portfolio.id, names)
    if LATEST in names:
        await pass_latest_on(connection, portfolio)


async def commit_links(connection: AsyncConnection, row: ArtifactRow, *, now: datetime) -> None:
    """Let the links of a `locked` version that is being committed take effect."""
    rows = await connection.execute(
        select(artifact_links.c.collection_id, artifact_links.c.wanted_aliases)
        .where(artifact_links.c.artifact_id == row.id, artifact_links.c.version_index.is_(None))
        .order_by(artifact_links.c.id)
    )
    wanted = {each.collection_id: each.wanted_aliases for each in rows}
    await lock_all_versions(connection, wanted.keys())
    portfolios = await collections_by_number(connection, wanted.keys())
    for number, portfolio in portfolios.items():
        names = msgspec.json.decode(wanted[number], type=list[str])
        await _commit_link(connection, row, portfolio, names, now=now)


async def _note_link(
    connection: AsyncConnection,
    row: ArtifactRow,
    portfolio: CollectionRow,
    aliases: Sequence[str],
    *,
    now: datetime,
) -> list[str]:
    """Note the link, and return the aliases that were ever wanted for it."""
    its = (artifact_links.c.artifact_id == row.id, artifact_links.c.collection_id == portfolio.id)
    await connection.execute(
        insert(connection, artifact_links)
        .values(collection_id=portfolio.id, artifact_id=row.id, wanted_aliases="[]", created_at=now)
        .on_conflict_do_nothing()
    )
    known = await connection.execute(select(artifact_links.c.wanted_aliases).where(*its))
    before = msgspec.json.decode(known.scalar_one(), type=list[str])
    wanted = list(dict.fromkeys([*before, *aliases]))
    await connection.execute(
        update(artifact_links)
        .where(*its)
        .values(wanted_aliases=msgspec.json.encode(wanted).decode())
    )
    return wanted


async def _commit_link(
    connection: AsyncConnection,
    row: ArtifactRow,
    portfolio: CollectionRow,
    aliases: Sequence[str],
    *,
    now: datetime,
) -> None:
    its = (artifact_links.c.artifact_id == row.id, artifact_links.c.collection_id == portfolio.id)
    known = await connection.execute(select(artifact_links.c.version_index).where(*its))
    number = known.scalar_one()
    if number is None:
        number = await next_number(connection, portfolio.id, now=now)
    await connection.execute(
        update(artifact_links).where(*its).values(version_index=number, wanted_aliases="[]")
    )
    await put_aliases(connection, row, portfolio.id, [*aliases, LATEST])
