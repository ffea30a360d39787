"""Mutations of versions: described, named, linked, used and deleted."""

from collections import defaultdict
from typing import Any

from ariadne import MutationType, SchemaBindable
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server import artifact_lists as lists
from launch_async.server import artifacts as rules
from launch_async.server.access import Role, require_role, require_run_write
from launch_async.server.artifact_access import (
    require_artifact_creation,
    require_changeable_artifact,
    require_members_artifact,
    require_writable_artifact,
)
from launch_async.server.artifact_aliases import put_aliases, take_aliases, wanted_aliases
from launch_async.server.artifact_links import link_artifact, unlink_artifact
from launch_async.server.artifact_locks import lock_all_versions
from launch_async.server.artifact_members import memberships_of
from launch_async.server.artifact_rows import (
    ARTIFACT,
    COMMITTED,
    ArtifactRow,
    CollectionRow,
    require_artifact,
    require_collection,
)
from launch_async.server.context import Info, Request, request_of
from launch_async.server.errors import ApiError
from launch_async.server.ids import encode_id
from launch_async.server.projects import (
    DEFAULT_PROJECT,
    ProjectRow,
    ensure_project,
    require_project,
    resolve_entity,
)
from launch_async.server.resolvers.artifact_shapes import artifact_shape, membership_shape

mutation = MutationType()
BINDABLES: list[SchemaBindable] = [mutation]

Json = dict[str, Any]


@mutation.field("updateArtifact")
async def update_artifact(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Change what may change of a version."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await require_changeable_artifact(connection, request, input)
        row = await rules.locked(connection, row)
        row = await rules.update_artifact(connection, row, input, now=request.now())
    return {"artifact": artifact_shape(row)}


@mutation.field("deleteArtifact")
async def delete_artifact(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Delete a version."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await require_members_artifact(connection, request, input["artifact_id"])
        row = await rules.locked(connection, row)
        row = await rules.delete_artifact(
            connection, row, delete_aliases=bool(input.get("delete_aliases")), now=request.now()
        )
    return {"artifact": artifact_shape(row)}


@mutation.field("useArtifact")
async def use_artifact(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Note that a run uses a version."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await require_artifact(connection, request, input["artifact_id"])
        entity, place = input.get("entity_name"), input.get("project_name")
        require_run_write(
            request.viewer,
            entity or request.viewer.entity,
            place or DEFAULT_PROJECT,
            input["run_name"],
        )
        project = await require_project(connection, request, entity, place)
        await rules.note_run(
            connection,
            row.id,
            project_id=project.id,
            run_name=input["run_name"],
            role=rules.INPUT,
            used_as=input.get("used_as"),
            now=request.now(),
        )
    return {"artifact": artifact_shape(row)}


@mutation.field("addAliases")
async def add_aliases(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Put aliases on a version, in any of its collections."""
    request = request_of(info)
    async with request.store.write() as connection:
        row, wanted = await _named_places(connection, request, input)
        for number, aliases in wanted.items():
            await put_aliases(connection, row, number, aliases)
    return {"success": True}


@mutation.field("deleteAliases")
async def delete_aliases(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Take aliases off a version, in any of its collections."""
    request = request_of(info)
    async with request.store.write() as connection:
        row, wanted = await _named_places(connection, request, input)
        for number, aliases in wanted.items():
            await take_aliases(connection, row, number, aliases)
    return {"success": True}


@mutation.field("linkArtifact")
async def resolve_link(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Link a version to a portfolio, made when missing."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await _meant(connection, request, input)
        project, name = await _portfolio(connection, request, row, input)
        row = await rules.locked(connection, row)
        given = input.get("aliases") or []
        found = await link_artifact(
            connection,
            row,
            project,
            name=name,
            aliases=wanted_aliases(name, given),
            now=request.now(),
        )
    if found is None:
        return {"version_index": None, "artifact_membership": None}
    return {
        "version_index": found.version_index,
        "artifact_membership": membership_shape(found),
    }


@mutation.field("unlinkArtifact")
async def resolve_unlink(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Take a version out of a portfolio."""
    request = request_of(info)
    async with request.store.write() as connection:
        row = await require_members_artifact(connection, request, input["artifact_id"])
        portfolio = await require_collection(connection, request, input["artifact_portfolio_id"])
        require_role(request.viewer, portfolio.entity_name, Role.MEMBER)
        row = await rules.locked(connection, row)
        await unlink_artifact(connection, row, portfolio)
    return {"success": True, "artifact_id": input["artifact_id"]}


async def _named_places(
    connection: AsyncConnection, request: Request, given: Json
) -> tuple[ArtifactRow, dict[int, list[str]]]:
    """Return a locked version and, by the row id of each of its collections meant, aliases."""
    row = await require_writable_artifact(connection, request, given["artifact_id"])
    row = await rules.locked(connection, row)
    if row.state != COMMITTED:
        raise ApiError("only a committed version can have aliases")
    places = [place.collection for place in await memberships_of(connection, row)]
    wanted: dict[int, list[str]] = defaultdict(list)
    for each in given["aliases"]:
        place = next((place for place in places if _is_meant(place, each)), None)
        if place is None:
            raise ApiError(f"this version is not in {each['artifact_collection_name']!r}")
        require_artifact_creation(request, place.entity_name, place.project.name, None)
        wanted[place.id].append(each["alias"])
    await lock_all_versions(connection, wanted.keys() - {row.collection.id})
    return row, wanted


def _is_meant(collection: CollectionRow, given: Json) -> bool:
    place = (collection.entity_name, collection.project.name.casefold(), collection.name)
    meant = (given["entity_name"], given["project_name"].casefold())
    return place == (*meant, given["artifact_collection_name"])


async def _meant(connection: AsyncConnection, request: Request, given: Json) -> ArtifactRow:
    """Return the version that is to be linked, named by its id or by its client's."""
    artifact_id, client_id = given.get("artifact_id"), given.get("client_id")
    if artifact_id is None and client_id is not None:
        found = await lists.artifact_of_client_id(
            connection, client_id, entity_names=request.viewer.entities
        )
        artifact_id = None if found is None else encode_id(ARTIFACT, found.id)
    if artifact_id is None:
        raise ApiError("there is no such artifact to link; log it first", status=404)
    return await require_writable_artifact(connection, request, artifact_id)


async def _portfolio(
    connection: AsyncConnection, request: Request, row: ArtifactRow, given: Json
) -> tuple[ProjectRow, str]:
    """Return the project and the name of the portfolio that is meant."""
    if given.get("artifact_portfolio_id"):
        known = await require_collection(connection, request, given["artifact_portfolio_id"])
        require_artifact_creation(request, known.entity_name, known.project.name, None)
        return known.project, known.name
    if not given.get("artifact_portfolio_name"):
        raise ApiError("a link needs the name of its portfolio")
    entity = await resolve_entity(
        connection, request, given.get("entity_name") or row.collection.entity_name
    )
    place = given.get("project_name") or row.collection.project.name
    require_artifact_creation(request, entity.name, place, None)
    project = await ensure_project(connection, entity.id, place, user_id=request.viewer.user_id)
    return project, given["artifact_portfolio_name"]
