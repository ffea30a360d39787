"""Addresses of blobs that carry their own permission: the client sends no key with them.

{base}/storage/{key}?expires=...&signature=...[&filename=...]
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlencode

from launch_async.server.errors import ApiError

STORAGE_PREFIX = "/storage/"


class UrlSigner:
    """Signs method, key and expiry with a secret that never leaves the server."""

    def __init__(
        self,
        secret: bytes,
        *,
        lifetime_seconds: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secret = secret
        self._lifetime_seconds = lifetime_seconds
        self._clock = clock

    def query(self, method: str, key: str, filename: str | None) -> str:
        """Return the query string that permits one method on one key for a while."""
        expires = str(int(self._clock()) + self._lifetime_seconds)
        pairs = {"expires": expires, "signature": self._sign(method, key, expires, filename)}
        if filename is not None:
            pairs["filename"] = filename
        return urlencode(pairs, quote_via=quote)

    def check(self, method: str, key: str, query: Mapping[str, str]) -> None:
        """Raise a 403 unless the query permits this method on this key now."""
        expires = query.get("expires", "")
        given = query.get("signature", "")
        try:
            expected = self._sign(method, key, expires, query.get("filename"))
            right = hmac.compare_digest(expected.encode(), given.encode())
        except UnicodeEncodeError:  # bytes in the address that are no text
            right = False
        if not right:
            raise ApiError("this address is not signed by this server", status=403)
        if int(expires) < self._clock():
            raise ApiError("this address has expired; ask for a new one", status=403)

    def _sign(self, method: str, key: str, expires: str, filename: str | None) -> str:
        text = "\n".join([method, expires, quote(key, safe=""), quote(filename or "", safe="")])
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


class Urls:
    """Absolute addresses on the server's public base, as one client reaches it."""

    def __init__(self, base: str, signer: UrlSigner) -> None:
        self.base = base.rstrip("/")
        self._signer = signer

    def upload(self, key: str) -> str:
        """Return where a client may PUT the bytes of `key`."""
        return self._absolute("PUT", key, None)

    def download(self, key: str, *, filename: str | None = None) -> str:
        """Return where a client may GET the bytes of `key`, saved under `filename`."""
        return self._absolute("GET", key, filename)

    def page(self, *parts: str) -> str:
        """Return the address of a page for people, such as (entity, project)."""
        return "/".join([self.base, *(quote(part, safe="") for part in parts)])

    def _absolute(self, method: str, key: str, filename: str | None) -> str:
        query = self._signer.query(method, key, filename)
        return f"{self.base}{STORAGE_PREFIX}{quote(key)}?{query}"
