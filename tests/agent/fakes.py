"""In-memory stand-ins for the agent's ports, with faults that tests can plant."""

from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from launch_async.agent.agent import Agent
from launch_async.agent.slots import Slotted
from launch_async.agent.table import Table
from launch_async.agent.timeouts import Timeouts
from launch_async.agent.tools import Target, Tools
from launch_async.agent.warnings import Warnings
from launch_async.config.model import AgentSection, LaunchConfig, QueueConfig
from launch_async.domain.errors import AgentUnfit, ItemError, Reason, Unavailable
from launch_async.domain.ids import ItemId, QueueRef, RunId, RunRef
from launch_async.domain.item import Item
from launch_async.domain.job import ArtifactSource, GitSource, ImageSource, Job
from launch_async.domain.outcome import Outcome
from launch_async.domain.phase import Phase
from launch_async.domain.run import FoundRun, Origin, RunEnd, RunHandle, RunState, RunStatus, Trace
from launch_async.domain.secret import Secret
from launch_async.domain.spec import RunSpec
from launch_async.ports.build import BuildOrder
from launch_async.ports.claims import Claim
from launch_async.ports.configs import QueueConfigs
from launch_async.ports.journal import Entry
from launch_async.ports.pauses import PauseStore
from launch_async.ports.presence import AgentStatus
from launch_async.ports.queue import Popped, RejectedItem
from launch_async.ports.runner import ImageWork, LaunchOrder, Work
from launch_async.ports.runs import RunView

KEY = Secret("k" * 40)
DEADLINE_SECONDS = 10.0


@asynccontextmanager
async def running(agent: Agent) -> AsyncGenerator[Agent, None]:
    """The agent's life; leaving the block is like SIGKILL when it still runs."""
    with anyio.fail_after(DEADLINE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.run)
            yield agent
            tasks.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(DEADLINE_SECONDS):
        while not condition():
            await anyio.sleep(0.002)


def queue_ref(name: str = "q") -> QueueRef:
    return QueueRef("me", "model-registry", name)


def an_item(number: int = 1, queue: str = "q", **spec: object) -> Item:
    fields = {"entity": "me", "project": "p", "job": "me/p/j:latest", "resource": "fake"} | spec
    return Item(
        id=ItemId(f"{queue}-{number}"),
        queue=queue_ref(queue),
        run_id=RunId(f"run{queue}{number}"),
        spec=RunSpec(**fields),
        popped_at=0.0,
    )


def config_of(limits: Mapping[str, int], *, max_jobs: int = -1, **section: object) -> LaunchConfig:
    """A configuration of quick agents; `section` is its `agent:`."""
    quick = {"poll": 0.005, "poll_max": 0.005, "heartbeat": 0.01, "waiting": 1000}
    return LaunchConfig(
        queues=tuple(QueueConfig(name=name, max_jobs=limit) for name, limit in limits.items()),
        max_jobs=max_jobs,
        agent=AgentSection(**quick | section),
    )


class FakeJournal:
    def __init__(self) -> None:
        self.kept: dict[ItemId, Entry] = {}
        self.full_from: Phase | None = None
        """The disk is full from the first write of this phase on."""
        self.forget_slowly: anyio.Event | None = None

    async def write(self, entry: Entry) -> None:
        if entry.phase is self.full_from:
            raise AgentUnfit("the disk is full")
        self.kept[entry.item.id] = entry

    async def forget(self, item_id: ItemId) -> None:
        self.kept.pop(item_id, None)
        if self.forget_slowly is not None:
            await self.forget_slowly.wait()

    async def entries(self) -> Sequence[Entry]:
        return list(self.kept.values())


class FakeService:
    """The queue service: ItemQueue, Presence and RunDirectory."""

    def __init__(self) -> None:
        self.pending: dict[str, deque[Item | RejectedItem]] = {}
        self.acks: list[tuple[ItemId, RunId]] = []
        self.refused_acks: set[ItemId] = set()
        self.failed: dict[ItemId, tuple[Outcome, Sequence[str]]] = {}
        self.uploads: dict[str, bytes] = {}
        self.warned: list[tuple[ItemId, str]] = []
        self.runs: dict[RunRef, RunView] = {}
        self.claims: dict[ItemId, Claim] = {}
        self.asked_to_stop: list[RunRef] = []
        self.statuses: list[AgentStatus] = []
        self.stop_polling = False
        self.pops: list[list[str]] = []
        self.sick_queues: set[str] = set()
        self.followed: list[list[str]] = []
        self.faults: dict[str, deque[Exception]] = {}

    def push(self, *items: Item) -> None:
        for item in items:
            self.pending.setdefault(item.queue.name, deque()).append(item)

    def plant(self, verb: str, *errors: Exception) -> None:
        self.faults.setdefault(verb, deque()).extend(errors)

    def _maybe_fail(self, verb: str) -> None:
        if self.faults.get(verb):
            raise self.faults[verb].popleft()

    async def pop(self, queues: Sequence[QueueRef]) -> Sequence[Popped]:
        await anyio.lowlevel.checkpoint()
        self.pops.append([queue.name for queue in queues])
        self._maybe_fail("pop")
        return [self._pop(queue.name) for queue in queues]

    def _pop(self, queue: str) -> Popped:
        if queue in self.sick_queues:
            return Unavailable(f"{queue} is sick")
        waiting = self.pending.get(queue)
        return waiting.popleft() if waiting else None

    async def ack(self, item: Item) -> bool:
        await anyio.lowlevel.checkpoint()
        self.acks.append((item.id, item.run_id))
        self._maybe_fail("ack")
        if item.id in self.refused_acks:
            return False
        for name, waiting in self.pending.items():
            self.pending[name] = deque(one for one in waiting if one.id != item.id)
        return True

    async def fail(
        self, item: Item | RejectedItem, outcome: Outcome, *, files: Sequence[str]
    ) -> None:
        self._maybe_fail("fail")
        self.failed[item.id] = (outcome, files)

    async def warn(self, item: Item, message: str) -> None:
        self._maybe_fail("warn")
        self.warned.append((item.id, message))

    async def register(self) -> str:
        self._maybe_fail("register")
        return "agent-1"

    async def follow(self, queues: Sequence[QueueRef]) -> str:
        self._maybe_fail("follow")
        self.followed.append([queue.name for queue in queues])
        return "agent-2"

    async def beat(self, status: AgentStatus) -> bool:
        self._maybe_fail("beat")
        self.statuses.append(status)
        return self.stop_polling

    async def upload(self, path: str, content: bytes) -> None:
        self._maybe_fail("upload")
        self.uploads[path] = content

    async def look_up_items(self, origins: Sequence[Origin]) -> Mapping[ItemId, Claim]:
        self._maybe_fail("look_up_items")
        return {
            one.item_id: self.claims[one.item_id] for one in origins if one.item_id in self.claims
        }

    async def look_up(self, runs: Sequence[RunRef]) -> Mapping[RunRef, RunView]:
        self._maybe_fail("look_up")
        return {run: self.runs[run] for run in runs if run in self.runs}

    async def ask_to_stop(self, run: RunRef) -> None:
        self._maybe_fail("ask_to_stop")
        self.asked_to_stop.append(run)


class FakeRequeues:
    """Ours by default: asked twice it queues once. W&B's pushes each time."""

    def __init__(self, service: FakeService) -> None:
        self.is_repeatable = True
        self.queued: dict[ItemId, int] = {}
        self.pushes = 0
        self.refusal: ItemError | None = None
        self._service = service

    async def repeatable(self) -> bool:
        self._service._maybe_fail("repeatable")
        return self.is_repeatable

    async def requeue(self, item: Item, outcome: Outcome, *, files: Sequence[str]) -> None:
        self._service._maybe_fail("requeue")
        if self.refusal is not None:
            raise self.refusal
        self.pushes += 1
        self.queued[item.id] = item.spec.resume_count + 1
        self._service._maybe_fail("requeue answer")


class FakeBundles:
    def __init__(self) -> None:
        self.kept: dict[ItemId, dict[str, bytes]] = {}

    async def keep(self, item_id: ItemId, files: Mapping[str, bytes]) -> None:
        self.kept[item_id] = dict(files)


class FakeJobs:
    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}
        self.faults: deque[Exception] = deque()

    async def job(self, ref: str) -> Job:
        if self.faults:
            raise self.faults.popleft()
        if ref in self.errors:
            raise self.errors[ref]
        return Job(source=ImageSource(image="img"), entrypoint=("run",), ref=ref)

    async def fetch(self, source: ArtifactSource | GitSource, into: Path) -> None:
        raise NotImplementedError


class FakeBuilder:
    def __init__(self) -> None:
        self.discarded: list[ItemId] = []
        self.building = anyio.Event()
        self.hang = False
        self.printed: Path | None = None
        """The log of the builds."""
        self.warnings: tuple[str, ...] = ()

    async def build(self, order: BuildOrder) -> Work:
        if self.printed is not None:
            order.progress.keep_log(self.printed)
        self.building.set()
        if self.hang:
            await anyio.sleep_forever()
        return ImageWork(image="img", entrypoint=order.entrypoint, warnings=self.warnings)

    async def discard(self, item: Item) -> None:
        self.discarded.append(item.id)


class FakeRunner:
    """Runs live here; tests end them. They outlive an agent, as real ones do."""

    name = "fake"

    def __init__(self) -> None:
        self.orders: dict[RunId, LaunchOrder] = {}
        self.launches: Counter[RunId] = Counter()
        self.ends: dict[RunId, RunEnd] = {}
        self.starting: set[RunId] = set()
        self.says: dict[str, Any] = {}
        """What is said of runs that start: detail, warning, cause."""
        self.changed = anyio.Condition()
        self.cancelled: list[RunId] = []
        self.removed: list[RunId] = []
        self.gone: set[RunId] = set()
        self.tail: tuple[str, ...] = ("first", "last line")
        self.tails: dict[RunId, tuple[str, ...]] = {}
        """Of single runs, in place of `tail`."""
        self.errors: deque[Exception] = deque()
        self.faults: dict[str, deque[Exception]] = {}
        self.serves = 0
        self.finds = 0
        self.prepared: set[RunId] = set()
        self.look_seconds = 0.0
        self.launched = anyio.Event()
        self.hang_after_create = False
        self.lose_answers = 0
        """Launches from now on that begin, but whose answer is lost."""
        self.watches = 0

    @property
    def alive(self) -> list[LaunchOrder]:
        return [order for run, order in self.orders.items() if run not in self.ends]

    def plant(self, verb: str, *errors: Exception) -> None:
        self.faults.setdefault(verb, deque()).extend(errors)

    def _maybe_fail(self, verb: str) -> None:
        if self.faults.get(verb):
            raise self.faults[verb].popleft()

    async def check(self) -> None:
        self._maybe_fail("check")

    async def launch(self, order: LaunchOrder) -> RunHandle:
        if self.errors:
            raise self.errors.popleft()
        run_id = order.run.run_id
        earlier = self.orders.get(run_id)
        if earlier is not None and earlier.item_id != order.item_id:
            if run_id not in self.ends:
                msg = f"run {run_id} still runs for another item, {earlier.item_id}"
                raise ItemError(msg, reason=Reason.LAUNCH_FAILED)
            del self.orders[run_id], self.ends[run_id]
            self.gone.discard(run_id)
        if run_id not in self.orders:
            self.orders[run_id] = order
            self.launches[run_id] += 1
        self.launched.set()
        if self.hang_after_create:
            await anyio.sleep_forever()
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unavailable("the answer was lost")
        return self._handle(order)

    async def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
        await anyio.sleep(self.look_seconds)
        self._maybe_fail("watch")
        self.watches += 1
        shown: RunStatus | None = None
        while shown is None or shown.end is None:
            async with self.changed:
                while (status := self._status(handle.run_id)) == shown:
                    await self.changed.wait()
            shown = status
            yield status

    def _status(self, run_id: RunId) -> RunStatus:
        if run_id in self.ends:
            return RunStatus(state=RunState.ENDED, end=self.ends[run_id])
        if run_id in self.starting:
            return RunStatus(state=RunState.STARTING, **self.says)
        return RunStatus(state=RunState.RUNNING)

    async def say(self, **words: Any) -> None:
        """From now on of runs that start."""
        async with self.changed:
            self.says = words
            self.changed.notify_all()

    async def cancel(self, handle: RunHandle, *, within_seconds: float) -> None:
        self._maybe_fail("cancel")
        if self.is_alive(handle):
            self.cancelled.append(handle.run_id)
            await self.end(handle.run_id, RunEnd(exit_code=None, signal=15))

    async def log_tail(self, handle: RunHandle, *, lines: int) -> tuple[str, ...]:
        self._maybe_fail("log_tail")
        return () if handle.run_id in self.gone else self._tail(handle)[-lines:]

    async def logs(self, handle: RunHandle) -> AsyncGenerator[bytes, None]:
        shown = 0
        while handle.run_id not in self.gone:
            ended = handle.run_id in self.ends
            lines = self._tail(handle)[shown:]
            shown += len(lines)
            for line in lines:
                yield f"{line}\n".encode()
            if ended:
                return
            async with self.changed:
                if not self._tail(handle)[shown:] and handle.run_id not in self.ends:
                    await self.changed.wait()

    async def find(self, identity: str) -> Sequence[FoundRun]:
        self._maybe_fail("find")
        self.finds += 1
        await anyio.lowlevel.checkpoint()
        return [
            FoundRun(
                handle=self._handle(order),
                trace=self._trace(run_id),
                origin=order.origin,
            )
            for run_id, order in self.orders.items()
            if order.identity == identity and run_id not in self.gone
        ]

    async def remove(self, handle: RunHandle) -> None:
        self._maybe_fail("remove")
        order = self.orders.get(handle.run_id)
        if order is not None and order.item_id != handle.item_id:
            return
        self.removed.append(handle.run_id)
        self.gone.add(handle.run_id)
        await self.end(handle.run_id, RunEnd(exit_code=None, reason=Reason.VANISHED))

    async def serve(self) -> None:
        self.serves += 1
        self._maybe_fail("serve")
        await anyio.sleep_forever()

    async def end(self, run_id: str, end: RunEnd) -> None:
        self.ends.setdefault(RunId(run_id), end)
        async with self.changed:
            self.changed.notify_all()

    def is_alive(self, handle: RunHandle) -> bool:
        order = self.orders.get(handle.run_id)
        mine = order is not None and order.item_id == handle.item_id
        return mine and handle.run_id not in self.ends

    def _tail(self, handle: RunHandle) -> tuple[str, ...]:
        return self.tails.get(handle.run_id, self.tail)

    def _trace(self, run_id: RunId) -> Trace:
        if run_id in self.prepared:
            return Trace.PREPARED
        return Trace.ENDED if run_id in self.ends else Trace.ALIVE

    def _handle(self, order: LaunchOrder) -> RunHandle:
        return RunHandle(backend=self.name, run_id=order.run.run_id, item_id=order.item_id, data={})


class FakePauses:
    """Implements `PauseStore`."""

    def __init__(self) -> None:
        self.kept: Set[QueueRef] = frozenset()

    def load(self) -> Set[QueueRef]:
        return self.kept

    async def keep(self, queues: Set[QueueRef]) -> None:
        self.kept = queues


class World:
    """Everything around an agent; agents come and go."""

    def __init__(self) -> None:
        self.service = FakeService()
        self.journal = FakeJournal()
        self.runner = FakeRunner()
        self.resource = "fake"
        self.jobs = FakeJobs()
        self.builder = FakeBuilder()
        self.secure_mode = False
        self.require_run_key = False
        self.configs: QueueConfigs | None = None
        self.macros: dict[str, str] = {}
        self.stop_grace_seconds = 0.01
        self.timeouts = Timeouts()
        self.item_retries = 5
        self.upload_seconds = 60.0
        self.requeues = FakeRequeues(self.service)
        self.bundles = FakeBundles()
        self.pauses: PauseStore = FakePauses()
        self.patience_seconds = 0.03
        self.run_look_up_pauses: tuple[float, ...] = (0.0, 0.01)
        self.run_word_seconds = 60.0
        self.orphan_grace_seconds = 300.0
        self.end_orphans = False
        self.section: dict[str, object] = {}
        """More of `agent:`."""

    def agent(
        self,
        *,
        limits: Mapping[str, int] | None = None,
        max_jobs: int = -1,
        grace_seconds: float = 30.0,
        config: LaunchConfig | None = None,
    ) -> Agent:
        """A new life of the agent."""
        warnings = Warnings(self.service, agent_key=KEY, retry_seconds=0.01)
        slots = anyio.CapacityLimiter(2)
        target = Target(runner=self.runner, builder=Slotted(self.builder, slots))
        tools = Tools(
            table=Table(self.journal),
            queue=self.service,
            presence=self.service,
            runs=self.service,
            claims=self.service,
            jobs=self.jobs,
            targets={self.resource: target},
            builds=slots,
            identity="same",
            base_url="http://h",
            api_key=KEY,
            retry_seconds=0.01,
            patience_seconds=self.patience_seconds,
            secure_mode=self.secure_mode,
            require_run_key=self.require_run_key,
            configs=self.configs,
            macros=self.macros,
            stop_grace_seconds=self.stop_grace_seconds,
            timeouts=self.timeouts,
            item_retries=self.item_retries,
            upload_seconds=self.upload_seconds,
            requeues=self.requeues,
            bundles=self.bundles,
            pauses=self.pauses,
            warnings=warnings,
            services={"warnings": warnings.serve},
            orphan_grace_seconds=self.orphan_grace_seconds,
            end_orphans=self.end_orphans,
            run_look_up_pauses=self.run_look_up_pauses,
            run_word_seconds=self.run_word_seconds,
        )
        return Agent(
            tools,
            config=config
            or config_of(
                limits or {"q": -1}, max_jobs=max_jobs, **{"grace": grace_seconds} | self.section
            ),
            entity="me",
        )

    async def finish(self, run_id: str, exit_code: int = 0, *, with_run: bool = True) -> None:
        """End a run as its job would."""
        order = self.runner.orders[RunId(run_id)]
        if with_run:
            state = "finished" if exit_code == 0 else "failed"
            self.service.runs[order.run] = RunView(state=state)
        await self.runner.end(run_id, RunEnd(exit_code=exit_code))
