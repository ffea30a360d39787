"""Metrics for any number of scrapers: rendered once a second, however often they are asked for.

What is counted is read at one moment on the loop; to write it out takes a thread, since of hundreds
of queues it is hundreds of kilobytes.
"""

from collections.abc import Sequence

import anyio
import anyio.to_thread
from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

FRESH_SECONDS = 1.0
OPENMETRICS = "application/openmetrics-text"


class Scrapes:
    """Prometheus' text format, or OpenMetrics where that is asked for: no more than these two,
    since the rest of what a scraper says of them would be as many renderings.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        threads = anyio.CapacityLimiter(1)
        self._text = _Format("", registry, threads)
        self._openmetrics = _Format(OPENMETRICS, registry, threads)

    async def answer(self, request: web.Request) -> web.Response:
        """The last rendering, if it is fresh."""
        accepted = request.headers.get(hdrs.ACCEPT, "")
        wanted = self._openmetrics if OPENMETRICS in accepted else self._text
        body = await wanted.rendered()
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: wanted.content_type})


class _Format:
    """Keeps its last rendering."""

    def __init__(
        self, accept: str, registry: CollectorRegistry, threads: anyio.CapacityLimiter
    ) -> None:
        self._encode, self.content_type = choose_encoder(accept)
        self._registry = registry
        self._threads = threads
        self._rendering = anyio.Lock()
        self._body = b""
        self._counted_at = 0.0

    async def rendered(self) -> bytes:
        """Who asks while it is rendered waits for that rendering."""
        async with self._rendering:
            now = anyio.current_time()
            if not self._body or now - self._counted_at >= FRESH_SECONDS:
                counted = _Counted(list(self._registry.collect()))
                self._body = await anyio.to_thread.run_sync(
                    self._encode, counted, limiter=self._threads
                )
                self._counted_at = now
            return self._body


class _Counted:
    """A registry of what was counted already."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        """All of it."""
        return self._families
