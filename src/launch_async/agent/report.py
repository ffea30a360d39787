"""Report: tell the queue how the item ended, then clean up. Repeated until it has been told."""

from collections.abc import Mapping, Sequence

import anyio
import anyio.to_thread
import msgspec
import structlog

from launch_async.agent.bundle import bundle_of, read_build_log, without_log
from launch_async.agent.insist import pause_after
from launch_async.agent.launch import found_runs
from launch_async.agent.masks import masked
from launch_async.agent.requeue import requeue
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Target, Tools
from launch_async.domain.errors import ItemError, Unavailable
from launch_async.domain.outcome import Outcome
from launch_async.domain.phase import Phase

CLEAN_UP_TRIES = 5

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def report(tracked: Tracked, outcome: Outcome, tools: Tools) -> None:
    """After this the service knows and nothing is left on the backend; survives any outage."""
    said = masked(outcome.message, tracked.item, tools.api_key)
    outcome = msgspec.structs.replace(outcome, message=said)
    await tools.table.move(tracked, Phase.REPORTING, outcome=outcome)
    if outcome.again:  # its next agent finds nothing of it in its way
        await _clean_up(tracked, tools)
    if outcome.failed:
        log.warning(
            "item failed", reason=outcome.reason, message=without_log(outcome).split("\n")[0]
        )
        build_log = await anyio.to_thread.run_sync(read_build_log, tracked)
        bundle = bundle_of(tracked, outcome, tools, build_log=build_log)
        telling = _Report(tracked, outcome, tools, bundle)
        await telling.keep()
        await tools.reports.tell(telling.attempt, ended_at=telling.ended_at, rest=telling.rest)
    if not outcome.again:
        await _clean_up(tracked, tools)


class _Report:
    """One failed item's report; what an attempt has done, the next one need not do again."""

    def __init__(
        self, tracked: Tracked, outcome: Outcome, tools: Tools, bundle: Mapping[str, bytes]
    ) -> None:
        self._tracked = tracked
        self._outcome = outcome
        self._tools = tools
        self._bundle = bundle
        self._uploaded: dict[str, None] = {}
        self._patience_ends = anyio.current_time() + tools.upload_seconds
        self._sick = False
        ends = [event.at for event in tracked.entry.events if event.what == Phase.REPORTING]
        self.ended_at = ends[0] if ends else tracked.item.popped_at

    async def keep(self) -> None:
        """The bundle in the state folder; a report does not wait for it."""
        try:
            await self._tools.bundles.keep(self._tracked.item.id, self._bundle)
        except OSError as error:
            log.warning("bundle not kept", reason=str(error))

    async def attempt(self) -> None:
        """Raises `Unavailable` when it must be repeated."""
        files = await self._upload()
        known = self._tracked.entry.outcome or self._outcome
        told: Outcome | None = known
        if known.again:
            told = await requeue(self._tracked, known, self._tools, files=files)
        if told is not None:
            await self._tools.queue.fail(self._tracked.item, told, files=files)
        if self._sick:
            log.info("answered again", doing="waiting to report")

    async def rest(self, error: Unavailable) -> None:
        """An outage is logged once."""
        if not self._sick:
            log.warning("no answer, trying again", doing="waiting to report", reason=str(error))
        self._sick = True
        self._tracked.detail = f"waiting to report: {error}"
        await pause_after(error, self._tools)

    async def _upload(self) -> Sequence[str]:
        """Paths in the agent's hidden run; without those that it does not take for long."""
        try:
            for path, content in self._bundle.items():
                place = f"{self._tracked.item.id}/{path}"
                if place not in self._uploaded:
                    await self._tools.presence.upload(place, content)
                    self._uploaded[place] = None
        except Unavailable as error:
            if anyio.current_time() < self._patience_ends:
                raise
            log.warning("bundle not uploaded", reason=str(error))
        return list(self._uploaded)


async def _clean_up(tracked: Tracked, tools: Tools) -> None:
    target = tools.targets.get(tracked.item.spec.resource)
    if target is None:
        return
    handle = tracked.entry.handle
    for _ in range(CLEAN_UP_TRIES):
        try:
            if handle is None:
                await _discard(tracked, target, tools)
            else:
                await target.runner.remove(handle)
        except (ItemError, Unavailable, OSError) as error:
            log.warning("leftovers stay", reason=str(error))
            if not isinstance(error, Unavailable):
                return
            tracked.detail = f"cleaning up: {error}"
            await pause_after(error, tools)
        else:
            return


async def _discard(tracked: Tracked, target: Target, tools: Tools) -> None:
    """What was prepared; and what a launch that was broken off may have left."""
    if any(event.what == Phase.LAUNCHING for event in tracked.entry.events):
        for run in await found_runs(target, tools):
            if run.handle.item_id == tracked.item.id:
                await target.runner.remove(run.handle)
    await target.builder.discard(tracked.item)
