"""The agent's life: nested task groups, so that services outlive journeys and journeys pollers.

```
services   runners' background work, heartbeat
  journeys   one task per open item
    pollers    one task per queue
```

The first `stop()` ends the pollers; items go on for the grace and are then let go: what they
started keeps running and is adopted by the next life. A second `stop()` skips the grace.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVarTuple, Unpack

import anyio
import structlog
from anyio.abc import TaskGroup

from launch_async.agent.admission import Admission, QueueLimit
from launch_async.agent.heartbeat import Heartbeat
from launch_async.agent.journey import travel
from launch_async.agent.poller import Poller
from launch_async.agent.recover import Recovery
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.domain.errors import AgentUnfit, Unavailable, gravest
from launch_async.kit.tasks import unless_set
from launch_async.ports.runner import Runner
from launch_async.ports.status import AgentView, ItemView, QueueView

Arguments = TypeVarTuple("Arguments")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Agent:
    """One agent, for one `run()`."""

    def __init__(
        self,
        tools: Tools,
        *,
        queues: Sequence[QueueLimit],
        max_jobs: int,
        poll_seconds: float,
        heartbeat_seconds: float,
        grace_seconds: float,
    ) -> None:
        self._tools = tools
        self._admission = Admission(tools.table, max_jobs=max_jobs)
        self._poll_seconds = poll_seconds
        self._grace_seconds = grace_seconds
        self._stopping = anyio.Event()
        self._hurry = anyio.Event()
        self._unfit: AgentUnfit | None = None
        self._name = ""
        self._journeys: TaskGroup | None = None
        self._heartbeat = Heartbeat(
            presence=tools.presence,
            runs=tools.runs,
            table=tools.table,
            stop=self.stop_polling,
            interval_seconds=heartbeat_seconds,
        )
        self._recovery = Recovery(tools, hand_over=self._start_journey)
        self._pollers = [
            Poller(
                queue,
                service=tools.queue,
                admission=self._admission,
                table=tools.table,
                hand_over=self._start_journey,
                idle_seconds=poll_seconds,
            )
            for queue in queues
        ]

    def stop(self, cause: str) -> None:
        """Begin to stop; the second call skips the grace."""
        if self._stopping.is_set():
            self._hurry.set()
        else:
            self.stop_polling(cause)

    def stop_polling(self, cause: str) -> None:
        """Begin to stop, however often it is said."""
        if not self._stopping.is_set():
            log.info("stopping", cause=cause, open_items=len(self._tools.table))
            self._stopping.set()

    async def run(self) -> None:
        """Until stopped.

        Raises:
            AgentUnfit: a person must act; items were let go.
        """
        async with anyio.create_task_group() as services:
            for name, target in self._tools.targets.items():
                services.start_soon(self._serve, target.runner, name=f"runner {name}")
            async with anyio.create_task_group() as journeys:
                self._journeys = journeys
                await self._guarded(self._adopt)
                if await self._register():
                    services.start_soon(self._guarded, self._heartbeat.run, name="heartbeat")
                    await self._poll()
                await self._drain()
                journeys.cancel_scope.cancel()
            if self._name:
                await self._heartbeat.last_word()
            services.cancel_scope.cancel()
        if self._unfit is not None:
            raise self._unfit

    def view(self) -> AgentView:
        """The agent now."""
        now = anyio.current_time()
        table = self._tools.table
        state = "polling" if self._name else "starting"
        return AgentView(
            name=self._name,
            identity=self._tools.identity,
            state="stopping" if self._stopping.is_set() else state,
            max_jobs=self._admission.max_jobs,
            queues=tuple(
                QueueView(
                    name=poller.queue.ref.name,
                    max_jobs=poller.queue.max_jobs,
                    items=table.count(poller.queue.ref),
                    polls=dict(poller.polls),
                    seconds_since_poll=_age(poller.last_answer, now),
                )
                for poller in self._pollers
            ),
            items=tuple(_item_view(tracked, now) for tracked in table),
            launched=table.launched,
            adopted=table.adopted,
            ended=dict(table.ended),
            poll_seconds=self._poll_seconds,
            seconds_since_beat=_age(self._heartbeat.last_answer, now),
        )

    async def _adopt(self) -> None:
        for tracked in await self._tools.table.adopt():
            phase = tracked.entry.phase.value
            log.info("item adopted", item=tracked.item.id, run=tracked.item.run_id, phase=phase)
            self._start_journey(tracked)
        if self._journeys is not None:
            self._journeys.start_soon(self._guarded, self._recovery.run, name="recovery")
        await unless_set(self._stopping, self._recovery.first_look)

    async def _register(self) -> bool:
        """Whether the agent may poll; an outage of the service is waited out."""
        while not self._stopping.is_set():
            try:
                name = await unless_set(self._stopping, self._tools.presence.register)
            except Unavailable as error:
                log.warning("cannot register yet", reason=str(error))
                with anyio.move_on_after(self._tools.retry_seconds):
                    await self._stopping.wait()
            except AgentUnfit as error:
                self._become_unfit(error)
            else:
                if name is None:
                    break
                self._name = name
                queues = [str(poller.queue.ref) for poller in self._pollers]
                log.info("agent registered", agent=self._name, queues=queues)
                return True
        return False

    async def _poll(self) -> None:
        async with anyio.create_task_group() as pollers:
            for poller in self._pollers:
                name = f"poller {poller.queue.ref}"
                pollers.start_soon(self._guarded, poller.run, name=name)
            await self._stopping.wait()
            pollers.cancel_scope.cancel()

    async def _drain(self) -> None:
        """Wait for open items until the grace ends or somebody is in a hurry."""
        table = self._tools.table
        async with anyio.create_task_group() as group:
            group.start_soon(self._wait_for_hurry, group, name="hurry")
            with anyio.move_on_after(self._grace_seconds):
                async with table.changed:
                    while len(table) and self._unfit is None:
                        await table.changed.wait()
            group.cancel_scope.cancel()
        if len(table):
            log.info("items let go", open_items=len(table), hint="the next start adopts them")

    async def _wait_for_hurry(self, group: TaskGroup) -> None:
        await self._hurry.wait()
        group.cancel_scope.cancel()

    def _start_journey(self, tracked: Tracked) -> None:
        if self._journeys is None:
            msg = "journeys start after the agent"
            raise RuntimeError(msg)
        name = f"item {tracked.item.id}"
        self._journeys.start_soon(self._guarded, travel, tracked, self._tools, name=name)

    async def _guarded(
        self, work: Callable[[Unpack[Arguments]], Awaitable[None]], *arguments: *Arguments
    ) -> None:
        """Run a task of the agent; when it finds the agent unfit, everything stops in order."""
        try:
            await work(*arguments)
        except Exception as error:
            fault = gravest(error)
            if not isinstance(fault, AgentUnfit):
                raise
            self._become_unfit(fault)

    async def _serve(self, runner: Runner) -> None:
        """A runner's background work; when it breaks, it costs the others nothing."""
        while True:
            try:
                await runner.serve()
            except Exception:
                log.exception(
                    "a runner's background work broke; it begins again", runner=runner.name
                )
            await anyio.sleep(self._tools.retry_seconds)

    def _become_unfit(self, error: AgentUnfit) -> None:
        log.error("agent unfit", reason=str(error))
        self._unfit = self._unfit or error
        self.stop_polling("the agent is unfit")
        self._hurry.set()


def _item_view(tracked: Tracked, now: float) -> ItemView:
    item = tracked.item
    return ItemView(
        id=item.id,
        queue=item.queue.name,
        run=str(item.run),
        phase=tracked.entry.phase.value,
        detail=tracked.detail,
        seconds_in_phase=round(now - tracked.since, 3),
    )


def _age(moment: float | None, now: float) -> float | None:
    return None if moment is None else round(now - moment, 3)
