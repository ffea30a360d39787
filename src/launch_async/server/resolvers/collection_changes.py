"""Mutations of collections of artifacts: renamed, retyped, tagged and deleted."""

from typing import Any

from ariadne import MutationType, SchemaBindable
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server import artifact_collections as rules
from launch_async.server import artifact_lists as lists
from launch_async.server.access import Role, require_role
from launch_async.server.artifact_aliases import pass_latest_on
from launch_async.server.artifact_rows import (
    DELETED,
    CollectionRow,
    named_collection,
    require_collection,
)
from launch_async.server.context import Info, Request, request_of
from launch_async.server.errors import ApiError
from launch_async.server.projects import require_project
from launch_async.server.resolvers.artifact_shapes import collection_shape, tag_shape

mutation = MutationType()
BINDABLES: list[SchemaBindable] = [mutation]

Json = dict[str, Any]


@mutation.field("deleteArtifactSequence")
async def delete_sequence(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Delete a sequence with all of its versions."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await _owned(connection, request, input["artifact_sequence_id"], portfolio=False)
        for portfolio in await rules.delete_sequence(connection, row, now=request.now()):
            await pass_latest_on(connection, portfolio)
    return {"artifact_collection": collection_shape(row, state=DELETED)}


@mutation.field("deleteArtifactPortfolio")
async def delete_portfolio(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Delete a portfolio; what it linked stays."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await _owned(connection, request, input["artifact_portfolio_id"], portfolio=True)
        await rules.delete_portfolio(connection, row)
    return {"artifact_collection": collection_shape(row, state=DELETED)}


@mutation.field("updateArtifactSequence")
async def update_sequence(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Change a sequence's name or description."""
    return await _update(info, input["artifact_sequence_id"], input, portfolio=False)


@mutation.field("updateArtifactPortfolio")
async def update_portfolio(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Change a portfolio's name or description."""
    return await _update(info, input["artifact_portfolio_id"], input, portfolio=True)


@mutation.field("moveArtifactSequence")
async def move_sequence(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Give a sequence another type."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await _owned(connection, request, input["artifact_sequence_id"], portfolio=False)
        row = await rules.move_collection(
            connection, row, input["destination_artifact_type_name"], now=request.now()
        )
    return {"artifact_collection": collection_shape(row)}


@mutation.field("createArtifactCollectionTagAssignments")
async def add_tags(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Put tags on a collection."""
    request = request_of(info)
    names = [tag["tag_name"] for tag in input["tags"]]
    async with request.store.write() as connection:
        row = await _named(connection, request, input)
        await rules.tag_collection(connection, row, names)
        tags = (await lists.tags_by_collection(connection, [row.id]))[row.id]
    return {"tags": [tag_shape(number, name) for number, name in tags if name in names]}


@mutation.field("deleteArtifactCollectionTagAssignments")
async def delete_tags(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Take tags off a collection."""
    request = request_of(info)
    names = [tag["tag_name"] for tag in input["tags"]]
    async with request.store.write() as connection:
        row = await _named(connection, request, input)
        await rules.untag_collection(connection, row, names)
    return {"success": True}


async def _update(info: Info, collection_id: str, given: Json, *, portfolio: bool) -> Json:
    request = request_of(info)
    async with request.store.write() as connection:
        row = await _owned(connection, request, collection_id, portfolio=portfolio)
        row = await rules.update_collection(connection, row, given, now=request.now())
    return {"artifact_collection": collection_shape(row)}


async def _owned(
    connection: AsyncConnection, request: Request, collection_id: str, *, portfolio: bool
) -> CollectionRow:
    row = await require_collection(connection, request, collection_id)
    require_role(request.viewer, row.entity_name, Role.MEMBER)
    if row.is_portfolio != portfolio:
        have, want = ("portfolio", "sequence") if row.is_portfolio else ("sequence", "portfolio")
        raise ApiError(f"{row.name!r} is a {have}, not a {want}")
    return row


async def _named(connection: AsyncConnection, request: Request, given: Json) -> CollectionRow:
    name = given["artifact_collection_name"]
    project = await require_project(
        connection, request, given["entity_name"], given["project_name"]
    )
    require_role(request.viewer, project.entity_name, Role.MEMBER)
    row = await named_collection(connection, project.id, name)
    if row is None:
        raise ApiError(f"artifact collection {name!r} not found", status=404)
    return row
