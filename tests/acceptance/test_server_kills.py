"""The server is killed a hundred times while clients write: what it acknowledged is there.

    life, SIGKILL, life, SIGKILL, … <-- writers and a real training script, all the while

LAUNCH_ASYNC_KILLS_SEED repeats the moments of an earlier run; LAUNCH_ASYNC_KILLS is how many.
"""

import json
import os
import random
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import pytest
from doomed import Doomed
from kill_writers import ENTITY, PROJECT, Client, Ledger, Writers, seeded
from programs import Program, program_environment
from sqlalchemy import text

from databases import Postgres
from launch_async.server.ids import decode_number
from launch_async.server.store import Store

pytestmark = [pytest.mark.anyio, pytest.mark.acceptance]

SEED = int(os.environ.get("LAUNCH_ASYNC_KILLS_SEED") or random.SystemRandom().randrange(10**6))
KILLS = int(os.environ.get("LAUNCH_ASYNC_KILLS") or 50)  # on each database
LIFE_ACKNOWLEDGED = (1, 25)
LIFE_SECONDS = 0.05
START_SECONDS = 0.8  # of which it listens for a moment
STILLBORN = 0.2
FIRST_START_SECONDS = 0.7  # with the migrations
MIGRATIONS = 3
CALM_SECONDS = 60
TRY_SECONDS = 10
STEPS = 200
TRAIN = f"""
import time, wandb
run = wandb.init(project="{PROJECT}", id="real", config={{"lr": 0.5}})
for step in range({STEPS}):
    run.log({{"value": step * step}})
    print("at step", step)
    time.sleep(0.2)
run.finish()
"""
PATIENCE = {
    # The real client waits for up to a minute between two of its 20 tries, longer than this test
    # lasts. Here it waits for 3 s at most, and may try as often as fits into its 20 minutes.
    f"WANDB_X_{kind}_RETRY_{what}": limit
    for kind in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
    for what, limit in (("WAIT_MAX_SECONDS", "3"), ("MAX", "400"))
}
RUN = """query($entity: String!, $project: String!, $run: String!) {
  project(name: $project, entityName: $entity) { run(name: $run) {
    state config summaryMetrics historyLineCount eventsLineCount logLineCount
    files(first: 100) { edges { node { name md5 sizeBytes directUrl } } }
  } }
}"""
ARTIFACT = """query($id: ID!) { artifact(id: $id) {
  state versionIndex aliases { alias }
  files(first: 100) { edges { node { name directUrl } } }
} }"""
Rows = Callable[..., Awaitable[list[Any]]]
LINES = """select line, body from run_{} where run_id in (select id from runs where name = :run)
  order by line"""


async def test_nothing_acknowledged_is_lost_by_kills_and_clients_go_on(
    tmp_path: Path, database: Postgres | None
) -> None:
    print(f"LAUNCH_ASYNC_KILLS_SEED={SEED} LAUNCH_ASYNC_KILLS={KILLS}")  # noqa: T201
    data = tmp_path / "data"
    async with (
        database_of(database) as url,
        Doomed.prepare(tmp_path / "log") as server,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TRY_SECONDS)) as session,
    ):
        server.start(data, url)
        await server.serves()
        key = key_in(data)
        client = Client(session, url=server.url, key=key)
        writers = Writers(client, seed=SEED)
        script = tmp_path / "train.py"
        script.write_text(TRAIN)
        environment = program_environment(tmp_path / "home", url=server.url, key=key) | PATIENCE
        with Program.start(
            [sys.executable, str(script)], env=environment, cwd=tmp_path
        ) as training:
            # wandb.init gives up by itself, after a minute and a half; a run does not.
            await anyio.to_thread.run_sync(training.wait_for, "at step 0")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(writers.write, name="writers")
                await live_and_die(server, client, data, url)
                writers.calm = True
                tasks.cancel_scope.deadline = anyio.current_time() + CALM_SECONDS
            assert not tasks.cancel_scope.cancelled_caught, "a client did not go on by itself"
            code = await anyio.to_thread.run_sync(wait_for, training)
        counts = writers.ledger.counts()
        print(counts, f"kills: {server.kills}, requests cut: {client.cut}")  # noqa: T201
        assert (code, min(counts.values()) > 0) == (0, True), training.output
        assert client.cut > KILLS / 2
        await check_runs(client, writers.ledger)
        await check_artifacts(client, writers.ledger)
        async with opened(url or f"sqlite:///{data / 'launch-async.db'}") as rows:
            await check_lines(rows, writers.ledger)
            await check_items(rows, writers.ledger)
            if database is None:
                assert await rows("pragma integrity_check") == [("ok",)]
        assert "Traceback" not in server.log


async def test_a_start_that_was_killed_while_it_migrated_is_made_up_for(
    tmp_path: Path, database: Postgres | None
) -> None:
    chance = seeded(SEED)
    async with Doomed.prepare(tmp_path / "log") as server, aiohttp.ClientSession() as session:
        for number in range(MIGRATIONS):
            async with database_of(database) as url:
                data = tmp_path / str(number)
                for _ in range(2):
                    server.start(data, url)
                    await anyio.sleep(chance.uniform(0, FIRST_START_SECONDS))
                    await server.kill()
                server.start(data, url)
                await server.serves()
                client = Client(session, url=server.url, key=key_in(data))
                viewer = (await client.ask("{ viewer { username } }"))["viewer"]
                await server.kill()
            assert viewer["username"] == ENTITY


async def live_and_die(
    server: Doomed, client: Client, data: Path, database_url: str | None
) -> None:
    """Kill the server again and again, now and then in its start; a last life goes on.

    How fast it is is the machine's matter, so most lives are measured by what they acknowledge.
    """
    chance = seeded(SEED)
    stillborn = False
    for _ in range(KILLS):
        if stillborn:
            await anyio.sleep(chance.uniform(0, START_SECONDS))
        else:
            with anyio.fail_after(CALM_SECONDS):
                await client.hears(chance.randint(*LIFE_ACKNOWLEDGED))
            await anyio.sleep(chance.uniform(0, LIFE_SECONDS))
        await server.kill()
        server.start(data, database_url)
        stillborn = chance.random() < STILLBORN
        if not stillborn:
            await server.serves()
    if stillborn:
        await server.serves()


async def check_runs(client: Client, ledger: Ledger) -> None:
    """Check what people see of the runs, and the bytes of their files."""
    for name, told in ledger.runs.items():
        run = (await client.ask(RUN, entity=ENTITY, project=PROJECT, run=name))["project"]["run"]
        assert run["state"] == "finished"
        assert json.loads(run["config"]) == told.config
        assert json.loads(run["summaryMetrics"]) == told.summary
        counts = [run[f"{kind}LineCount"] for kind in ("history", "events", "log")]
        assert counts == [len(told.history), len(told.events), len(told.console)]
        files = {edge["node"]["name"]: edge["node"] for edge in run["files"]["edges"]}
        for file, body in told.files.items():
            assert files[file]["sizeBytes"] == len(body), (name, file)
            assert await client.send("GET", files[file]["directUrl"]) == body, (name, file)
    real = (await client.ask(RUN, entity=ENTITY, project=PROJECT, run="real"))["project"]["run"]
    assert (real["state"], real["historyLineCount"]) == ("finished", STEPS)
    assert json.loads(real["config"])["lr"] == {"value": 0.5}


async def check_artifacts(client: Client, ledger: Ledger) -> None:
    """Check that versions are whole and their own, and that aliases are where they were put."""
    places: dict[str, str] = {}
    numbers: list[tuple[str, int]] = []
    for artifact, files in ledger.versions.items():
        found = (await client.ask(ARTIFACT, id=artifact))["artifact"]
        assert found["state"] == "COMMITTED"
        numbers.append((artifact, found["versionIndex"]))
        places |= {alias["alias"]: artifact for alias in found["aliases"]}
        kept = {
            edge["node"]["name"]: await client.send("GET", edge["node"]["directUrl"])
            for edge in found["files"]["edges"]
        }
        assert kept == files, artifact
    assert len(set(numbers)) == len(numbers)
    assert {alias: places.get(alias) for alias in ledger.aliases} == ledger.aliases


async def check_lines(rows: Rows, ledger: Ledger) -> None:
    """Check that no line is lost, doubled or changed."""
    for name, told in ledger.runs.items():
        for kind in ("history", "events", "console"):
            kept = await rows(LINES.format(kind), run=name)
            assert kept == list(enumerate(getattr(told, kind))), (name, kind)
    real = await rows(LINES.format("history"), run="real")
    steps = [(content["_step"], content["value"]) for content in (json.loads(b) for _, b in real)]
    assert steps == [(step, step * step) for step in range(STEPS)]
    spoken = "\n".join(body for _, body in await rows(LINES.format("console"), run="real"))
    assert all(f"at step {step}" in spoken for step in range(STEPS))


async def check_items(rows: Rows, ledger: Ledger) -> None:
    """Check that each item is there once, and is its claimer's."""
    kept = {row[0]: row[1:] for row in await rows("select id, state, run_name from queue_items")}
    for item in ledger.pushed:
        assert decode_number(item, "RunQueueItem") in kept
    for item, run in ledger.claimed.items():
        state, run_name = kept[decode_number(item, "RunQueueItem")]
        assert (state, run_name) == (ledger.ended.get(item, "CLAIMED"), run)
    claims = [run_name for _, run_name in kept.values() if run_name is not None]
    assert sorted(claims) == sorted(ledger.claimed.values())


@asynccontextmanager
async def database_of(postgres: Postgres | None) -> AsyncGenerator[str | None]:
    """Lend an empty database; None is SQLite's, in the server's folder."""
    if postgres is None:
        yield None
        return
    async with postgres.database() as url:
        yield url


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[Rows]:
    """Lend a function that queries a database."""
    store = Store.connect(url)

    async def rows(sql: str, **parameters: Any) -> list[Any]:
        async with store.read() as connection:
            return [tuple(row) for row in await connection.execute(text(sql), parameters)]

    try:
        yield rows
    finally:
        await store.close()


def key_in(data: Path) -> str:
    """Return the key of the server's one user, which its first start has made."""
    return (data / "api-key").read_text().strip()


def wait_for(program: Program) -> int:
    """Return the exit code of a program that must end by itself."""
    return program.wait(within_seconds=CALM_SECONDS)
