"""Starting, listening and stopping."""

import socket
from pathlib import Path

import aiohttp
import anyio
import pytest
from server_harness import Template, running_server, served

from launch_async.server.app import open_services, serve
from launch_async.server.settings import Settings

pytestmark = pytest.mark.anyio


async def test_a_server_tells_its_address_and_stops_when_cancelled(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, port=0)
    services = await open_services(settings)
    urls: list[str] = []
    listening = anyio.Event()

    def started(url: str) -> None:
        urls.append(url)
        listening.set()

    async def run() -> None:
        await serve(services, settings, started=started)

    async with aiohttp.ClientSession() as session, anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await listening.wait()
        async with session.get(f"{urls[0]}/healthz") as response:
            assert response.status == 200
        tasks.cancel_scope.cancel()
    await services.close()
    assert not urls[0].endswith(":0")
    host, port = urls[0].removeprefix("http://").split(":")
    with pytest.raises(OSError, match="attempts failed"):
        await anyio.connect_tcp(host, int(port))


async def test_a_taken_port_is_an_os_error(tmp_path: Path, template: Template) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            async with running_server(tmp_path / "s", template, listen=(("127.0.0.1", port),)):
                pass


async def test_a_server_listens_on_every_address(tmp_path: Path, template: Template) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    extra = (("127.0.0.1", port),)
    async with (
        running_server(tmp_path / "s", template, listen=extra),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/healthz") as response,
    ):
        assert response.status == 200


async def test_what_was_kept_is_there_after_a_restart(tmp_path: Path, template: Template) -> None:
    async with template.copied(tmp_path / "s") as settings:
        async with served(settings, template) as first:
            query = first.services.signer.query("GET", "runs/1/1", None)
            pairs = dict(pair.split("=") for pair in query.split("&"))
        services = await open_services(settings)
        services.signer.check("GET", "runs/1/1", pairs)
        await services.close()


async def test_a_body_past_the_limit_is_a_413(tmp_path: Path, template: Template) -> None:
    async with (
        running_server(tmp_path / "s", template, max_request_bytes=1000) as server,
        aiohttp.ClientSession() as session,
    ):
        headers = {"Authorization": f"Bearer {server.key}"}
        url = f"{server.url}/files/tester/p/r/file_stream"
        async with session.post(url, data=b"x" * 1001, headers=headers) as response:
            assert response.status == 413
            assert "error" in await response.json()


async def test_a_start_that_was_killed_leaves_no_half_of_a_secret(tmp_path: Path) -> None:
    """The secret has its name only when it is whole; what a killed start left is not in the way."""
    (tmp_path / "secret.0123456789abcdef").write_bytes(b"half")
    secrets = []
    for _ in range(2):
        services = await open_services(Settings(data_dir=tmp_path, port=0))
        await services.close()
        secrets.append((tmp_path / "secret").read_bytes())
    assert secrets[0] == secrets[1]
    assert len(secrets[0]) == 32
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.glob("secret.*"))) == 1
