"""Passes what comes on one connection to a server, and back."""

import anyio
import anyio.abc
from yarl import URL


async def relay(client: anyio.abc.AnyByteStream, url: str) -> None:
    """Until one of both sides has said all."""
    to = URL(url)
    try:
        server = await anyio.connect_tcp(to.host or "", to.port or 0)
    except OSError:  # it has ended
        await client.aclose()
        return
    async with client, server, anyio.create_task_group() as tasks:
        tasks.start_soon(_pump, client, server)
        await _pump(server, client)
        tasks.cancel_scope.cancel()


async def _pump(source: anyio.abc.AnyByteStream, sink: anyio.abc.AnyByteStream) -> None:
    try:
        async for piece in source:
            await sink.send(piece)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass
