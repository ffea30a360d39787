"""Who may do what over the endpoint, and how many at once."""

import hmac
from collections.abc import Awaitable, Callable

import anyio
from aiohttp import hdrs, web

from launch_async.domain.secret import Secret

MAX_ANSWERS = 32
"""Answers under way at once. Probes do not count: they answer while scrapes and readers wait."""
ANSWER_SECONDS = 30.0
"""For one answer, however slowly its client reads."""
NOT_ENABLED = (
    "this needs a token, and the agent has none: set `agent.admin_token_file` in its configuration"
    " to a file that holds one, such as `openssl rand -hex 32` makes, and restart it\n"
)
NOT_KNOWN = (
    "this needs the agent's token, that of `agent.admin_token_file`, as Authorization: Bearer\n"
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def with_token(token: Secret[str] | None, handler: Handler) -> Handler:
    """The handler for those who know the token, and for nobody when there is none."""

    async def checked(request: web.Request) -> web.StreamResponse:
        if token is None:
            return web.Response(text=NOT_ENABLED, status=403)
        given = request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(errors="replace"), token.reveal().encode()):
            challenge = {hdrs.WWW_AUTHENTICATE: "Bearer"}
            return web.Response(text=NOT_KNOWN, status=401, headers=challenge)
        return await handler(request)

    return checked


def at_most(
    limiter: anyio.CapacityLimiter, handler: Handler, *, seconds: float | None = ANSWER_SECONDS
) -> Handler:
    """The handler for as many at once as the limiter lets in; the others get 503 at once.

    The answer is written inside, so that a client who reads slowly holds a place and loses it.
    """

    async def bounded(request: web.Request) -> web.StreamResponse:
        try:
            limiter.acquire_nowait()
        except anyio.WouldBlock:
            text = "too many requests at once; try again in a second\n"
            return web.Response(text=text, status=503, headers={hdrs.RETRY_AFTER: "1"})
        try:
            with anyio.move_on_after(seconds):
                response = await handler(request)
                try:
                    await response.prepare(request)
                    await response.write_eof()
                except ConnectionError:
                    pass  # the client left; that is its own affair
                return response
            hang_up(request)
            return web.Response(status=503)
        finally:
            limiter.release()

    return bounded


def hang_up(request: web.Request) -> None:
    """End the connection, whatever it has still to send."""
    if request.transport is not None:
        request.transport.abort()
