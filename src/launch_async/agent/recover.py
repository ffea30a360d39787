"""Recover: what a backend has and the journal does not, judged by what the service says.

```
find ──> open here: not our business
     ──> its item is held         ──> taken up: watched, judged, reported, removed
     ──> it and its item ended    ──> removed, as its report would have done
     ──> anything else            ──> an orphan: said, shown and, if so configured, ended
```

Every target is looked at when the agent starts, and now and then: one list each time. Polling waits
for the first looks, so that limits count what runs; not for a backend that is away and has no open
item, as nothing is launched there before a look at it is answered.
"""

from collections import Counter
from collections.abc import Callable, KeysView

import anyio
import msgspec
import structlog

from launch_async.agent.launch import found_runs
from launch_async.agent.origin import item_of
from launch_async.agent.table import Table, Tracked
from launch_async.agent.tools import Target, Tools
from launch_async.agent.watch import KILL_AFTER_SECONDS
from launch_async.domain.errors import LaunchError, Reason, Stage
from launch_async.domain.ids import ItemId, RunId
from launch_async.domain.outcome import Outcome
from launch_async.domain.phase import Phase
from launch_async.domain.run import FoundRun, Origin, Trace
from launch_async.kit.clock import moment_at
from launch_async.ports.claims import Claim
from launch_async.ports.journal import Entry

SWEEP_SECONDS = 300.0
"""Between two looks at a target; an orphan is ended at the first one after its grace."""
FIRST_LOOK_SECONDS = 15.0
"""How long the first looks may keep an agent from polling: a backend that is away must not."""
_LOST = Outcome(
    failed=True,
    message="the agent lost its journal before the run began, and with it what to run. Launch the "
    "item again",
    stage=Stage.AGENT,
    reason=Reason.LAUNCH_FAILED,
)

Key = tuple[str, RunId, ItemId]

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """A run of this agent's that no open item is about."""

    run_id: RunId
    item_id: ItemId
    why: str
    since: float
    """Moment of the loop's clock at which it was first seen."""


class Recovery:
    """Takes up lost runs and knows the orphans; `run` once in a life of the agent."""

    def __init__(self, tools: Tools, *, hand_over: Callable[[Tracked], None]) -> None:
        self._tools = tools
        self._hand_over = hand_over
        self._unlooked = set(tools.targets)
        self._looked = anyio.Event()
        self._seen: set[Key] = set()
        self.orphans: dict[Key, Orphan] = {}
        self.counts: Counter[str] = Counter()
        """Lost runs of this life by what was done: `recovered`, `removed`, `ended`."""

    async def first_look(self) -> None:
        """Return when polling need not wait for any target any more, or has waited long enough."""
        with anyio.move_on_after(FIRST_LOOK_SECONDS):
            await self._looked.wait()

    async def run(self) -> None:
        """Look at every target now and from time to time, until cancelled."""
        async with anyio.create_task_group() as tasks:
            for resource, target in self._tools.targets.items():
                tasks.start_soon(self._sweep, resource, target, name=f"recovery {resource}")

    async def _sweep(self, resource: str, target: Target) -> None:
        tools = self._tools
        first, sick = True, False
        while True:
            try:
                await self.look(resource, target)
            except LaunchError as error:
                if not sick:
                    log.warning("cannot look for lost runs", target=resource, reason=str(error))
                sick = True
            else:
                sick = False
                first = False
                self._wait_no_more(resource)
            again = max(1.0, min(SWEEP_SECONDS, tools.orphan_grace_seconds))
            await anyio.sleep(tools.retry_seconds if first else again)

    async def look(self, resource: str, target: Target) -> None:
        """Settle what this target has and the table does not.

        Raises:
            Unavailable: the backend or the service did not answer.
        """
        table = self._tools.table
        try:
            found = await found_runs(target, self._tools)
        except LaunchError:
            if all(tracked.item.spec.resource != resource for tracked in table):
                self._wait_no_more(resource)
            raise
        strangers = {_key(one): one for one in found if not _is_open(one, table)}
        origins = [one.origin for one in strangers.values() if one.origin is not None]
        claims = await self._tools.claims.look_up_items(origins) if origins else {}
        self._forget(target.runner.name, keep=strangers.keys())
        taken_up: list[Tracked] = []
        try:
            for key, one in strangers.items():
                if _is_open(one, table):  # popped again meanwhile
                    continue
                origin = one.origin
                if origin is None:
                    await self._orphan(one, "its labels are those of an earlier version", target)
                elif origin.life == self._tools.life and key not in self._seen:
                    self._seen.add(key)  # may have ended since the look: once more, later
                else:
                    taken_up += await self._settle(one, origin, claims.get(key[2]), resource)
        finally:
            for tracked in taken_up:  # together: who looks at the same time shares lists
                self._hand_over(tracked)

    def holds_runs(self, backend: str) -> bool:
        """Whether it has runs that no open item is about."""
        return any(key[0] == backend for key in self.orphans)

    def _wait_no_more(self, resource: str) -> None:
        self._unlooked.discard(resource)
        if not self._unlooked:
            self._looked.set()

    async def _settle(
        self, one: FoundRun, origin: Origin, claim: Claim | None, resource: str
    ) -> list[Tracked]:
        """What was taken up: one item or none."""
        target = self._tools.targets[resource]
        if origin.service != self._tools.base_url:
            await self._orphan(one, f"it was launched for {origin.service}", target, spare=True)
        elif claim is Claim.HELD:
            return await self._take_up(one, origin, resource)
        elif claim is Claim.ENDED and one.trace is not Trace.ALIVE:
            await self._remove(one, target)
            self.counts["removed"] += 1
        else:
            await self._orphan(one, _WHY[claim], target)
        return []

    async def _take_up(self, one: FoundRun, origin: Origin, resource: str) -> list[Tracked]:
        lost = one.trace is Trace.PREPARED
        entry = Entry(
            item=item_of(origin, resource=resource),
            phase=Phase.REPORTING if lost else Phase.RUNNING,
            handle=one.handle,
            outcome=_LOST if lost else None,
            launched=moment_at(origin.launched_at),
        )
        tracked = await self._tools.table.restore(entry)
        if tracked is None:
            return []
        self.counts["recovered"] += 1
        log.warning("item recovered", item=origin.item_id, run=origin.run.run_id)
        return [tracked]

    async def _orphan(
        self, one: FoundRun, why: str, target: Target, *, spare: bool = False
    ) -> None:
        """Say it once; after its grace end it, if that is wanted and it is not to be spared."""
        key, now, tools = _key(one), anyio.current_time(), self._tools
        orphan = self.orphans.get(key)
        who = {"item": key[2], "run": key[1], "runner": key[0]}
        if orphan is None:
            orphan = Orphan(run_id=key[1], item_id=key[2], why=why, since=now)
            self.orphans[key] = orphan
            ends = tools.end_orphans and not spare
            hint = f"ended in {tools.orphan_grace_seconds:.0f} s" if ends else _LEFT
            log.warning("orphan found", why=why, then=hint, **who)
        if spare or not tools.end_orphans or now - orphan.since < tools.orphan_grace_seconds:
            return
        await target.runner.cancel(one.handle, within_seconds=KILL_AFTER_SECONDS)
        await self._remove(one, target)
        self.counts["ended"] += 1
        log.warning("orphan ended", why=why, **who)

    async def _remove(self, one: FoundRun, target: Target) -> None:
        await target.runner.remove(one.handle)
        self.orphans.pop(_key(one), None)
        log.info("leftover removed", item=one.handle.item_id, run=one.handle.run_id)

    def _forget(self, backend: str, *, keep: KeysView[Key]) -> None:
        self._seen = {key for key in self._seen if key[0] != backend or key in keep}
        for key in [key for key in self.orphans if key[0] == backend and key not in keep]:
            del self.orphans[key]


_LEFT = "it is left alone; `orphans.action: end` ends such runs"
_WHY = {
    Claim.HELD: "",
    Claim.ENDED: "its item has ended",
    Claim.OTHERS: "its item is not this agent's any more",
    None: "the service does not know its item",
}


def _is_open(one: FoundRun, table: Table) -> bool:
    return one.handle.item_id in table


def _key(one: FoundRun) -> Key:
    return one.handle.backend, one.handle.run_id, one.handle.item_id
