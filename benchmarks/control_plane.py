"""What one server process takes: pushes, claims and history rows per second, over HTTP.

    .venv/bin/python benchmarks/control_plane.py [--postgres postgresql://…] [--seconds 5]
        [--clients 1,8,64] [--waiting 1000,100000]

Each database in turn, all in one run: `launch-async server` as a process of its own, and this
process as its clients, each with one kept-alive connection and one request under way. A claim is
two requests, popFromRunQueue and ackRunQueueItem, as W&B's agent sends them. The items that wait
before the claims are written into the database in advance; all else goes over HTTP. On PostgreSQL
the database named must be empty; drop it afterwards.

Clients and server share this machine's processors, so that the figures are lower bounds.
"""

import argparse
import asyncio
import base64
import json
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from sqlalchemy import func, insert, select

from launch_async.server.store import Store
from launch_async.server.store.tables.queues import queue_items, run_queues

ENTITY = "local"
RUNS = 100
ROWS_PER_POST = 20
INSERT_ROWS = 5_000
START_SECONDS = 60

PUSH = """mutation pushToRunQueueByName($entityName: String!, $projectName: String!,
    $queueName: String!, $runSpec: JSONString!) {
  pushToRunQueueByName(input: {entityName: $entityName, projectName: $projectName,
      queueName: $queueName, runSpec: $runSpec}) { runQueueItemId runSpec }
}"""
POP = """mutation popFromRunQueue($entity: String!, $project: String!, $queueName: String!,
    $launchAgentId: ID) {
  popFromRunQueue(input: {entityName: $entity, projectName: $project, queueName: $queueName,
      launchAgentId: $launchAgentId}) { runQueueItemId runSpec }
}"""
ACK = """mutation ackRunQueueItem($itemId: ID!, $runId: String!) {
  ackRunQueueItem(input: {runQueueItemId: $itemId, runName: $runId}) { success }
}"""
UPSERT_QUEUE = """mutation Queue($name: String!) {
  upsertRunQueue(input: {entityName: "local", projectName: "model-registry", queueName: $name,
      resourceType: "local-process", resourceConfig: "{}"}) { success }
}"""
QUEUE_ID = """query Queue($name: String!) {
  project(name: "model-registry", entityName: "local") { runQueue(name: $name) { id } }
}"""
REGISTER = """mutation Agent($queues: [ID!]!) {
  createLaunchAgent(input: {entityName: "local", projectName: "model-registry",
      runQueues: $queues, hostname: "bench"}) { launchAgentId }
}"""
SPEC = json.dumps(
    {
        "docker": {"docker_image": "train:1"},
        "entity": ENTITY,
        "project": "bench",
        "overrides": {"run_config": {"lr": 0.1}, "args": ["--epochs", "3"]},
    }
)


class Connection:
    """One kept-alive HTTP/1.1 connection: no more than it takes, so that it costs little."""

    def __init__(self, url: str, key: str) -> None:
        self._address = urlsplit(url)
        self._auth = base64.b64encode(f"api:{key}".encode()).decode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> bytes:
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                self._address.hostname, self._address.port
            )
        reader, writer = self._streams
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {self._address.netloc}\r\n"
            f"Authorization: Basic {self._auth}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        answer = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head.splitlines()[0].decode()}: {answer[:500].decode()}")
        return answer

    async def ask(self, document: str, **variables: object) -> dict:
        body = json.dumps({"query": document, "variables": variables, "operationName": ""})
        return json.loads(await self.post("/graphql", body.encode()))["data"]

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--postgres", help="URL of an empty database")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--waiting", default="1000,100000")
    options = parser.parse_args()
    clients = [int(number) for number in options.clients.split(",")]
    waiting = [int(number) for number in options.waiting.split(",")]
    print(f"{'':42} {'per s':>8} {'p50 ms':>8} {'p99 ms':>8}", flush=True)
    for name, url in (("SQLite", None), ("PostgreSQL", options.postgres)):
        if name == "SQLite" or url:
            uvloop.run(measure(name, url, options.seconds, clients, waiting))


async def measure(
    name: str, database: str | None, seconds: float, clients: list[int], waiting: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        async with running_server(data, database) as (url, key):
            bench = Bench(url, key, seconds)
            setup = Connection(url, key)
            await queue_of(setup, "push")
            for count in clients:
                await bench.report(f"{name}, {count} clients: push", count, push)
            for depth in waiting:
                for count in clients:
                    queue = f"claim-{depth}-{count}"
                    agent = await queue_of(setup, queue)
                    await fill(database or f"sqlite:///{data}/launch-async.db", queue, depth)
                    title = f"{name}, {count} clients, {depth} wait: claim"
                    await bench.report(title, count, claimer(queue, agent))
            title = f"{name}, {RUNS} runs log: rows"
            await bench.report(title, RUNS, log_rows, worth=ROWS_PER_POST)
            setup.close()


Work = Callable[[Connection, int, int], Awaitable[bool]]
"""One unit of work by a client: (connection, client, turn) -> whether there was any."""


async def push(connection: Connection, _client: int, _turn: int) -> bool:
    names = {"entityName": ENTITY, "projectName": "model-registry", "queueName": "push"}
    await connection.ask(PUSH, **names, runSpec=SPEC)
    return True


def claimer(queue: str, agent: str) -> Work:
    async def claim(connection: Connection, _client: int, _turn: int) -> bool:
        popped = (
            await connection.ask(
                POP, entity=ENTITY, project="model-registry", queueName=queue, launchAgentId=agent
            )
        )["popFromRunQueue"]
        if popped is None:
            return False
        item = popped["runQueueItemId"]
        acked = await connection.ask(ACK, itemId=item, runId=f"r{abs(hash(item)):x}"[:16])
        if not acked["ackRunQueueItem"]["success"]:
            raise RuntimeError("an ack was refused")
        return True

    return claim


async def log_rows(connection: Connection, client: int, turn: int) -> bool:
    first = turn * ROWS_PER_POST
    lines = [
        json.dumps(
            {"_step": step, "_timestamp": 1.7e9 + step, "_runtime": step, "loss": 1 / (step + 1)}
        )
        for step in range(first, first + ROWS_PER_POST)
    ]
    files = {"wandb-history.jsonl": {"offset": first, "content": lines}}
    body = json.dumps({"files": files}).encode()
    await connection.post(f"/files/{ENTITY}/bench/log-{client}/file_stream", body)
    return True


class Bench:
    """Clients of one server, each doing the same work over and over for some seconds."""

    def __init__(self, url: str, key: str, seconds: float) -> None:
        self._url, self._key, self._seconds = url, key, seconds

    async def report(self, title: str, clients: int, work: Work, *, worth: int = 1) -> None:
        durations: list[float] = []
        began = time.perf_counter()

        async def client(number: int) -> None:
            connection = Connection(self._url, self._key)
            turn = 0
            while (start := time.perf_counter()) < began + self._seconds:
                if not await work(connection, number, turn):
                    break
                durations.append(time.perf_counter() - start)
                turn += 1
            connection.close()

        async with asyncio.TaskGroup() as tasks:
            for number in range(clients):
                tasks.create_task(client(number))
        took = time.perf_counter() - began
        durations.sort()
        p50, p99 = (1000 * durations[int(len(durations) * part)] for part in (0.5, 0.99))
        rate = len(durations) * worth / took
        print(f"{title:42} {rate:8.0f} {p50:8.1f} {p99:8.1f}", flush=True)


async def queue_of(connection: Connection, name: str) -> str:
    """Make a queue and an agent of it; return the agent's id."""
    await connection.ask(UPSERT_QUEUE, name=name)
    found = await connection.ask(QUEUE_ID, name=name)
    made = await connection.ask(REGISTER, queues=[found["project"]["runQueue"]["id"]])
    return made["createLaunchAgent"]["launchAgentId"]


async def fill(database: str, queue: str, depth: int) -> None:
    store = Store.connect(database)
    now = datetime.now(UTC)
    spec = json.loads(SPEC) | {"resource": "local-process", "resource_args": {"local-process": {}}}
    async with store.write() as connection:
        queue_id = await connection.scalar(
            select(run_queues.c.id).where(run_queues.c.name == queue)
        )
        row = {
            "queue_id": queue_id,
            "state": "PENDING",
            "priority": 2,
            "run_spec": json.dumps(spec),
            "created_at": now,
            "run_entity": ENTITY,
            "run_project_folded": "bench",
            "file_paths": "[]",
        }
        for begin in range(0, depth, INSERT_ROWS):
            rows = [row] * min(INSERT_ROWS, depth - begin)
            await connection.execute(insert(queue_items), rows)
        count = select(func.count()).where(queue_items.c.queue_id == queue_id)
        if await connection.scalar(count) != depth:
            raise RuntimeError("the queue is not as deep as it should be")
    await store.close()


@asynccontextmanager
async def running_server(data: Path, database: str | None) -> AsyncGenerator[tuple[str, str]]:
    command = ["server", "--listen", "127.0.0.1:0", "--data", str(data)]
    if database is not None:
        command += ["--database-url", database]
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("launch-async"), *command, stdout=asyncio.subprocess.PIPE
    )
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        url = next(word for word in line.decode().replace(",", " ").split() if "://" in word)
        yield url, (data / "api-key").read_text().strip()
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    main()
