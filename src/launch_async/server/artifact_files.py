"""GET of single artifact files, for clients that hold a manifest entry but no signed address.

/artifactsV2/{region}/{entity}/{project}/{collection}/[{artifact}/]{birth artifact}/{md5}/{name}
/artifactsV2/{region}/{entity}/{birth artifact}/{md5}         from clients before 0.28
/artifacts/{entity}/{md5}
"""

import re
from typing import Final
from urllib.parse import unquote

from aiohttp import web
from sqlalchemy import ColumnElement, and_, or_, select, true

from launch_async.server.artifact_blobs import blob_key
from launch_async.server.artifact_rows import ARTIFACT, COMMITTED
from launch_async.server.auth import authenticate
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number
from launch_async.server.services import Services
from launch_async.server.storage import send_blob
from launch_async.server.store.tables.artifacts import (
    artifact_blobs,
    artifact_collections,
    artifact_files,
    artifact_links,
    artifacts,
)
from launch_async.server.store.tables.people import entities
from launch_async.server.store.tables.runs import projects

MD5: Final = re.compile(r"[0-9a-f]{32}")
OLDER: Final = 4
"""Path segments that older clients send."""
SHORTEST: Final = 7
"""Path segments without the artifact's own id; with it there is one more."""


def routes(services: Services) -> list[web.RouteDef]:
    """Return the routes to serve."""

    async def get_v2(request: web.Request) -> web.StreamResponse:
        _, _, *segments = request.rel_url.raw_path.split("/")
        parts = [unquote(segment) for segment in segments]
        if len(parts) == OLDER:
            _, entity, _, md5 = parts
            return await send_any(request, entity, md5)
        if len(parts) < SHORTEST:
            raise ApiError("this is not the address of an artifact file", status=404)
        # The name may hold blanks and per cent signs, but no slash: the client sends its last part.
        _, entity, project, collection, *rest = parts
        *ids, md5, name = rest
        which = _in_collection(entity, project, collection)
        if len(ids) > 1:
            which = and_(which, artifacts.c.id == decode_number(ids[0], ARTIFACT))
        key = await _readable_key(services, request, entity, md5, which)
        return await send_blob(request, services, key, filename=name)

    async def get_v1(request: web.Request) -> web.StreamResponse:
        names = request.match_info
        return await send_any(request, names["entity"], names["md5"])

    async def send_any(request: web.Request, entity: str, md5: str) -> web.StreamResponse:
        key = await _readable_key(services, request, entity, md5, true())
        return await send_blob(request, services, key, filename=None)

    return [
        web.get("/artifactsV2/{rest:.+}", get_v2),
        web.get("/artifacts/{entity}/{md5}", get_v1),
    ]


async def _readable_key(
    services: Services, request: web.Request, entity: str, md5: str, which: ColumnElement[bool]
) -> str:
    """Return the key of a blob that such a version holds; 404 when the viewer may see none."""
    viewer = await authenticate(services.store, request)
    missing = ApiError(f"no artifact of {entity!r} has a file with the MD5 {md5!r}", status=404)
    if entity not in viewer.entities or MD5.fullmatch(md5) is None:
        raise missing
    statement = (
        select(artifact_blobs.c.entity_id, artifact_blobs.c.md5, artifact_blobs.c.edition)
        .select_from(artifact_files)
        .join(artifacts, artifacts.c.id == artifact_files.c.artifact_id)
        .join(artifact_collections, artifact_collections.c.id == artifacts.c.collection_id)
        .join(projects, projects.c.id == artifact_collections.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
        .join(
            artifact_blobs,
            and_(
                artifact_blobs.c.entity_id == entities.c.id,
                artifact_blobs.c.md5 == artifact_files.c.md5,
            ),
        )
        .where(
            entities.c.name == entity,
            artifact_files.c.md5 == md5,
            artifacts.c.state == COMMITTED,
            which,
        )
        .limit(1)
    )
    async with services.store.read() as connection:
        found = (await connection.execute(statement)).one_or_none()
    if found is None:
        raise missing
    return blob_key(*found)


def _in_collection(entity: str, project: str, name: str) -> ColumnElement[bool]:
    """Tell versions that are in a collection, as its own or as linked ones."""
    place = (
        select(artifact_collections.c.id)
        .join(projects, projects.c.id == artifact_collections.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
        .where(
            entities.c.name == entity,
            projects.c.name_folded == project.casefold(),
            artifact_collections.c.name == name,
        )
        .correlate(None)
    )
    linked = select(artifact_links.c.artifact_id).where(artifact_links.c.collection_id.in_(place))
    return or_(artifacts.c.collection_id.in_(place), artifacts.c.id.in_(linked))
