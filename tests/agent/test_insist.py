"""How long the agent waits before it asks again."""

import pytest
from fakes import World

from launch_async.agent.insist import MAX_PAUSE_SECONDS, pause_seconds
from launch_async.domain.errors import Unavailable

pytestmark = pytest.mark.anyio


async def test_a_service_that_asks_for_a_day_is_asked_again_sooner():
    tools = World().agent()._tools
    assert pause_seconds(Unavailable("busy", retry_after_seconds=86400), tools) == MAX_PAUSE_SECONDS
    assert pause_seconds(Unavailable("busy", retry_after_seconds=2), tools) == 2
