"""Artifact types and collections as clients read them."""

from typing import Any

from ariadne import InterfaceType, ObjectType, QueryType, SchemaBindable

from launch_async.server import artifact_lists as lists
from launch_async.server import artifact_rows as rows
from launch_async.server.artifact_members import member, named_member, newest_member
from launch_async.server.artifact_rows import AliasRow, CollectionRow, TypeRow
from launch_async.server.context import Info, request_of
from launch_async.server.projects import ProjectRow
from launch_async.server.resolvers.artifact_shapes import (
    alias_shape,
    artifact_shape,
    collection_shape,
    members_shape,
    membership_shape,
    page_shape,
    tag_shape,
    type_shape,
)
from launch_async.server.resolvers.projects import page_size, page_start

query = QueryType()
project_type = ObjectType("Project")
kind = ObjectType("ArtifactType")
sequence = ObjectType("ArtifactSequence")
portfolio = ObjectType("ArtifactPortfolio")
collection_interface = InterfaceType("ArtifactCollection")

BINDABLES: list[SchemaBindable] = [
    query,
    project_type,
    kind,
    sequence,
    portfolio,
    collection_interface,
]

Json = dict[str, Any]


@collection_interface.type_resolver
def collection_type_name(parent: Json, *_: Any) -> str:
    """Tell sequences from portfolios."""
    row: CollectionRow = parent["row"]
    return "ArtifactPortfolio" if row.is_portfolio else "ArtifactSequence"


@query.field("artifactCollection")
async def resolve_collection(_: None, info: Info, id: str) -> Json | None:  # noqa: A002
    """Return a collection by its id."""
    request = request_of(info)
    async with request.store.read() as connection:
        row = await rows.find_collection(connection, request, id)
    return None if row is None else collection_shape(row)


@project_type.field("artifactTypes")
async def resolve_types(
    row: ProjectRow, info: Info, after: str | None = None, first: int | None = None
) -> Json:
    """Return a project's artifact types."""
    start, size = page_start(after), page_size(first)
    async with request_of(info).store.read() as connection:
        found = await lists.types_of(connection, row.id)
    page = lists.Page(list(found[start : start + size]), start, len(found))
    return page_shape(page, [type_shape(each) for each in page.rows])


@project_type.field("artifactType")
async def resolve_type(row: ProjectRow, info: Info, name: str) -> Json | None:
    """Return a project's artifact type by name."""
    async with request_of(info).store.read() as connection:
        found = await lists.types_of(connection, row.id)
    return next((type_shape(each) for each in found if each.name == name), None)


@project_type.field("artifactCollection")
async def resolve_project_collection(row: ProjectRow, info: Info, name: str) -> Json | None:
    """Return a project's collection by name."""
    async with request_of(info).store.read() as connection:
        found = await rows.named_collection(connection, row.id, name)
    return None if found is None else collection_shape(found)


@project_type.field("artifactCollections")
async def resolve_project_collections(row: ProjectRow, info: Info, **asked: Any) -> Json:
    """Return a project's collections."""
    return await _collections(info, row.id, None, **asked)


@kind.field("artifactCollections")
async def resolve_type_collections(parent: Json, info: Info, **asked: Any) -> Json:
    """Return the collections of a type."""
    row: TypeRow = parent["row"]
    return await _collections(info, row.project_id, row.id, **asked)


@kind.field("artifactCollection")
async def resolve_type_collection(parent: Json, info: Info, name: str) -> Json | None:
    """Return a collection of a type by name."""
    row: TypeRow = parent["row"]
    async with request_of(info).store.read() as connection:
        found = await rows.named_collection(connection, row.project_id, name)
    return None if found is None or found.type_id != row.id else collection_shape(found)


@kind.field("artifactSequence")
async def resolve_type_sequence(parent: Json, info: Info, name: str) -> Json | None:
    """Return a sequence of a type by name."""
    found = await resolve_type_collection(parent, info, name)
    return None if found is None or found["row"].is_portfolio else found


@kind.field("artifact")
async def resolve_type_artifact(parent: Json, info: Info, name: str) -> Json | None:
    """Return a version of a type by name."""
    row: TypeRow = parent["row"]
    async with request_of(info).store.read() as connection:
        found = await named_member(connection, row.project_id, name)
    if found is None or found.collection.type_id != row.id:
        return None
    return artifact_shape(found.artifact)


@sequence.field("latestArtifact")
async def resolve_latest(parent: Json, info: Info) -> Json | None:
    """Return the newest committed version."""
    async with request_of(info).store.read() as connection:
        found = await newest_member(connection, parent["row"])
    return None if found is None else artifact_shape(found.artifact)


@sequence.field("digestAlgorithm")
async def resolve_digest_algorithm(parent: Json, info: Info) -> str | None:
    """Return what the newest version was digested with."""
    newest = await resolve_latest(parent, info)
    return None if newest is None else str(newest["digest_algorithm"])


@sequence.field("tags")
@portfolio.field("tags")
async def resolve_collection_tags(parent: Json, info: Info) -> Json:
    """Return the tags of a collection, which a page of collections has read already."""
    number = parent["row"].id
    tags = parent.get("tags")
    if tags is None:
        async with request_of(info).store.read() as connection:
            tags = (await lists.tags_by_collection(connection, [number]))[number]
    return {"edges": [{"node": tag_shape(number, name)} for number, name in tags]}


@sequence.field("aliases")
@portfolio.field("aliases")
async def resolve_collection_aliases(
    parent: Json, info: Info, after: str | None = None, first: int | None = None
) -> Json:
    """Return the aliases of all versions of a collection."""
    row: CollectionRow = parent["row"]
    start, size = page_start(after), page_size(first)
    async with request_of(info).store.read() as connection:
        found = await lists.aliases_of(connection, row.id)
    page = lists.Page(list(found[start : start + size]), start, len(found))
    shown = [alias_shape(AliasRow(number, name, row)) for number, name in page.rows]
    return page_shape(page, shown)


@sequence.field("artifacts")
@portfolio.field("artifacts")
async def resolve_versions(
    parent: Json,
    info: Info,
    *,
    after: str | None = None,
    first: int | None = None,
    order: str | None = None,
    filters: str | None = None,
) -> Json:
    """Return the committed versions of a collection, the newest first unless asked otherwise."""
    async with request_of(info).store.read() as connection:
        page = await lists.versions_page(
            connection,
            parent["row"],
            filters=filters,
            order=order,
            start=page_start(after),
            size=page_size(first),
        )
    return members_shape(page)


@sequence.field("artifactMembership")
@portfolio.field("artifactMembership")
async def resolve_membership(parent: Json, info: Info, alias_name: str) -> Json | None:
    """Return a version of a collection by alias, vN or digest."""
    async with request_of(info).store.read() as connection:
        found = await member(connection, parent["row"], alias_name)
    return None if found is None else membership_shape(found)


async def _collections(
    info: Info,
    project_id: int,
    type_id: int | None,
    *,
    after: str | None = None,
    first: int | None = None,
    filters: str | None = None,
    order: str | None = None,
) -> Json:
    async with request_of(info).store.read() as connection:
        page = await lists.collections_page(
            connection,
            project_id,
            type_id=type_id,
            filters=filters,
            order=order,
            start=page_start(after),
            size=page_size(first),
        )
        tags = await lists.tags_by_collection(connection, [row.id for row in page.rows])
    return page_shape(page, [collection_shape(row) | {"tags": tags[row.id]} for row in page.rows])
