"""Builders that make one thing for each item wait here for their turn."""

import anyio

from launch_async.domain.item import Item
from launch_async.ports.build import Builder, BuildOrder
from launch_async.ports.runner import Work


class Slotted:
    """A `Builder` whose builds take one of the agent's build slots each."""

    def __init__(self, builder: Builder, slots: anyio.CapacityLimiter) -> None:
        self._builder = builder
        self._slots = slots

    async def build(self, order: BuildOrder) -> Work:
        """As `Builder.build`, when there is a slot."""
        order.progress.say("waiting for a build slot")
        async with self._slots:
            order.progress.say("building")
            return await self._builder.build(order)

    async def discard(self, item: Item) -> None:
        """As `Builder.discard`."""
        await self._builder.discard(item)
