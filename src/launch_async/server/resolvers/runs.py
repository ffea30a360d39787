"""Runs as clients read them."""

from collections.abc import Sequence
from typing import Any

import msgspec
from ariadne import ObjectType, SchemaBindable
from sqlalchemy import Table

from launch_async.server import console, history, history_samples, run_list
from launch_async.server.context import Info, request_of
from launch_async.server.errors import ApiError
from launch_async.server.ids import encode_run_id
from launch_async.server.json_text import read_json
from launch_async.server.projects import ProjectRow
from launch_async.server.resolvers.projects import connection_of, page_size, page_start
from launch_async.server.run_rows import RunRow, load_run
from launch_async.server.runs import alerts_of
from launch_async.server.store.tables.runs import run_events, run_history

MAX_CONSOLE_PAGE = 10_000
MAX_HISTORY_PAGE = 10_000
DEFAULT_CONSOLE_PAGE = 1000

project = ObjectType("Project")
run = ObjectType("Run")
BINDABLES: list[SchemaBindable] = [project, run]

Json = dict[str, Any]

ALIASES = {
    "group": "group_name",
    "commit": "git_commit",
    "exitcode": "exit_code",
    "summaryMetrics": "summary",
    "historyLineCount": "history_lines",
    "eventsLineCount": "event_lines",
    "logLineCount": "console_lines",
    "stopped": "stop_requested",
    "shouldStop": "stop_requested",
    "updatedAt": "heartbeat_at",
}
for field, attribute in ALIASES.items():
    run.set_alias(field, attribute)


@project.field("run")
@project.field("bucket")
async def resolve_run(row: ProjectRow, info: Info, name: str, **_ignored: Any) -> RunRow | None:
    """Return a run by name; null when there is none."""
    async with request_of(info).store.read() as connection:
        return await load_run(connection, row, name)


@project.field("runs")
async def resolve_runs(
    row: ProjectRow,
    info: Info,
    *,
    filters: str | None = None,
    order: str | None = None,
    after: str | None = None,
    first: int | None = None,
    before: str | None = None,
    last: int | None = None,
) -> Json:
    """Return a page of a project's runs."""
    if before is not None or last is not None:
        raise ApiError("runs are paged forward only: use after and first")
    size = page_size(first)
    async with request_of(info).store.read() as connection:
        found = await run_list.list_runs(
            connection,
            row,
            filters=filters,
            order=order,
            after=after,
            limit=size + 1,
        )
    shown = found[:size]

    async def total_count(_info: Info) -> int:
        async with request_of(info).store.read() as connection:
            return await run_list.count_runs(connection, row, filters)

    return connection_of(
        [listed.run for listed in shown],
        [listed.cursor for listed in shown],
        has_next=len(found) > size,
        total_count=total_count,
    )


@project.field("runCount")
async def resolve_run_count(row: ProjectRow, info: Info, filters: str | None = None) -> int:
    """Return how many runs match."""
    async with request_of(info).store.read() as connection:
        return await run_list.count_runs(connection, row, filters)


@run.field("id")
def resolve_id(row: RunRow, _info: Info) -> str:
    """Return the storage id, which clients can also build."""
    return encode_run_id(row.name, row.project.name, row.project.entity_name)


@run.field("projectId")
def resolve_project_id(row: RunRow, _info: Info) -> str:
    """Return the project's row id; the client reads it as a number."""
    return str(row.project.id)


@run.field("tags")
def resolve_tags(row: RunRow, _info: Info) -> list[str]:
    """Return the tags."""
    return msgspec.json.decode(row.tags, type=list[str])


@run.field("running")
def resolve_running(row: RunRow, _info: Info) -> bool:
    """Tell whether the run goes on."""
    return row.state == "running"


@run.field("failed")
def resolve_failed(row: RunRow, _info: Info) -> bool:
    """Tell whether the run ended badly."""
    return row.state in {"failed", "crashed"}


@run.field("readOnly")
def resolve_read_only(_row: RunRow, _info: Info) -> bool:
    """A member may always write."""
    return False


@run.field("wandbConfig")
def resolve_wandb_config(row: RunRow, _info: Info, keys: Sequence[str] | None = None) -> str:
    """Return the client's own part of the config, or only these keys of it."""
    config = read_json(row.config)
    own = config.get("_wandb")
    own = own.get("value") if isinstance(own, dict) else None
    own = own if isinstance(own, dict) else {}
    if keys is not None:
        own = {key: own[key] for key in keys if key in own}
    return msgspec.json.encode(own).decode()


@run.field("systemMetrics")
async def resolve_system_metrics(row: RunRow, info: Info) -> str:
    """Return the last event: the machine's newest figures."""
    lines = await _tail(info, row, run_events)
    return lines[0] if lines else "{}"


@run.field("historyKeys")
def resolve_history_keys(row: RunRow, _info: Info) -> Json:
    """Return what is known of the keys that were logged."""
    return history.history_keys(row.history_keys, row.last_step)


@run.field("historyTail")
async def resolve_history_tail(row: RunRow, info: Info) -> str:
    """Return a JSON list with the last history line; a resumed run goes on from it."""
    return msgspec.json.encode(await _tail(info, row, run_history)).decode()


@run.field("eventsTail")
async def resolve_events_tail(row: RunRow, info: Info) -> str:
    """Return a JSON list with the last event."""
    return msgspec.json.encode(await _tail(info, row, run_events)).decode()


@run.field("history")
async def resolve_history(
    row: RunRow,
    info: Info,
    *,
    min_step: int | None = None,
    max_step: int | None = None,
    samples: int | None = None,
) -> list[str]:
    """Return a page of lines by step, or without steps lines spread over the run."""
    async with request_of(info).store.read() as connection:
        if min_step is None and max_step is None:
            wanted = history_samples.DEFAULT_SAMPLES if samples is None else samples
            return await history_samples.evenly(connection, run_history, row.id, samples=wanted)
        return await history.page(
            connection,
            row.id,
            min_step=min_step,
            max_step=max_step,
            limit=_page_limit(samples, min_step, max_step),
        )


@run.field("events")
async def resolve_events(row: RunRow, info: Info, samples: int | None = None) -> list[str]:
    """Return events spread over the run."""
    wanted = history_samples.DEFAULT_SAMPLES if samples is None else samples
    async with request_of(info).store.read() as connection:
        return await history_samples.evenly(connection, run_events, row.id, samples=wanted)


@run.field("sampledHistory")
async def resolve_sampled_history(
    row: RunRow, info: Info, specs: Sequence[str]
) -> list[list[Json]]:
    """Return the points of each spec."""
    if len(specs) > history_samples.MAX_SPECS:
        raise ApiError(f"at most {history_samples.MAX_SPECS} specs per request, not {len(specs)}")
    wanted = [history_samples.parse_spec(spec) for spec in specs]
    found: list[list[Json]] = []
    for spec in wanted:  # each by itself, so that a query that takes too long can be ended between
        async with request_of(info).store.read() as connection:
            found.append(await history_samples.sampled(connection, row.id, spec))
    return found


@run.field("parquetHistory")
async def resolve_parquet_history(row: RunRow, info: Info, live_keys: Sequence[str]) -> Json:
    """Say that nothing is in Parquet files: everything from the first step on is live."""
    async with request_of(info).store.read() as connection:
        first = await history.page(connection, row.id, min_step=0, max_step=None, limit=1)
    points = [history.parse_line(line).metrics for line in first]
    live = [{key: point[key] for key in live_keys if key in point} for point in points]
    return {"parquet_urls": [], "live_data": live}


@run.field("alerts")
async def resolve_alerts(row: RunRow, info: Info, first: int | None = None) -> list[Json]:
    """Return what the run's script told with `run.alert()`."""
    async with request_of(info).store.read() as connection:
        return await alerts_of(connection, row.id, limit=page_size(first))


@run.field("logLines")
async def resolve_log_lines(
    row: RunRow,
    info: Info,
    *,
    first: int | None = None,
    after: str | None = None,
    last: int | None = None,
    **_ignored: Any,
) -> Json:
    """Return console lines: the newest `last`, or a page from the oldest on."""
    async with request_of(info).store.read() as connection:
        if last is not None:
            size = max(0, min(last, MAX_CONSOLE_PAGE))
            lines = await console.read_tail(connection, row.id, last=size)
            return connection_of(lines, [str(line.number) for line in lines], has_next=False)
        size = max(0, min(DEFAULT_CONSOLE_PAGE if first is None else first, MAX_CONSOLE_PAGE))
        start = page_start(after) if after else -1
        found = await console.read_page(connection, row.id, after=start, limit=size + 1)
    lines = found[:size]
    return connection_of(lines, [str(line.number) for line in lines], has_next=len(found) > size)


def _page_limit(samples: int | None, min_step: int | None, max_step: int | None) -> int:
    """Return how many lines a page has at most.

    Who asks for as many lines as there are steps wants them all: some steps may have two.
    """
    if samples is None:
        return MAX_HISTORY_PAGE
    whole = min_step is not None and max_step is not None and 0 < max_step - min_step <= samples
    return MAX_HISTORY_PAGE if whole else max(0, min(samples, MAX_HISTORY_PAGE))


async def _tail(info: Info, row: RunRow, table: Table) -> list[str]:
    async with request_of(info).store.read() as connection:
        return await history.tail(connection, table, row.id)
