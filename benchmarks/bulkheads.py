"""What one sick neighbour costs the others: healthy queues alone, then beside it, in one run.

    .venv/bin/python benchmarks/bulkheads.py [--queues 10] [--seconds 4] [--rounds 3]

A real agent (fake runner, real HTTP client) drains full queues of a scripted control plane in a
process of its own. Each round measures the healthy queues' items per second, of those that begin or
end meanwhile their part: alone, then beside each kind of sickness, in turn, so that what else the
machine does strikes all alike:

    queue errors    one more queue, whose pops are answered 500
    queue hangs     one more queue, whose pops get no answer
    queues hang     six such queues
    uploads hang    the file store gives no answer, and items of one more queue fail and upload
    reports slow    failure reports take long, and items of one more queue fail
    target down     one more queue, whose items' backend refuses and hangs

A call's time limit is 1.5 s instead of 30, a slow answer takes 1 s instead of 20. Measured from two
limits after the first launch: a queue that hangs shares its first request with others, which costs
them one limit (tests/agent/test_hanging_queues.py holds it to that). `alone again` shows the noise
of the machine. Items that fail are work, with or without sickness: what hinders their reports is
compared with the same queue beside a service that is well (`items fail`), all else with the healthy
queues alone. The last line is the smallest of the paired ratios (median over the rounds); the aim
is 0.9.
"""

import argparse
import contextlib
import multiprocessing
import multiprocessing.connection
import statistics
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "agent"))

import anyio
import msgspec
import structlog
from aiohttp import web
from fakes import FakeRunner, FakeService, World, queue_ref

from launch_async.adapters.queues.wandb import WandbQueueService
from launch_async.domain.errors import Unavailable
from launch_async.domain.run import RunEnd, RunHandle, RunStatus
from launch_async.domain.secret import Secret
from launch_async.ports.runner import LaunchOrder
from launch_async.ports.runs import RunView
from launch_async.wire.lanes import Lanes
from launch_async.wire.transport import Transport

SICK = "sick"
SLOW_SECONDS = 1.0
LIMIT_SECONDS = 1.5
SETTLE_SECONDS = 2 * LIMIT_SECONDS
JOB_SECONDS = 1.0
JOBS_PER_QUEUE = 1
ALONE = ("alone", "alone again")
FAILING = "items fail"
BASES = {"uploads hang": FAILING, "reports slow": FAILING}
HANGING = {"queue hangs": 1, "queues hang": 6}
KINDS = (
    *ALONE,
    FAILING,
    "queue errors",
    "queue hangs",
    "queues hang",
    "uploads hang",
    "reports slow",
    "target down",
)


class Plane:
    """A control plane that never runs out of items; told by `kind` how it is sick."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._numbers = count()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "PUT":
            if self._kind == "uploads hang":
                await anyio.sleep(10 * LIMIT_SECONDS)
            return web.Response()
        asked = msgspec.json.decode(await request.read())
        document, variables = asked["query"].split("(", 1)[0], asked["variables"]
        if "popFromRunQueue" in document:
            return await self._pop(variables)
        if "failRunQueueItem" in document and self._kind == "reports slow":
            await anyio.sleep(SLOW_SECONDS)
        return web.json_response({"data": self._answer(document)})

    async def _pop(self, variables: Mapping[str, str]) -> web.Response:
        data: dict[str, object] = {}
        for name, queue in variables.items():
            if name[0] != "q":
                continue
            if queue.startswith(SICK) and self._kind == "queue errors":
                return web.json_response({"error": "sick"}, status=500)
            if queue.startswith(SICK) and self._kind in HANGING:
                await anyio.sleep(10 * LIMIT_SECONDS)
            data[f"p{name[1:]}"] = {
                "runQueueItemId": f"{queue}-{next(self._numbers)}",
                "runSpec": {"project": "p", "entity": "me", "resource": "fake", "job": "me/p/j"},
            }
        return web.json_response({"data": data})

    def _answer(self, document: str) -> dict[str, object]:
        agent = {"id": "a", "name": "agent-1", "stopPolling": False}
        files = [{"name": "f", "uploadUrl": f"{self.url}/upload"}]
        answers: dict[str, dict[str, object]] = {
            "createLaunchAgent": {"createLaunchAgent": {"launchAgentId": "a"}},
            "LaunchAgent": {"launchAgent": agent},
            "ackRunQueueItem": {"ackRunQueueItem": {"success": True}},
            "CreateRunFiles": {
                "createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}
            },
        }
        if "ProjectRunQueues" in document:
            names = [*(f"h{number}" for number in range(200)), *sick_queues(max(HANGING.values()))]
            listed = [{"id": name, "name": name} for name in names]
            return {"project": {"runQueues": listed}}
        return answers.get(document.rsplit(maxsplit=1)[-1], {})


class Service(WandbQueueService):
    """The real one; runs and claims are faked, so that every clean exit has its run."""

    async def look_up(self, runs: Sequence[object]) -> Mapping[object, RunView]:  # type: ignore[override]
        return {run: RunView(state="finished") for run in runs}

    def __getattr__(self, name: str) -> object:
        return getattr(FAKE, name)


FAKE = FakeService()


class Jobs(FakeRunner):
    """Each run ends by itself; the sick queue's fail, or are refused by their backend."""

    def __init__(self, *, down: bool) -> None:
        super().__init__()
        self._down = down
        self.begun: dict[str, float] = {}
        """When each healthy item's run began."""

    async def launch(self, order: LaunchOrder) -> RunHandle:
        if self._down and order.item_id.startswith(SICK):
            await anyio.sleep(JOB_SECONDS)
            raise Unavailable("the target is down")
        return await super().launch(order)

    async def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
        if not handle.item_id.startswith(SICK):
            self.begun.setdefault(handle.item_id, anyio.current_time())
        await anyio.sleep(JOB_SECONDS)
        await self.end(handle.run_id, RunEnd(exit_code=int(handle.item_id.startswith(SICK))))
        async with contextlib.aclosing(super().watch(handle)) as statuses:
            async for status in statuses:
                yield status


async def rate(kind: str, url: str, queues: int, seconds: float) -> float:
    """Healthy queues' items per second."""
    sick = 0 if kind in ALONE else HANGING.get(kind, 1)
    names = [f"h{number}" for number in range(queues)] + sick_queues(sick)
    world = World()
    world.patience_seconds = 1.0
    jobs = world.runner = Jobs(down=kind == "target down")
    world.section = {"poll": 0.5, "poll_max": 1.0, "heartbeat": 1.0}
    async with Transport.open(
        base_url=url,
        api_key=Secret("k" * 40),
        call_timeout_seconds=LIMIT_SECONDS,
        lanes=Lanes.guarded(),
    ) as transport:
        world.service = Service(  # type: ignore[assignment]
            transport, queues=[queue_ref(name) for name in names], hostname="h", agent_config={}
        )
        agent = world.agent(limits=dict.fromkeys(names, JOBS_PER_QUEUE))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.run)
            with anyio.move_on_after(10.0):
                await jobs.launched.wait()
            await anyio.sleep(SETTLE_SECONDS)
            since = anyio.current_time()
            await anyio.sleep(seconds)
            items = items_of(jobs, since, anyio.current_time())
            tasks.cancel_scope.cancel()
    return items / seconds


def sick_queues(count: int) -> list[str]:
    return [f"{SICK}{number}" for number in range(count)]


def items_of(jobs: Jobs, since: float, until: float) -> float:
    """The parts of runs that lie between these moments."""
    lengths = (min(at + JOB_SECONDS, until) - max(at, since) for at in jobs.begun.values())
    return sum(max(0.0, length) for length in lengths) / JOB_SECONDS


async def serve(kind: str, pipe: multiprocessing.connection.Connection) -> None:
    plane = Plane(kind)
    runner = web.ServerRunner(web.Server(plane.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    plane.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    pipe.send(plane.url)
    await anyio.sleep_forever()


def serve_in_process(kind: str, pipe: multiprocessing.connection.Connection) -> None:
    anyio.run(serve, kind, pipe)


@contextlib.asynccontextmanager
async def plane_of(kind: str) -> AsyncGenerator[str, None]:
    near, far = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve_in_process, args=(kind, far), daemon=True
    )
    process.start()
    try:
        yield await anyio.to_thread.run_sync(near.recv)
    finally:
        process.terminate()
        process.join(5)


async def measured(kind: str, queues: int, seconds: float) -> float:
    async with plane_of(kind) as url:
        return await rate(kind, url, queues, seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--queues", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind in KINDS:
            rates[kind].append(anyio.run(measured, kind, options.queues, options.seconds))
    worst = 1.0
    for kind, figures in rates.items():
        bases = rates[BASES.get(kind, "alone")]
        ratio = statistics.median(
            figure / base if base else 0.0 for figure, base in zip(figures, bases, strict=True)
        )
        if kind not in {*ALONE, FAILING}:
            worst = min(worst, ratio)
        print(f"{kind:14} {statistics.median(figures):7.1f} items/s  ratio {ratio:.2f}")
    print(f"ratio={worst:.2f}")


if __name__ == "__main__":
    main()
