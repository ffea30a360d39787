"""What counts as alive and as ready."""

import pytest

from launch_async.admin.health import liveness, readiness
from launch_async.kit.lag import LoopLag
from launch_async.ports.status import AgentView
from operated_agent import OperatedAgent, a_backend, a_queue, a_view, an_item, endpoint, get

pytestmark = pytest.mark.anyio


def complaints(view: AgentView) -> dict[str, str]:
    return {name: text for name, text in readiness(view, LoopLag()).items() if text}


def test_a_polling_agent_is_ready():
    assert complaints(a_view()) == {}


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"name": ""}, "registered"),
        ({"state": "stopping"}, "polling"),
        ({"recovered": False}, "recovery"),
        ({"unfit": "the disk is full"}, "store"),
        ({"seconds_since_beat": 61.0}, "heartbeat"),
        ({"seconds_since_beat": None}, "heartbeat"),
        ({"queues": (a_queue(), a_queue("b", seconds_since_poll=31.0))}, "queue/b"),
        ({"queues": (a_queue(), a_queue("b", seconds_since_poll=None))}, "queue/b"),
    ],
)
def test_one_thing_that_is_not_well_is_named_alone(changes: dict[str, object], check: str):
    assert list(complaints(a_view(**changes))) == [check]


@pytest.mark.parametrize(
    "queue",
    [
        a_queue(missing=("max_jobs is 1 and 1 are in use",), seconds_since_poll=3600.0),
        a_queue(missing=("the queue is paused",), seconds_since_poll=None),
        a_queue(interval_seconds=60.0, seconds_since_poll=100.0),
    ],
    ids=["no room", "paused", "rests for longer"],
)
def test_a_queue_that_has_no_reason_to_be_polled_is_well(queue: object):
    assert complaints(a_view(queues=(queue,))) == {}


def test_a_backend_whose_breaker_is_open_is_named():
    backends = (a_backend("docker", breaker=1), a_backend("calls", breaker=2), a_backend("files"))
    checks = readiness(a_view(), LoopLag(), backends)
    assert [name for name, text in checks.items() if text] == ["backend/docker"]


def test_a_backend_that_no_item_has_asked_for_may_be_away():
    backends = (a_backend("docker", breaker=1, needed=False),)
    assert not any(readiness(a_view(), LoopLag(), backends).values())


def test_only_a_late_loop_is_not_alive():
    lag = LoopLag()
    assert not any(liveness(lag).values())
    lag.seconds = 6.0
    assert liveness(lag)["loop"] == "timers run 6.0 s late"


async def test_probes_answer_for_machines_and_for_people():
    agent = OperatedAgent()
    async with endpoint(agent) as session:
        assert await get(session, "/readyz") == (200, "ok\n")
        status, text = await get(session, "/readyz?verbose")
        assert (status, "[+]queue/q ok" in text) == (200, True)
        agent.now = a_view(name="", state="starting", seconds_since_beat=None)
        status, text = await get(session, "/readyz")
        assert status == 503
        assert "[-]registered not registered yet" in text
        assert (await get(session, "/readyz?exclude=registered"))[0] == 503
        assert (await get(session, "/readyz?exclude=registered&exclude=heartbeat"))[0] == 200
        for alive in ("/livez", "/healthz"):
            assert (await get(session, alive))[0] == 200


async def test_a_probe_does_not_list_the_items():
    agent = OperatedAgent()
    agent.now = a_view(items=(an_item(1),))
    async with endpoint(agent) as session:
        await get(session, "/readyz")
        await get(session, "/metrics")
    assert set(agent.calls) == {("view", "0")}
