"""What a pop costs: it reads the front of an index, however many items wait behind it."""

import re
from typing import Any

import pytest
from launch_harness import Launch
from server_harness import Http, Server
from sqlalchemy import event, insert, text

from launch_async.server.leases import pop
from launch_async.server.store.tables.queues import queue_items

pytestmark = pytest.mark.anyio

WAITING = 10_000
INDEX = "ix_queue_items_queue_id_priority_id"


async def wait_in_line(server: Server, count: int) -> None:
    """Let items of every priority wait, and as many in another queue."""
    row = {
        "state": "PENDING",
        "run_spec": "{}",
        "created_at": server.request().now(),
        "run_entity": "tester",
        "run_project_folded": "p",
        "file_paths": "[]",
    }
    rows = [{**row, "queue_id": 1 + n % 2, "priority": n // 2 % 4} for n in range(2 * count)]
    async with server.services.store.write() as connection:
        await connection.execute(insert(queue_items), rows)


async def plan_of_a_pop(server: Server, explain: str, *before: str) -> str:
    """Return the database's own words on how it finds the next item."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    async with server.services.store.write() as connection:
        for statement in before:
            await connection.execute(text(statement))
        event.listen(connection.sync_connection, "before_cursor_execute", note)
        await pop(connection, queue_id=1, agent_id=None, now=server.request().now())
        (statement, parameters) = next(each for each in seen if "UPDATE queue_items" in each[0])
        rows = await connection.exec_driver_sql(f"{explain} {statement}", parameters)
        return "\n".join(str(row[-1]) for row in rows)


async def test_a_pop_reads_an_index_in_its_order_and_no_more(server: Server, http: Http) -> None:
    launch = Launch(http)
    await launch.queue("q")
    await launch.queue("other")
    await wait_in_line(server, WAITING)
    for _ in range(20):
        assert await launch.popped_id()
    if server.services.store.dialect == "sqlite":
        plan = await plan_of_a_pop(server, "EXPLAIN QUERY PLAN")
        assert f"SEARCH queue_items USING INDEX {INDEX} (queue_id=?)" in plan
        assert "SCAN" not in plan
        assert "B-TREE" not in plan
        return
    explain = "EXPLAIN (ANALYZE, BUFFERS, SUMMARY OFF, TIMING OFF)"
    generic = "SET LOCAL plan_cache_mode = force_generic_plan"
    for before in ((), (generic,), ("ANALYZE queue_items",), ("ANALYZE queue_items", generic)):
        plan = await plan_of_a_pop(server, explain, *before)
        assert f"Index Scan using {INDEX} on queue_items" in plan
        assert "Sort" not in plan
        assert "Seq Scan" not in plan
        pages = [int(count) for count in re.findall(r"shared hit=(\d+)", plan)]
        assert max(pages) < 100, plan
