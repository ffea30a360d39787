"""What an agent that stands by answers: it lives, is not ready, and is no target that is down."""

import aiohttp
import pytest

from launch_async.admin.standby import Standby, standing_by

pytestmark = pytest.mark.anyio


async def test_it_lives_is_not_ready_and_has_metrics():
    standby = Standby()
    standby.wait("other holds the Lease")
    async with (
        standing_by(standby, host="127.0.0.1", port=0) as url,
        aiohttp.ClientSession(url) as client,
    ):
        said = {}
        for path in ("/livez", "/readyz", "/status", "/metrics"):
            async with client.get(path) as answer:
                said[path] = (answer.status, await answer.text())
    assert said["/livez"] == (200, "ok\n")
    assert said["/readyz"] == said["/status"] == (503, "[-]standby other holds the Lease\n")
    assert said["/metrics"][0] == 200
    assert "launch_agent_standby 1.0" in said["/metrics"][1]
    assert "process_start_time_seconds" in said["/metrics"][1]
    assert "launch_agent_max_jobs" not in said["/metrics"][1]
