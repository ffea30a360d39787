"""How the engine's builder takes what engines of other kinds and in other states answer."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from image_workshops import KnownLogins

from launch_async.adapters.builders.engine import EngineBuilder
from launch_async.domain.errors import ItemError, Unavailable
from launch_async.ports.images import ImageBuild
from launch_async.wire.docker import DockerConnection

pytestmark = pytest.mark.anyio

OF_NOW = {"Api-Version": "1.51", "Builder-Version": "2", "Ostype": "linux"}


class Engine:
    """Says `says` when it is asked who it is, and answers a build with `answer`."""

    def __init__(self, says: Mapping[str, str], status: int, answer: bytes, *, whole: bool) -> None:
        self._says = says
        self._status = status
        self._answer = answer
        self._whole = whole
        self.asked: dict[str, str] = {}
        self.has_image = True

    async def ping(self, _: web.Request) -> web.Response:
        return web.Response(headers=self._says)

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.41"})

    async def image(self, _: web.Request) -> web.Response:
        if self.has_image:
            return web.json_response({"Id": "sha256:1", "Os": "linux", "Architecture": "amd64"})
        return web.json_response({"message": "no such image"}, status=404)

    async def build(self, request: web.Request) -> web.StreamResponse:
        self.asked = dict(request.query)
        await request.read()
        response = web.StreamResponse(status=self._status)
        await response.prepare(request)
        await response.write(self._answer)
        if self._whole:
            await response.write_eof()
        elif request.transport is not None:
            request.transport.abort()
        return response


@asynccontextmanager
async def engine(
    says: Mapping[str, str] = OF_NOW,
    *,
    status: int = 200,
    answer: bytes = b"",
    whole: bool = True,
) -> AsyncGenerator[tuple[Engine, EngineBuilder]]:
    served = Engine(says, status, answer, whole=whole)
    application = web.Application()
    application.router.add_get("/_ping", served.ping)
    application.router.add_get("/version", served.version)
    application.router.add_post("/build", served.build)
    application.router.add_get("/v1.41/images/{name:.*}/json", served.image)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    connection = DockerConnection(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield served, EngineBuilder(connection, KnownLogins())
    finally:
        await connection.close()
        await runner.cleanup()


@pytest.fixture
def order(tmp_path: Path) -> ImageBuild:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\n")
    return ImageBuild(
        context=context, dockerfile="Dockerfile", image="team/image:1", log=tmp_path / "log"
    )


@pytest.mark.parametrize(
    ("says", "version"),
    [
        (OF_NOW, "2"),
        ({**OF_NOW, "Builder-Version": "1"}, "1"),
        ({"Api-Version": "1.41", "Ostype": "linux"}, "2"),  # 20.10 has it and does not say so
        ({"Api-Version": "1.38", "Ostype": "linux"}, "1"),
        ({"Api-Version": "1.41", "Ostype": "windows"}, "1"),
        ({"Api-Version": "1.41", "Builder-Version": "", "Libpod-API-Version": "4.3.1"}, "1"),
    ],
)
async def test_buildkit_is_used_where_the_engine_has_it(
    order: ImageBuild, says: Mapping[str, str], version: str
) -> None:
    async with engine(says) as (served, builder):
        await builder.build(order, lambda _: None)

        assert served.asked["version"] == version
        assert builder.has_mounts is (version == "2")


async def test_an_engine_that_dies_while_it_builds_is_nobodys_fault(order: ImageBuild) -> None:
    answer = b'{"stream": "Step 1/2 : FROM scratch"}\n'
    async with engine(answer=answer, whole=False) as (_, builder):
        with pytest.raises(Unavailable, match="No Docker engine answers"):
            await builder.build(order, lambda _: None)


async def test_an_engine_that_ends_without_an_image_is_nobodys_fault(order: ImageBuild) -> None:
    async with engine() as (served, builder):
        served.has_image = False
        with pytest.raises(Unavailable, match="without an image"):
            await builder.build(order, lambda _: None)


async def test_what_is_no_docker_engine_is_said_to_be_none(order: ImageBuild) -> None:
    async with engine(answer=b"<html>\n") as (_, builder):
        with pytest.raises(Unavailable, match="does not speak as a Docker engine"):
            await builder.build(order, lambda _: None)


async def test_an_engine_without_room_is_not_the_items_fault(order: ImageBuild) -> None:
    words = "write /var/lib/docker/tmp/x: no space left on device"
    answer = json.dumps({"errorDetail": {"message": words}, "error": words}).encode()
    async with engine(answer=answer) as (_, builder):
        with pytest.raises(Unavailable, match=r"engine has no room left.*Free some"):
            await builder.build(order, lambda _: None)


async def test_what_the_engine_refuses_outright_is_told_in_its_words(order: ImageBuild) -> None:
    answer = b'{"message": "invalid reference format"}'
    async with engine(status=400, answer=answer) as (_, builder):
        with pytest.raises(ItemError, match="invalid reference format"):
            await builder.build(order, lambda _: None)

    assert order.log.read_text() == "invalid reference format\n"


async def test_progress_that_cannot_be_read_does_not_fail_a_build(order: ImageBuild) -> None:
    answer = b'{"id": "moby.buildkit.trace", "aux": "AAAA"}\n{"id": "x", "aux": {"ID": "y"}}\n'
    async with engine(answer=answer) as (_, builder):
        await builder.build(order, lambda _: None)


async def test_nobody_at_the_address_is_an_outage(order: ImageBuild, tmp_path: Path) -> None:
    connection = DockerConnection(f"unix://{tmp_path}/no.sock")
    builder = EngineBuilder(connection, KnownLogins())

    with pytest.raises(Unavailable, match=r"No Docker engine answers at unix://.*no\.sock"):
        await builder.check()
    with pytest.raises(Unavailable, match="No Docker engine answers"):
        await builder.build(order, lambda _: None)
    await connection.close()


async def test_a_context_that_vanishes_is_told_of(order: ImageBuild) -> None:
    class Vanishing(KnownLogins):
        async def login(self, image) -> None:
            for path in order.context.iterdir():
                path.unlink()
            order.context.rmdir()

    async with engine() as (served, builder):
        served.has_image = False
        vanishing = EngineBuilder(builder._connection, Vanishing())
        with pytest.raises(ItemError, match="build context cannot be read: No such file"):
            await vanishing.build(
                msgspec.structs.replace(order, bases=("team/base:1",)), lambda _: None
            )
