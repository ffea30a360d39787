"""What an agent refuses of an item: another resource type, secure_mode, a missing key."""

from collections import deque
from typing import Any

import pytest
from fakes import World, an_item, running, until
from structlog.testing import capture_logs

from launch_async.domain.errors import Reason, Unavailable
from launch_async.domain.ids import ItemId, QueueRef, RunId
from launch_async.domain.policy import QueueDefaults
from launch_async.domain.secret import Secret
from launch_async.domain.spec import Overrides

pytestmark = pytest.mark.anyio


class FakeConfigs:
    """Answers as planted; the last one for ever."""

    def __init__(self, *answers: QueueDefaults | Unavailable | None) -> None:
        self.answers = deque(answers)
        self.fresh: list[bool] = []

    async def defaults_of(self, queue: QueueRef, *, fresh: bool = False) -> QueueDefaults | None:
        self.fresh.append(fresh)
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Unavailable):
            raise answer
        return answer


def defaults(resource: str = "fake", **args: Any) -> QueueDefaults:
    return QueueDefaults(resource=resource, args=args)


async def end_of(world: World, **spec: Any) -> tuple[Reason, str] | None:
    """Why the item failed; None when it was launched."""
    world.service.push(an_item(1, **spec))
    async with running(world.agent()):
        await until(lambda: world.service.failed or world.runner.orders)
    failed = world.service.failed.get(ItemId("q-1"))
    if failed is None:
        return None
    assert failed[0].reason is not None
    assert not world.runner.orders
    return failed[0].reason, failed[0].message


async def test_an_item_of_another_resource_type_than_its_queues_is_refused():
    world = World()
    world.configs = FakeConfigs(defaults("local-container"))
    end = await end_of(world)
    assert end is not None
    assert end[0] is Reason.FORBIDDEN
    assert "its queue q is of the type local-container" in end[1]


async def test_an_item_of_its_queues_type_is_launched():
    world = World()
    world.configs = FakeConfigs(defaults())
    assert await end_of(world) is None


async def test_secure_mode_trusts_the_queues_config():
    world = World()
    world.secure_mode = True
    world.configs = FakeConfigs(defaults(hostNetwork=True))
    assert await end_of(world, resource_args={"hostNetwork": True}) is None


async def test_secure_mode_refuses_what_the_item_adds_and_names_it():
    world = World()
    world.secure_mode = True
    world.configs = FakeConfigs(defaults())
    end = await end_of(world, resource_args={"hostNetwork": True})
    assert end is not None
    assert end[0] is Reason.FORBIDDEN
    assert "only the queue's config may set `hostNetwork`" in end[1]


async def test_without_secure_mode_the_item_may_add_it():
    world = World()
    world.configs = FakeConfigs(defaults())
    assert await end_of(world, resource_args={"hostNetwork": True}) is None


async def test_before_a_refusal_the_queues_config_is_read_anew():
    world = World()
    world.secure_mode = True
    configs = FakeConfigs(defaults(), defaults(hostNetwork=True))
    world.configs = configs
    assert await end_of(world, resource_args={"hostNetwork": True}) is None
    assert configs.fresh == [False, True]


async def test_a_config_that_is_not_shown_makes_all_the_items_own():
    world = World()
    world.secure_mode = True
    world.configs = FakeConfigs(None)
    end = await end_of(world, resource_args={"hostNetwork": True})
    assert end is not None
    assert end[0] is Reason.FORBIDDEN


async def test_an_outage_delays_items_in_secure_mode_alone():
    for secure in (True, False):
        world = World()
        world.secure_mode = secure
        world.configs = FakeConfigs(Unavailable("away"))
        end = await end_of(world)
        assert (end is not None and end[0]) == (secure and Reason.BACKEND_UNAVAILABLE)


async def test_what_opens_a_cluster_needs_the_queues_leave_in_any_mode():
    pod = {"spec": {"serviceAccountName": "admin"}}
    for queue, reason in ((pod, None), ({}, Reason.FORBIDDEN), (None, Reason.FORBIDDEN)):
        world = World()
        world.resource = "kubernetes"
        known = None if queue is None else defaults("kubernetes", **queue)
        world.configs = FakeConfigs(known)
        end = await end_of(world, resource="kubernetes", resource_args=pod)
        assert (end and end[0]) == reason
        if end is not None:
            assert "only the queue's config may set `spec.serviceAccountName`" in end[1]
            assert ("does not show" in end[1]) == (queue is None)


async def test_an_outage_delays_items_that_would_open_a_cluster():
    for args, reason in (({"a": 1}, None), ({"context": "x"}, Reason.BACKEND_UNAVAILABLE)):
        world = World()
        world.resource = "kubernetes"
        world.configs = FakeConfigs(Unavailable("away"))
        end = await end_of(world, resource="kubernetes", resource_args=args)
        assert (end and end[0]) == reason


async def test_an_entry_point_override_is_refused_in_secure_mode():
    world = World()
    world.secure_mode = True
    end = await end_of(world, overrides=Overrides(entry_point=("sh",)))
    assert end is not None
    assert end[0] is Reason.FORBIDDEN
    assert "`overrides.entry_point`" in end[1]


async def test_a_run_with_a_key_of_its_own_gets_it_without_a_warning():
    world = World()
    world.require_run_key = True
    with capture_logs() as logs:
        assert await end_of(world, api_key=Secret("r" * 40)) is None
    assert world.runner.orders[RunId("runq1")].secrets["WANDB_API_KEY"] == Secret("r" * 40)
    assert not [line for line in logs if "no keys of their own" in line["event"]]


async def test_the_agents_own_key_is_handed_over_with_one_warning_in_a_life():
    world = World()
    world.service.push(*[an_item(number) for number in range(5)])
    with capture_logs() as logs:
        async with running(world.agent()):
            await until(lambda: len(world.runner.orders) == 5)
    assert len([line for line in logs if "no keys of their own" in line["event"]]) == 1


async def test_an_agent_that_requires_run_keys_fails_items_without_one():
    world = World()
    world.require_run_key = True
    end = await end_of(world)
    assert end is not None
    assert end[0] is Reason.NO_RUN_KEY
    assert "agent.require_run_key" in end[1]


@pytest.mark.parametrize("asked", [(), ("sh",)])
async def test_a_runner_is_told_whether_the_item_gave_the_entry_point(asked: tuple[str, ...]):
    world = World()
    assert await end_of(world, overrides=Overrides(entry_point=asked)) is None
    order = world.runner.orders[RunId("runq1")]
    assert (order.work.entrypoint, order.entrypoint_asked) == (asked or ("run",), bool(asked))


async def test_macros_have_the_allowed_variables_and_no_others():
    world = World()
    world.macros = {"REGION": "eu", "run_id": "not-this"}
    args = {"a": "${REGION} ${HOME} ${run_id}"}
    assert await end_of(world, resource_args=args) is None
    assert world.runner.orders[RunId("runq1")].resource_args == {"a": "eu ${HOME} runq1"}
