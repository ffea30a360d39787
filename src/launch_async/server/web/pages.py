"""The page of one run, at the address that the wandb client and `launch-async up` print.

A browser asks for a login: any user name, and an API key as the password.
"""

import json
import math
from collections.abc import Sequence
from importlib import resources
from typing import Any

import msgspec
from aiohttp import web
from jinja2 import Environment, StrictUndefined

from launch_async.server import console, history, history_samples
from launch_async.server.auth import authenticate
from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.run_rows import RunRow
from launch_async.server.runs import require_run
from launch_async.server.services import Services
from launch_async.server.store.tables.runs import run_history
from launch_async.server.urls import Urls

CONSOLE_LINES = 200
CHART_POINTS = 500
MAX_CHARTS = 12
MAX_TEXT = 200
CHALLENGE = 'Basic realm="launch-async: any user name, an API key as the password"'
# Nothing on the page is fetched or run; a metric's name cannot become a script.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """One metric's line in a box of 100 by 100, the origin at the top left."""

    name: str
    points: str
    low: str
    high: str
    last: str


def routes(services: Services) -> list[web.RouteDef]:
    """Return the routes to serve."""
    template = _template()

    async def get_run(http_request: web.Request) -> web.StreamResponse:
        try:
            viewer = await authenticate(services.store, http_request)
        except ApiError as error:
            headers = {"WWW-Authenticate": CHALLENGE}
            return web.Response(status=error.status, text=error.message, headers=headers)
        request = Request(
            viewer=viewer,
            store=services.store,
            blobs=services.blobs,
            urls=Urls("", services.signer),
            settings=services.settings,
        )
        names = http_request.match_info
        async with services.store.read() as connection:
            run = await require_run(
                connection,
                request,
                entity=names["entity"],
                project=names["project"],
                run_name=names["run"],
            )
            lines = await console.read_tail(connection, run.id, last=CONSOLE_LINES)
            bodies = await history_samples.evenly(
                connection, run_history, run.id, samples=CHART_POINTS
            )
        text = template.render(
            run=run,
            lines=lines,
            charts=charts_of(bodies),
            config=_config(run),
            summary=_shown(json.loads(run.summary)),
        )
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
        return web.Response(text=text, content_type="text/html", headers=headers)

    return [web.get("/{entity}/{project}/runs/{run}", get_run)]


def charts_of(bodies: Sequence[str]) -> list[Chart]:
    """Return a chart for each metric with at least two numbers, over its steps."""
    series: dict[str, list[tuple[float, float]]] = {}
    for index, body in enumerate(bodies):
        line = history.parse_line(body)
        step = index if line.step is None else line.step
        for name, value in line.metrics.items():
            if not name.startswith("_") and _is_number(value):
                series.setdefault(name, []).append((step, float(value)))
    drawn = [(name, points) for name, points in sorted(series.items()) if len(points) > 1]
    return [_chart(name, points) for name, points in drawn[:MAX_CHARTS]]


def _chart(name: str, points: Sequence[tuple[float, float]]) -> Chart:
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    width, height = (max(steps) - min(steps)) or 1, (high - low) or 1
    drawn = " ".join(
        f"{100 * (step - min(steps)) / width:.2f},{100 - 100 * (value - low) / height:.2f}"
        for step, value in points
    )
    return Chart(name=name, points=drawn, low=_text(low), high=_text(high), last=_text(values[-1]))


def _config(run: RunRow) -> list[tuple[str, str]]:
    content: dict[str, Any] = json.loads(run.config)
    values = {key: part.get("value") for key, part in content.items() if isinstance(part, dict)}
    return _shown(values)


def _shown(values: dict[str, Any]) -> list[tuple[str, str]]:
    flat = history.flatten(values)
    return [(key, _text(value)) for key, value in flat if not key.startswith("_")]


def _text(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _template() -> Any:
    text = (
        resources.files("launch_async.server.web").joinpath("run.html").read_text(encoding="utf-8")
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(text)
