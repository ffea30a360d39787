"""The agent's life: nested task groups, so that services outlive journeys and journeys pollers.

```
services   runners' background work, heartbeat
  journeys   one task per open item
    poller     all queues; a task per request
```

The first `stop()` ends the pollers; items go on for the grace and are then let go: what they
started keeps running and is adopted by the next life. A second `stop()` skips the grace. A drain
waits for as long as it is told (`agent/stopping.py`).
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVarTuple, Unpack

import anyio
import anyio.to_thread
import msgspec
import structlog
from anyio.abc import TaskGroup

from launch_async.agent.admission import Admission
from launch_async.agent.explain import explain_item, explain_queue
from launch_async.agent.heartbeat import Heartbeat
from launch_async.agent.journey import travel
from launch_async.agent.limits import Limits, limits_of, pace_of
from launch_async.agent.logs import follow_log, log_tail
from launch_async.agent.pauses import Pauses
from launch_async.agent.poller import Poller
from launch_async.agent.recover import Recovery
from launch_async.agent.reload import changes, taken_on, tuned
from launch_async.agent.stopping import Stopping
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.agent.views import (
    age,
    duration_views,
    item_page,
    item_view,
    limit_views,
    phase_counts,
    queue_views,
)
from launch_async.config.model import LaunchConfig
from launch_async.domain.errors import AgentUnfit, ConfigError, Unavailable, gravest
from launch_async.domain.ids import QueueRef
from launch_async.kit.lag import LoopLag
from launch_async.kit.slow import said_when_slow
from launch_async.ports.backends import BackendSource, BackendView
from launch_async.ports.control import Explanation
from launch_async.ports.status import ALL_ITEMS, AgentView, ItemPage, ItemView
from launch_async.wire.operations import LAUNCH_PROJECT

ADOPTED_AT_ONCE = 100
"""Journeys that start in one turn of the loop: thousands of them must not block it."""
AUDIT_SECONDS = 60.0
SLOW_SECONDS = 3.0
"""After so long at its start an agent says what it waits for. Why it waits is known with the first
error, which a call keeps back until its last try."""

Arguments = TypeVarTuple("Arguments")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Agent:
    """One agent, for one `run()`."""

    def __init__(
        self,
        tools: Tools,
        *,
        config: LaunchConfig,
        entity: str,
        read_config: Callable[[], LaunchConfig] | None = None,
    ) -> None:
        """`entity` owns the queues; `read_config` is what a reload without a configuration reads,
        and raises ConfigError.
        """
        self.lag = LoopLag()
        self._tools = tools
        self._config = config
        self._entity = entity
        self._read_config = read_config
        self._reloading = anyio.Lock()
        self._admission = Admission(tools.table, self._limits(config))
        self._drift = 0
        self._recovered = False
        self._pauses = Pauses(self._admission, tools.pauses)
        self._stopping = Stopping(tools.table)
        self._unfit: AgentUnfit | None = None
        self._name = ""
        self._journeys: TaskGroup | None = None
        self._needed: set[str] = set()
        """Targets that items of this life asked for."""
        self._heartbeat = Heartbeat(
            presence=tools.presence,
            runs=tools.runs,
            table=tools.table,
            stop=self.stop_polling,
            interval_seconds=config.agent.heartbeat,
        )
        self._recovery = Recovery(tools, hand_over=self._start_journey)
        self._poller = Poller(
            service=tools.queue,
            admission=self._admission,
            table=tools.table,
            hand_over=self._start_journey,
            pace=pace_of(config),
        )
        self._poller.follow(self._admission.limits.queues)

    def stop(self, cause: str) -> None:
        """Begin to stop; the second call skips the grace."""
        if self._stopping.is_stop:
            self._stopping.hurry()
        else:
            self.stop_polling(cause)

    def stop_polling(self, cause: str) -> None:
        """Begin to stop, however often it is said."""
        self._stopping.stop(cause, grace_seconds=self._config.agent.grace)
        self._admission.close()

    async def run(self) -> None:
        """Until stopped.

        Raises:
            AgentUnfit: a person must act; items were let go.
        """
        async with anyio.create_task_group() as services:
            services.start_soon(self.lag.run, name="loop lag")
            for name, target in self._tools.targets.items():
                work = f"runner {name}"
                services.start_soon(self._serve, work, target.runner.serve, name=work)
            for name, serve in self._tools.services.items():
                services.start_soon(self._serve, name, serve, name=name)
            async with anyio.create_task_group() as journeys:
                self._journeys = journeys
                self._pauses.say()
                await self._guarded(self._adopt)
                self._recovered = True
                if await self._registered():
                    services.start_soon(self._guarded, self._heartbeat.run, name="heartbeat")
                    services.start_soon(self._audit, name="audit")
                    await self._poll()
                await self._stopping.wait_for_items()
                journeys.cancel_scope.cancel()
            if self._name:
                await self._heartbeat.last_word()
            services.cancel_scope.cancel()
        if self._unfit is not None:
            raise self._unfit

    def backends(self) -> Sequence[BackendView]:
        """What is called for this agent, now."""
        views = [view for source in self._tools.backends for view in source.backends()]
        for resource, target in self._tools.targets.items():
            runner = target.runner
            if isinstance(runner, BackendSource):
                needed = resource in self._needed or self._recovery.holds_runs(runner.name)
                views += [
                    msgspec.structs.replace(view, needed=needed) for view in runner.backends()
                ]
        return views

    def view(self, *, items: int = ALL_ITEMS) -> AgentView:
        """As `StatusSource.view`."""
        now = anyio.current_time()
        table = self._tools.table
        return AgentView(
            name=self._name,
            identity=self._tools.identity,
            state=self._state(),
            max_jobs=self._admission.limits.max_jobs,
            queues=tuple(queue_views(self._poller, self._admission, table)),
            items=item_page(table, most=items).items,
            phases=phase_counts(table),
            unfit=str(self._unfit or ""),
            launched=table.launched,
            adopted=table.adopted,
            ended=dict(table.ended),
            poll_seconds=self._config.agent.poll_max,
            seconds_since_beat=age(self._heartbeat.last_answer, now),
            limits=limit_views(self._admission, self._tools.builds),
            drift=self._drift,
            looks=self._admission.looks,
            durations=duration_views(table),
            recovered=self._recovered,
            orphans=len(self._recovery.orphans),
            lost_runs=dict(self._recovery.counts),
            lets_go_in_seconds=self._stopping.seconds_left,
        )

    def items(self, *, queue: str | None, phase: str | None, most: int) -> ItemPage:
        """As `AgentControl.items`."""
        return item_page(self._tools.table, queue=queue, phase=phase, most=most)

    def item(self, item_id: str) -> ItemView | None:
        """As `AgentControl.item`."""
        tracked = self._tools.table.get(item_id)
        return None if tracked is None else item_view(tracked, anyio.current_time())

    async def log_tail(self, item_id: str, *, lines: int) -> tuple[str, ...]:
        """As `RunLogs.log_tail`."""
        return await log_tail(self._tools, item_id, lines=lines)

    def logs(self, item_id: str) -> AsyncGenerator[bytes, None]:
        """As `RunLogs.logs`."""
        return follow_log(self._tools, item_id)

    def explain(self, name: str) -> Explanation | None:
        """As `AgentControl.explain`."""
        tracked = self._tools.table.get(name)
        if tracked is not None:
            return explain_item(tracked, self._tools)
        queue = self._poller.queues.get(self._ref(name))
        if queue is None:
            return None
        return explain_queue(queue, self._admission, self._tools.table, agent=self._state())

    def drain(self, *, timeout_seconds: float | None = None) -> None:
        """As `AgentControl.drain`."""
        self._stopping.drain("drain requested", timeout_seconds=timeout_seconds)
        self._admission.close()

    async def pause(self, queue: str) -> None:
        """As `AgentControl.pause`."""
        await self._pauses.set(self._polled(queue), paused=True)

    async def resume(self, queue: str) -> None:
        """As `AgentControl.resume`."""
        await self._pauses.set(self._polled(queue), paused=False)

    async def cancel(self, item_id: str) -> bool:
        """As `AgentControl.cancel`: what was not launched ends at once, a run after its grace."""
        tracked = self._tools.table.get(item_id)
        if tracked is None:
            return False
        log.info("cancel requested", item=item_id)
        return await self._tools.table.request_stop(tracked, by_operator=True)

    async def reload(self, config: LaunchConfig | None = None) -> list[str]:
        """As `AgentControl.reload`, of this configuration if one is given."""
        async with self._reloading:
            if config is None:
                if self._read_config is None:
                    msg = "this agent has no configuration to read again; restart it instead"
                    raise ConfigError(msg)
                config = await anyio.to_thread.run_sync(self._read_config)
            said = changes(self._config, config)
            await self._take_on(taken_on(self._config, config))
        log.info("configuration reloaded", changes=said)
        return said

    async def _take_on(self, config: LaunchConfig) -> None:
        """Nothing changes unless all does."""
        limits = self._limits(config)
        if not limits.queues:
            msg = "the configuration names no queue; name one, or drain the agent"
            raise ConfigError(msg)
        if limits.queues.keys() != self._admission.limits.queues.keys():
            await self._register_again(list(limits.queues))
        self._config = config
        self._tools = tuned(self._tools, config)
        self._admission.change(limits)
        self._poller.pace = pace_of(config)
        self._poller.follow(limits.queues)

    async def _register_again(self, queues: list[QueueRef]) -> None:
        if not self._name:
            msg = "the agent has not registered yet; reload it when it has"
            raise ConfigError(msg)
        try:
            self._name = await self._tools.presence.follow(queues)
        except (AgentUnfit, Unavailable) as error:
            msg = f"the queues stay as they were: {error}"
            raise ConfigError(msg) from error

    def _limits(self, config: LaunchConfig) -> Limits:
        return limits_of(config, entity=self._entity, project=LAUNCH_PROJECT)

    def _state(self) -> str:
        if self._stopping.begun.is_set():
            return "stopping"
        return "polling" if self._name else "starting"

    def _ref(self, queue: str) -> QueueRef:
        return QueueRef(self._entity, LAUNCH_PROJECT, queue)

    def _polled(self, queue: str) -> QueueRef:
        ref = self._ref(queue)
        if ref not in self._admission.limits.queues:
            polled = ", ".join(sorted(ref.name for ref in self._admission.limits.queues))
            msg = f"this agent does not poll a queue {queue!r}; it polls {polled}"
            raise ConfigError(msg)
        return ref

    async def _audit(self) -> None:
        """Compare slots with items now and then; a difference is mended and shown."""
        while True:
            await anyio.sleep(AUDIT_SECONDS)
            wrong = self._tools.table.audit()
            if wrong:
                self._drift += wrong
                log.error("slots were wrongly counted; counted anew", items=wrong)

    async def _adopt(self) -> None:
        for number, tracked in enumerate(await self._tools.table.adopt(), start=1):
            phase = tracked.entry.phase.value
            log.info("item adopted", item=tracked.item.id, run=tracked.item.run_id, phase=phase)
            self._start_journey(tracked)
            if number % ADOPTED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        if self._journeys is not None:
            self._journeys.start_soon(self._guarded, self._recovery.run, name="recovery")
        await self._stopping.begun.unless_set(self._recovery.first_look)

    async def _registered(self) -> bool:
        """Whether the agent may poll; that it has to wait for that is said soon."""
        say = partial(log.warning, "waiting for the service", address=self._tools.base_url)
        with said_when_slow(say, after_seconds=SLOW_SECONDS):
            return await self._register()

    async def _register(self) -> bool:
        """As `_registered`; an outage of the service is waited out."""
        while not self._stopping.begun.is_set():
            try:
                name = await self._stopping.begun.unless_set(self._tools.presence.register)
            except Unavailable as error:
                log.warning("cannot register yet", reason=str(error))
                with anyio.move_on_after(self._tools.retry_seconds):
                    await self._stopping.begun.wait()
            except AgentUnfit as error:
                self._become_unfit(error)
            else:
                if name is None:
                    break
                self._name = name
                queues = [str(ref) for ref in self._admission.limits.queues]
                log.info("agent registered", agent=self._name, queues=queues)
                return True
        return False

    async def _poll(self) -> None:
        async with anyio.create_task_group() as pollers:
            pollers.start_soon(self._guarded, self._poller.run, name="poller")
            await self._stopping.begun.wait()
            pollers.cancel_scope.cancel()

    def _start_journey(self, tracked: Tracked) -> None:
        if self._journeys is None:
            msg = "journeys start after the agent"
            raise RuntimeError(msg)
        if tracked.item.spec.resource in self._tools.targets:
            self._needed.add(tracked.item.spec.resource)
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

    async def _serve(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Background work; when it breaks, it costs the others nothing."""
        while True:
            try:
                await work()
            except Exception:
                log.exception("background work broke; it begins again", work=name)
            await anyio.sleep(self._tools.retry_seconds)

    def _become_unfit(self, error: AgentUnfit) -> None:
        log.error("agent unfit", reason=str(error))
        self._unfit = self._unfit or error
        self.stop_polling("the agent is unfit")
        self._stopping.hurry()
