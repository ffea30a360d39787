"""The Docker engine's client against an engine that misbehaves as its script says."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import anyio
import pytest
from aiodocker.exceptions import DockerError
from aiohttp import web

from launch_async.adapters.runners.docker.engine import Engine
from launch_async.adapters.runners.docker.events import ContainerEvents
from launch_async.adapters.runners.docker.images import ensure_image
from launch_async.domain.errors import ItemError, Reason, Unavailable

pytestmark = pytest.mark.anyio

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
WITHIN_SECONDS = 10.0


@asynccontextmanager
async def engine_that(answers: Handler) -> AsyncGenerator[Engine]:
    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/version"):
            return web.json_response({"ApiVersion": "1.41", "Version": "x"})
        return await answers(request)

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    engine = Engine(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield engine
    finally:
        await engine.close()
        await runner.cleanup()


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_an_event_stream_that_is_refused_is_no_stream(status: int):
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "shutting down"}, status=status)

    async with engine_that(refuse) as engine, aclosing(engine.events("l", ["die"])) as events:
        with pytest.raises(Unavailable):
            await anext(events)


async def inspect_together(engine: Engine, count: int) -> list[Exception]:
    """As many callers as calls; what they got."""
    errors: list[Exception] = []

    async def inspect(number: int) -> None:
        try:
            await engine.inspect(f"c{number}")
        except (Unavailable, DockerError) as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(inspect, number)
    return errors


async def test_an_engine_that_is_silent_is_asked_no_more_for_a_while():
    asked = 0

    async def hang_up(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with engine_that(hang_up) as engine:
        assert len(await inspect_together(engine, 5)) == 5
        before = asked
        with pytest.raises(Unavailable, match="held back") as caught:
            await engine.inspect("c")
        assert asked == before
        assert caught.value.retry_after_seconds is not None
        assert engine.bulkhead.view().trips == 1


@pytest.mark.parametrize("status", [404, 409, 500, 503])
async def test_an_engine_that_answers_is_not_silent_whatever_it_says(status: int):
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "no"}, status=status)

    async with engine_that(refuse) as engine:
        await inspect_together(engine, 20)
        assert engine.bulkhead.view().trips == 0


@pytest.mark.parametrize("line", [b"no json\n", b"[]\n", b"{}\n", b'{"Actor": {}}\n', b'"x"\n'])
async def test_an_event_that_is_none_does_not_stop_the_listening(line: bytes):
    streams = 0
    again = anyio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        nonlocal streams
        if not request.path.endswith("/events"):
            return web.json_response([])
        streams += 1
        response = web.StreamResponse()
        await response.prepare(request)
        if streams > 1:
            await response.write(json.dumps({"Actor": {"ID": "c1"}}).encode() + b"\n")
            again.set()
        else:
            await response.write(line)
        return response

    async with engine_that(stream) as engine, anyio.create_task_group() as tasks:
        events = ContainerEvents(engine, list_seconds=60.0)
        tasks.start_soon(events.serve)
        with anyio.fail_after(WITHIN_SECONDS), events.follow("c1") as bell:
            await again.wait()
            await bell.wait()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b"", ()),
        (b"\x01", ()),
        (b"\x01\x00\x00\x00\xff\xff\xff\xff", ()),
        (b"\x01\x00\x00\x00\x00\x00\x00\x05ab", ("ab",)),
    ],
)
async def test_a_log_that_was_cut_gives_what_there_is(body: bytes, left: tuple[str, ...]):
    async def cut(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    async with engine_that(cut) as engine:
        assert await engine.log_tail("c1", lines=5) == left


LOOKUP = "dial tcp: lookup reg.example on 10.0.0.53:53:"


async def pull_that_says(message: str, *, image: str = "reg.example/x/y:1") -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        status = 500 if request.path.endswith("/images/create") else 404
        body = json.dumps({"message": message}).encode()
        return web.Response(body=body, status=status, content_type="application/json")

    async with engine_that(refuse) as engine:
        await ensure_image(
            engine, image, platform=None, pull="missing", logins=None, within_seconds=60.0
        )


@pytest.mark.parametrize(
    "said",
    [
        f"{LOOKUP} server misbehaving",
        f"{LOOKUP} read udp 10.0.0.2:4711->10.0.0.53:53: i/o timeout",
        "dial tcp: lookup reg.example: Temporary failure in name resolution",
        "dial tcp 192.0.2.1:443: connect: connection refused",
        "dial tcp 192.0.2.1:443: connect: no route to host",
        "dial tcp 192.0.2.1:443: connect: network is unreachable",
        "read tcp 10.0.0.2:4711->192.0.2.1:443: read: connection reset by peer",
        "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
        "EOF",
    ],
)
async def test_a_registry_or_a_resolver_that_is_away_is_an_outage(said: str):
    with pytest.raises(Unavailable, match="could not be pulled"):
        await pull_that_says(f'Get "https://reg.example/v2/": {said}')


@pytest.mark.parametrize(
    ("said", "image"),
    [
        (f'Get "https://reg.example/v2/": {LOOKUP} no such host', "reg.example/x/y:1"),
        ('Get "https://timeout.example/v2/": x509: unknown authority', "timeout.example/x:1"),
        ("manifest for reg.example/x/timeout:1 not found", "reg.example/x/timeout:1"),
        ("manifest for reg.example/x/geofence:1 not found", "reg.example/x/geofence:1"),
    ],
)
async def test_a_name_that_does_not_exist_is_the_items_fault(said: str, image: str):
    with pytest.raises(ItemError, match="could not be pulled") as caught:
        await pull_that_says(said, image=image)
    assert caught.value.reason is Reason.IMAGE_NOT_FOUND
