"""The admin API of a server, one request at a time."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from launch_async.domain.errors import LaunchError
from launch_async.domain.secret import Secret
from launch_async.wire.network import proxy_for, tls_of

TIMEOUT = aiohttp.ClientTimeout(total=30.0)
MAX_PAGE = 1000
NO_API = "has no admin API: it is there only when the server was started with an admin key"

Json = dict[str, Any]


class AdminRefused(LaunchError):
    """The server said no, or did not answer; the text says which and why."""


class _Answer(Json):
    """What is not in it says so in words: something else than this server may have answered."""

    def __init__(self, answer: Json, base_url: str) -> None:
        super().__init__(answer)
        self._base_url = base_url

    def __missing__(self, key: str) -> Any:
        msg = f"{self._base_url} is no launch-async server of this version: its answer has no {key}"
        raise AdminRefused(msg)


class AdminClient:
    """Who holds the admin key. Open it with `async with AdminClient.open(...)`."""

    def __init__(
        self, session: aiohttp.ClientSession, *, base_url: str, admin_key: Secret[str]
    ) -> None:
        self._session = session
        self._base_url = base_url
        self._admin_key = admin_key

    @classmethod
    @asynccontextmanager
    async def open(
        cls, *, base_url: str, admin_key: Secret[str], ca_file: Path | None = None
    ) -> AsyncGenerator[Self, None]:
        """A client that lives as long as the block.

        Raises:
            ConfigError: `ca_file` is not a bundle of certificates.
        """
        connector = aiohttp.TCPConnector(ssl=tls_of(ca_file))
        async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as session:
            yield cls(session, base_url=base_url, admin_key=admin_key)

    async def call(
        self,
        method: str,
        *parts: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
    ) -> Json:
        """The answer of one route, `("users", "bob")` for example; {} when it has none.

        Raises:
            AdminRefused: the server said no, or did not answer.
        """
        if not all(parts):
            raise AdminRefused("a name is empty; give the one that is meant")
        try:
            path = "/".join(quote(part, safe="") for part in parts)
            words = f"?{urlencode(query)}" if query else ""
            content = None if body is None else msgspec.json.encode(body)
        except UnicodeEncodeError as error:
            raise AdminRefused("what was given is not UTF-8 text") from error
        url = f"{self._base_url}/admin/v1/{path}{words}"
        headers = {"Authorization": f"Bearer {self._admin_key.reveal()}"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                method,
                URL(url, encoded=True),
                data=content,
                headers=headers,
                proxy=proxy_for(url),
                allow_redirects=False,
            ) as response:
                return self._answer(response.status, await response.read())
        except TimeoutError as error:
            raise AdminRefused(f"{self._base_url} did not answer in time") from error
        except aiohttp.ClientError as error:
            raise AdminRefused(f"{self._base_url} cannot be reached ({error})") from error

    async def pages(self, name: str, *parts: str, size: int = MAX_PAGE) -> AsyncIterator[Json]:
        """Every entry of a list, asked for page by page."""
        after: str | None = "0"
        while after is not None:
            page = await self.call("GET", *parts, query={"limit": str(size), "after": after})
            for entry in page[name]:
                yield entry
            after = page["next"]

    def _answer(self, status: int, content: bytes) -> Json:
        try:
            answer = msgspec.json.decode(content) if content else {}
        except msgspec.DecodeError:
            answer = None
        if 200 <= status < 300 and isinstance(answer, dict):
            return _Answer(answer, self._base_url)
        told = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(told, str) or (status, told) == (404, "Not Found"):
            raise AdminRefused(f"{self._base_url} {NO_API} (status {status})")
        field = answer.get("field") if isinstance(answer, dict) else None
        raise AdminRefused(f"{field}: {told}" if field else told)
