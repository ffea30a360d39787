"""Report: tell the queue how the item ended, then clean up. Repeated until it has been told."""

import structlog

from launch_async.agent.insist import insist, pause_after
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Tools
from launch_async.domain.errors import ItemError, Unavailable
from launch_async.domain.outcome import Outcome
from launch_async.domain.phase import Phase

CLEAN_UP_TRIES = 5

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def report(tracked: Tracked, outcome: Outcome, tools: Tools) -> None:
    """After this the service knows and nothing is left on the backend; survives any outage."""
    await tools.table.move(tracked, Phase.REPORTING, outcome=outcome)
    if outcome.failed:
        log.warning("item failed", reason=outcome.reason, message=outcome.message.split("\n")[0])
        await _tell(tracked, outcome, tools)
    await _clean_up(tracked, tools)


async def _tell(tracked: Tracked, outcome: Outcome, tools: Tools) -> None:
    files = await _upload(tracked, outcome, tools)
    await insist(
        lambda: tools.queue.fail(tracked.item, outcome, files=files),
        doing="waiting to report",
        tracked=tracked,
        tools=tools,
    )


async def _clean_up(tracked: Tracked, tools: Tools) -> None:
    target = tools.targets.get(tracked.item.spec.resource)
    if target is None:
        return
    handle = tracked.entry.handle
    for _ in range(CLEAN_UP_TRIES):
        try:
            if handle is None:
                await target.builder.discard(tracked.item)
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


async def _upload(tracked: Tracked, outcome: Outcome, tools: Tools) -> list[str]:
    """The error file's path in the agent's hidden run; none when it cannot be uploaded."""
    path = f"{tracked.item.id}/error/error.log"
    content = error_file(tracked, outcome).encode()
    try:
        await insist(
            lambda: tools.presence.upload(path, content),
            doing="uploading the error file",
            tracked=tracked,
            tools=tools,
            within_seconds=tools.upload_seconds,
        )
    except Unavailable as error:
        log.warning("error file not uploaded", reason=str(error))
        return []
    return [path]


def error_file(tracked: Tracked, outcome: Outcome) -> str:
    """What the item's user finds behind the message: facts first, then the log's last lines."""
    item = tracked.item
    facts = {
        "item": item.id,
        "queue": item.queue,
        "run": item.run,
        "job": item.spec.job or item.spec.image,
        "stage": outcome.stage,
        "reason": outcome.reason,
        "exit code": outcome.exit_code,
    }
    lines = [f"{name}: {value}" for name, value in facts.items() if value is not None]
    lines += ["", outcome.message.split(". Last lines of its log:")[0]]
    if outcome.log_tail:
        lines += ["", f"last {len(outcome.log_tail)} lines of the log:", *outcome.log_tail]
    return "\n".join(lines) + "\n"
