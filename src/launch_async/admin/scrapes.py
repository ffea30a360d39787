"""Metrics for any number of scrapers: rendered once a second, however often they are asked for."""

import anyio
from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

FRESH_SECONDS = 1.0
OPENMETRICS = "application/openmetrics-text"


class Scrapes:
    """Keeps the last rendering of each format."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._rendered: dict[str, tuple[float, bytes]] = {}
        self.renderings = 0

    async def answer(self, request: web.Request) -> web.Response:
        """Prometheus' text format, or OpenMetrics where that is asked for: no more than these two,
        since the rest of what a scraper says of them would be as many renderings.
        """
        wanted = OPENMETRICS if OPENMETRICS in request.headers.get(hdrs.ACCEPT, "") else ""
        encode, content_type = choose_encoder(wanted)
        now = anyio.current_time()
        since, body = self._rendered.get(content_type, (-FRESH_SECONDS, b""))
        if now - since >= FRESH_SECONDS or not body:
            body = encode(self._registry)
            self.renderings += 1
            self._rendered[content_type] = now, body
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})
