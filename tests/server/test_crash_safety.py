"""A server that is killed in the middle of everything loses nothing that it had confirmed."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
import msgspec
import pytest
from artifact_harness import ArtifactClient, b64
from launch_harness import Launch
from server_harness import Http, Server, Template, served

from launch_async.server.app import listening, open_services
from launch_async.server.artifact_blobs import blob_key
from launch_async.server.settings import Settings

pytestmark = [pytest.mark.anyio, pytest.mark.acceptance]

SERVE = """
import os, pathlib, sys, anyio
from launch_async.server.app import open_services, serve
from launch_async.server.settings import Settings
settings = Settings(
    data_dir=pathlib.Path(sys.argv[1]), port=0, database_url=os.environ.get("DATABASE_URL")
)
async def main():
    await serve(await open_services(settings), settings, started=lambda url: print(url, flush=True))
anyio.run(main)
"""


@asynccontextmanager
async def doomed(settings: Settings) -> AsyncGenerator[tuple[str, subprocess.Popen[str]]]:
    """Run a server as a process that can be killed."""
    command = [sys.executable, "-c", SERVE, str(settings.data_dir)]
    environment = dict(os.environ)
    if settings.database_url is not None:
        environment["DATABASE_URL"] = settings.database_url
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield (await anyio.to_thread.run_sync(process.stdout.readline)).strip(), process
        finally:
            process.kill()


async def test_what_was_confirmed_outlives_a_kill(tmp_path: Path, template: Template) -> None:
    async with template.copied(tmp_path / "s") as settings:
        await kill_and_look(settings, template)


async def kill_and_look(settings: Settings, template: Template) -> None:
    confirmed: list[int] = []
    uploaded: list[bytes] = []
    async with served(settings, template) as prepared:
        pass
    async with doomed(settings) as (url, process), aiohttp.ClientSession() as session:
        http = Http(session, msgspec.structs.replace(prepared, url=url))
        launch, artifacts = Launch(http), ArtifactClient(http)
        item = await launch.claimed("r1")
        made = await artifacts.create()

        async def speak(run: int) -> None:
            for line in range(10_000):
                lines = {"offset": line, "content": [f'{{"_step": {line}}}']}
                try:
                    reply = await http.stream(
                        f"r{run}", {"files": {"wandb-history.jsonl": lines}}, "target"
                    )
                except aiohttp.ClientError:
                    return
                assert reply.status == 200
                confirmed[run] = line + 1
                if line == 20:
                    enough.release()

        async def upload() -> None:
            for number in range(10_000):
                body = number.to_bytes(4, "big") * 50_000
                try:
                    (node,) = await artifacts.place(made["id"], body)
                    reply = await http.send("PUT", node["uploadUrl"], data=body)
                except aiohttp.ClientError:
                    return
                assert reply.status == 200
                uploaded.append(body)

        enough = anyio.Semaphore(0)
        async with anyio.create_task_group() as tasks:
            for run in range(4):
                confirmed.append(0)
                tasks.start_soon(speak, run)
            tasks.start_soon(upload)
            for _ in range(4):
                await enough.acquire()
            process.send_signal(signal.SIGKILL)

    async with again(prepared) as server, aiohttp.ClientSession() as session:
        http = Http(session, server)
        for run, lines in enumerate(confirmed):
            (row,) = await server.rows(
                "select id, history_lines from runs where name = :n", n=f"r{run}"
            )
            (kept,) = await server.rows(
                "select count(*) c, max(line) m from run_history where run_id = :r", r=row.id
            )
            assert lines <= row.history_lines <= lines + 1
            assert (kept.c, kept.m) == (row.history_lines, row.history_lines - 1)
        assert await Launch(http).state(item) == "RUNNING"
        artifacts = ArtifactClient(http)
        contents = {
            str(n): {"digest": b64(body), "size": len(body)} for n, body in enumerate(uploaded)
        }
        assert await artifacts.manifest(made["id"], contents) == 200
        assert (await artifacts.commit(made["id"]))[0] == 200
        for place in await server.rows(
            "select entity_id, md5, edition from artifact_blobs where present"
        ):
            head = await server.services.blobs.head(blob_key(*place))
            assert head is not None
            assert head.size == 200_000


@asynccontextmanager
async def again(before: Server) -> AsyncGenerator[Server]:
    """Start a server of ours on what the killed one left."""
    services = await open_services(before.services.settings)
    try:
        async with listening(services, before.services.settings) as url:
            yield msgspec.structs.replace(before, url=url, services=services)
    finally:
        await services.close()
