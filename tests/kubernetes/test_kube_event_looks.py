"""How often events are asked for: some of many runs, and nobody waits for it."""

import json
from types import SimpleNamespace
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from launch_async.adapters.runners.kubernetes.event_looks import EventLooks
from launch_async.adapters.runners.kubernetes.spots import ClusterKey
from launch_async.adapters.runners.kubernetes.watches import Station

pytestmark = pytest.mark.anyio

TOLD = {"items": [{"reason": "FailedCreate", "type": "Warning", "message": "exceeded quota"}]}


class Asked:
    """An API server that counts."""

    def __init__(self) -> None:
        self.times = 0

    async def get(self, path: str, params: Any) -> bytes:
        del path, params
        self.times += 1
        await anyio.lowlevel.checkpoint()
        return json.dumps(TOLD).encode()


def station_of(api: Asked, context: str) -> Station:
    cluster = SimpleNamespace(key=ClusterKey(context=context), api=api)
    station = SimpleNamespace(
        cluster=cluster,
        spot=SimpleNamespace(namespace="team"),
        pods=SimpleNamespace(there=lambda item: ()),
    )
    return cast("Station", station)


async def test_thousands_that_wait_are_asked_about_by_turns_and_none_waits_for_its_own() -> None:
    looks, api, other = EventLooks(), Asked(), Asked()
    crowd, alone = station_of(api, "crowd"), station_of(other, "alone")
    told = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:

            async def ask(number: int) -> None:
                told.append(await looks.begin().of(crowd, f"item-{number}", f"uid-{number}"))

            for number in range(2000):
                tasks.start_soon(ask, number)
        [event] = await looks.begin().of(alone, "item", "uid")
    answered = [events for events in told if events]
    assert 20 <= api.times == len(answered) <= 26
    assert len(told) == 2000
    assert event.message == "exceeded quota"


async def test_who_is_not_asked_about_again_keeps_what_was_told() -> None:
    looks, api = EventLooks(), Asked()
    station = station_of(api, "")
    run = looks.begin()
    first = await run.of(station, "item", "uid")
    while await looks.of(station, "other", "uid-2") is not None:
        pass
    asked = api.times
    assert await run.of(station, "item", "uid") == first
    assert api.times == asked
