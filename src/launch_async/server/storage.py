"""PUT and GET of blobs at signed addresses: /storage/{key}. The signature is the permission."""

import base64
import mimetypes
from collections.abc import AsyncIterator
from urllib.parse import quote

from aiohttp import web

from launch_async.server.blobs import BlobHead
from launch_async.server.errors import ApiError
from launch_async.server.services import Services, UploadRule

CHUNK_BYTES = 256 * 1024
MD5_DIGITS = 32
MISSING = "this file was not uploaded"
SAFE_HEADERS = {
    # What users upload is never run as a page of ours.
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox",
    # No cookies and no keys are involved, so any page may use an address that it was given.
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, PUT, OPTIONS",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Expose-Headers": "ETag, Content-Length, Content-Range",
}


class Storage:
    """The handlers of /storage; the first word of a key says which of the `rules` it follows."""

    def __init__(self, services: Services, rules: dict[str, UploadRule]) -> None:
        self._services = services
        self._rules = rules

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to serve."""
        path = "/storage/{key:.+}"
        return [
            web.put(path, self.put),
            web.get(path, self.get),
            web.options(path, self.options),
        ]

    async def options(self, _request: web.Request) -> web.StreamResponse:
        """Answer a browser's question before a request from another origin."""
        return web.Response(headers=SAFE_HEADERS)

    async def put(self, request: web.Request) -> web.StreamResponse:
        """Store a body under its key, as the key's rule wants it.

        The address is good for a day, so what happened to its key since is asked for here.
        """
        key = request.match_info["key"]
        self._services.signer.check("PUT", key, request.query)
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise ApiError("send the bytes as they are, without a Content-Encoding", status=415)
        rule = self._rules.get(key.partition("/")[0])
        if rule is None:
            raise ApiError("nothing is uploaded to this address", status=404)
        expected = await rule.expect(self._services, key)
        md5_hex = _wanted_md5(request, expected.md5_hex)
        if expected.settled:
            async for _ in _whole_body(request):
                pass
        else:
            info = await self._services.blobs.put(key, _whole_body(request), md5_hex=md5_hex)
            await rule.uploaded(self._services, key, info)
            md5_hex = info.md5_hex
        etag = {} if md5_hex is None else {"ETag": f'"{md5_hex}"'}
        return web.Response(headers={**SAFE_HEADERS, **etag})

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Send a blob, or the part of it that a Range header asks for."""
        key = request.match_info["key"]
        self._services.signer.check("GET", key, request.query)
        return await send_blob(request, self._services, key, filename=request.query.get("filename"))


async def send_blob(
    request: web.Request, services: Services, key: str, *, filename: str | None
) -> web.StreamResponse:
    """Answer a GET or HEAD with a blob; 404 when it was never uploaded."""
    head = await services.blobs.head(key)
    if head is None:
        raise ApiError(MISSING, status=404)
    size = head.size
    headers = SAFE_HEADERS if head.etag is None else {**SAFE_HEADERS, "ETag": f'"{head.etag}"'}
    if _is_known(request, head.etag):
        return web.Response(status=304, headers=headers)
    start, end = _asked_part(request, head)
    response = web.StreamResponse(status=206 if end - start < size else 200, headers=headers)
    if response.status == 206:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    response.headers["Accept-Ranges"] = "bytes"
    if filename is not None:
        name = filename.rpartition("/")[2]
        response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name)}"
    response.content_type = content_type_of(filename)
    response.content_length = end - start
    if request.method == "HEAD" or end == start:
        await response.prepare(request)
        await response.write_eof()
        return response
    try:
        chunks = await services.blobs.get(key, start=start, end=end)
    except FileNotFoundError as error:
        raise ApiError(MISSING, status=404) from error
    await response.prepare(request)
    sent = 0
    try:
        async for chunk in chunks:
            await response.write(chunk)
            sent += len(chunk)
        if sent != end - start:
            raise EOFError(f"blob {key} ended after {sent} of {end - start} bytes")
    except Exception:
        # The status is out: only a broken connection can still say that the bytes are not whole.
        if request.transport is not None:
            request.transport.abort()
        raise
    await response.write_eof()
    return response


def content_type_of(filename: str | None) -> str:
    """Guess a MIME type by a file's name."""
    guess = mimetypes.guess_type(filename or "")[0]
    return guess or "application/octet-stream"


def _wanted_md5(request: web.Request, expected: str | None) -> str | None:
    """Return the MD5 that an upload must have; 400 when its header says that it has another."""
    given = request.headers.get("Content-MD5")
    if given is None:
        return expected
    try:
        md5_hex = base64.b64decode(given, validate=True).hex()
    except ValueError:
        md5_hex = ""
    if len(md5_hex) != MD5_DIGITS:
        raise ApiError("Content-MD5 is an MD5 in base64")
    if expected not in {None, md5_hex}:
        raise ApiError(f"the upload has the MD5 {md5_hex}, and {expected} belongs here")
    return md5_hex


def _is_known(request: web.Request, etag: str | None) -> bool:
    """Tell whether the client has these bytes already."""
    known = request.if_none_match or ()
    return etag is not None and any(each.value in {"*", etag} for each in known)


def _asked_part(request: web.Request, head: BlobHead) -> tuple[int, int]:
    size = head.size
    if request.headers.get("If-Range", f'"{head.etag}"') != f'"{head.etag}"':
        return 0, size  # RFC 9110: a part of other bytes than the client has would be of no use
    try:
        asked = request.http_range
    except ValueError:
        return 0, size  # RFC 9110: a Range that is not understood is ignored
    if asked.start is None and asked.stop is None:
        return 0, size
    start, end, _ = asked.indices(size)
    if start >= end:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return start, end


async def _whole_body(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body; raise at its end when it is shorter than announced."""
    size = 0
    async for chunk in request.content.iter_chunked(CHUNK_BYTES):
        size += len(chunk)
        yield chunk
    announced = request.content_length
    if announced is not None and size != announced:
        raise ApiError(f"the upload ended after {size} of {announced} bytes")
