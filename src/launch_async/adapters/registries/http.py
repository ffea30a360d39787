"""Requests to registries and to what hands out their tokens: bounded, and careful with passwords.

Plain HTTP is spoken with this machine and with hosts that are configured as insecure, and with
nobody else, whatever a redirect or a realm says. What comes out of an error never holds a header.
"""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import aiohttp
import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from launch_async import __version__
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.secret import Secret
from launch_async.kit.addresses import is_loopback
from launch_async.wire.network import CA_VARIABLES, proxy_for, tls_of
from launch_async.wire.throttling import retry_after_seconds

CALL_TIMEOUT_SECONDS = 15.0
MAX_REDIRECTS = 5

_REDIRECTS = frozenset(
    {
        HTTPStatus.MOVED_PERMANENTLY,
        HTTPStatus.FOUND,
        HTTPStatus.SEE_OTHER,
        HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
    }
)
_BUSY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


class NotSpoken(Unavailable):
    """Nobody is there, or nobody who speaks TLS when it was asked for."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back, its body whole."""

    url: URL
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class Busy(Unavailable):
    """It answered that it cannot or will not now."""

    def __init__(self, message: str, *, status: int, retry_after_seconds: float | None) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.status = status


@asynccontextmanager
async def registry_session(
    ca_file: Path | None = None,
) -> AsyncGenerator[aiohttp.ClientSession, None]:
    """A session for registries and their token servers; `ca_file` as for the control plane.

    Raises:
        AgentUnfit: `ca_file` is not a bundle of certificates.
    """
    # Each registry has places of its own: a pool of all would make them wait for each other.
    connector = aiohttp.TCPConnector(limit=0, ssl=tls_of(ca_file))
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"launch-async/{__version__}"},
    ) as session:
        yield session


class RegistryHttp:
    """Asks one question at a time, redirects followed."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        insecure_hosts: Collection[str] = (),
        call_timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> None:
        self._session = session
        self._insecure_hosts = frozenset(insecure_hosts)
        self._timeout = aiohttp.ClientTimeout(total=call_timeout_seconds)

    def may_be_plain(self, url: URL) -> bool:
        """Whether this host may be spoken to without TLS."""
        names = {url.host, f"{url.host}:{url.port}"}
        return is_loopback(str(url)) or bool(self._insecure_hosts & names)

    async def ask(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        authorization: Secret[str] | None = None,
        form: Mapping[str, str] | None = None,
        max_bytes: int,
    ) -> Answer:
        """The answer, unless it says that another time would be better.

        Raises:
            Unavailable: there is none, or it is too long (`Busy`, `NotSpoken`: see there).
            ItemError: the question would have gone out in plain HTTP.
        """
        for _ in range(MAX_REDIRECTS + 1):
            if url.scheme != "https" and not (url.scheme == "http" and self.may_be_plain(url)):
                raise _not_plain(url)
            answer = await self._once(
                method, url, headers=headers, authorization=authorization, form=form,
                max_bytes=max_bytes,
            )  # fmt: skip
            if answer.status in _REDIRECTS and form is None and "Location" in answer.headers:
                goal = _joined(url, answer.headers["Location"])
                if goal.origin() != url.origin():
                    authorization = None
                    if url.scheme == "https" and goal.scheme != "https":
                        raise _not_plain(goal)
                url = goal
                continue
            if _is_busy(answer.status):
                raise _busy(answer)
            return answer
        msg = f"{site_of(url)} redirects in circles"
        raise Unavailable(msg)

    async def _once(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None,
        authorization: Secret[str] | None,
        form: Mapping[str, str] | None,
        max_bytes: int,
    ) -> Answer:
        sent = dict(headers or {})
        if authorization is not None:
            sent["Authorization"] = authorization.reveal()
        try:
            async with self._session.request(
                method,
                url,
                headers=sent,
                data=form,
                proxy=proxy_for(str(url)),
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                return Answer(
                    url=url,
                    status=response.status,
                    headers=response.headers,
                    body=await _bounded(response, max_bytes),
                )
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            failure = _failure(url, error)
        # Outside of the handler: some of aiohttp's errors carry the request's headers.
        raise failure


def site_of(url: URL) -> str:
    """Its host, with a port that is not the usual one."""
    return url.host_port_subcomponent or ""


async def _bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_chunked(1 << 16):
        size += len(chunk)
        if size > max_bytes:
            msg = f"{site_of(response.url)} sent an answer larger than {max_bytes >> 10} KiB"
            raise Unavailable(msg)
        chunks.append(chunk)
    return b"".join(chunks)


def _joined(url: URL, location: str) -> URL:
    try:
        goal = url.join(URL(location))
        goal.origin()  # has a scheme and a host
    except ValueError:
        msg = f"{site_of(url)} redirects to an address that cannot be used"
        raise Unavailable(msg) from None
    return goal.with_user(None)


def _failure(url: URL, error: Exception) -> Unavailable:
    name = site_of(url)
    match error:
        case TimeoutError():
            return Unavailable(f"{name} did not answer in time")
        case aiohttp.ClientConnectorCertificateError():
            text = f"{name} cannot be trusted ({error.certificate_error});"
            return Unavailable(f"{text} name its CA with {CA_VARIABLES[0]}")
        case aiohttp.ClientHttpProxyError():
            return Unavailable(f"{name} cannot be reached: the proxy answered {error.status}")
        case aiohttp.ClientConnectionError():
            why = getattr(error, "strerror", None) or type(error).__name__
            return NotSpoken(f"{name} cannot be reached ({why})")
        case _:
            return Unavailable(f"{name} did not answer as a registry does ({type(error).__name__})")


def _is_busy(status: int) -> bool:
    if status == HTTPStatus.NOT_IMPLEMENTED:
        return False  # a plain no, to a method
    return status in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _busy(answer: Answer) -> Busy:
    return Busy(
        f"{site_of(answer.url)} answered {answer.status}",
        status=answer.status,
        retry_after_seconds=retry_after_seconds(answer.headers),
    )


def _not_plain(url: URL) -> ItemError:
    return ItemError(
        f"The registry leads to {url.scheme}://{site_of(url)}, where a login would be open to all."
        " If that host is to be trusted nevertheless, configure it as insecure.",
        reason=Reason.REGISTRY_DENIED,
        stage=Stage.BUILD,
    )
