"""HTTP requests as bytes, so that they can be as wrong as nobody's library lets them be."""

import asyncio
import contextlib
import gzip
import json
import zlib
from http import HTTPMethod
from typing import Any

import msgspec
from fuzz_values import ENTITY, ODD, PROJECT, RUN
from hypothesis import strategies as st

from launch_async.server.ids import encode_id

TIMEOUT_SECONDS = 15
MOMENT_SECONDS = 0.2
HASH = "0" * 32
SEGMENTS = [
    b"%00", b"%2F", b"%2f..%2f", b"..", b"%2e%2e", b".", b"%", b"%zz", b"%ff", b"\xff\xfe",
    b"\xc3\xa9",
    b"%ED%A0%80", b"%25", b"%0d%0aX:1", b"a" * 5000, b" ", b"+", b"*", b"~", b"'", b"%27--", b"1",
    b"0",
    b"-1", b"9" * 30, b"%C2%B2", b"%F0%9F%98%80", b"None", b"null", b";a=b", b":", b"@", b"[",
    b"\\", b"",
]  # fmt: skip
REAL_SEGMENTS = {
    "entity": ENTITY, "project": PROJECT, "run": RUN, "md5": HASH, "username": "victim",
    "team": "team",
    "key": "1", "rest": f"default/{ENTITY}/{PROJECT}/data/1/{HASH}/f0",
}  # fmt: skip
KEYS = ["runs/1/1", "runs/1/99", "runs/99/1", f"artifacts/1/{HASH}", f"artifacts/99/{HASH}"]
KEYS += ["manifests/1/1", "manifests/99/99"]
METHODS = [
    *(method.value for method in HTTPMethod),
    "get",
    "FOO",
    "G\0T",
    "POST POST",
    "",
    "PRI",
    "A" * 9000,
]
QUERIES = [
    b"", b"?", b"?a", b"?a=%00", b"?%ff=%ff", b"?expires=1", b"?expires=x&signature=x",
    b"?limit=-1",
    b"?limit=99999999999999999999", b"?limit=x&after=x", b"?after=-1", b"?after=%00",
    b"?limit=1&limit=2",
    b"?signature=&expires=", b"?expires=" + b"9" * 5000 + b"&signature=x", b"?" + b"a=1&" * 2000,
    b"#x",
    b"?filename=%00", b"?entity=%00&limit=1", b"?username=%ED%A0%80",
]  # fmt: skip
HOSTS = [
    b"x",
    b"",
    b"\xff",
    b"a b",
    b"[::1",
    b"localhost:99999",
    b"x" * 5000,
    b"../..",
    b"a@b",
    b"x\ty",
]
ENCODINGS = [b"gzip", b"deflate", b"br", b"zstd", b"identity", b"gzip, gzip", b"x", b"\xff", b""]
RANGES = [
    b"bytes=0-0", b"bytes=-1", b"bytes=5-", b"bytes=9-1", b"bytes=0-99999999999999999999",
    b"bytes=-0",
    b"bytes=--1", b"bytes=0-1,2-3", b"bytes=x", b"items=0-1", b"bytes=", b"\xff",
    b"bytes=" + b"9" * 5000 + b"-",
]  # fmt: skip
LENGTHS = [
    b"0",
    b"-1",
    b"1",
    b"5",
    b"99999999999999999999",
    b"1" * 400,
    b"x",
    b"1, 1",
    b"+1",
    b" 1",
    b"0x1",
]
TYPES = [
    b"application/json",
    b"text/html",
    b"multipart/form-data",
    b"x",
    b"\xff",
    b"application/json; charset=x",
]
AUTHORITIES = [
    b"",
    b"Basic",
    b"Basic x",
    b"Basic OnZ4",
    b"Bearer",
    b"Bearer \xff",
    b"Digest a=b",
    b"Bearer " + b"x" * 5000,
]
EXPECTS = [b"100-continue", b"200-ok"]  # aiohttp itself stumbles over one that is no text
CHUNKED = [
    b"3\r\nabc\r\n0\r\n\r\n",
    b"ffffffffff\r\nabc",
    b"-1\r\n",
    b"x\r\n",
    b"3\r\nabc",
    b"0\r\nX: y\r\n\r\n",
]


def _compressed() -> list[bytes]:
    whole = gzip.compress(json.dumps({"files": {}}).encode())
    return [whole, whole[:-9], whole[:5], whole + whole, whole + b"x", b"\x1f\x8b" + b"\xff" * 50,
            zlib.compress(b"{}"), gzip.compress(b"\0" * 5_000_000), gzip.compress(b""),
            whole[10:]]  # fmt: skip


WHERE = f'entityName: "{ENTITY}", projectName: "{PROJECT}"'
ITEM = f'runQueueItemId: "{encode_id("RunQueueItem", 1)}"'
RUN_HERE = f'project(name: "{PROJECT}", entityName: "{ENTITY}") {{ run(name: "{RUN}")'
NEW_RUN = f'entityName: "{ENTITY}", modelName: "{PROJECT}", name: "r9"'
QUERIES_OF_HEADERS = [  # part of their answers, or of what they change, comes from a header
    f"{{ {RUN_HERE} {{ files {{ edges {{ node {{ directUrl }} }} }} }} }} }}",
    f'mutation {{ createRunFiles(input: {{{WHERE}, runName: "r1", files: ["f0"]}}) {{ runID }} }}',
    f"mutation {{ upsertBucket(input: {{{NEW_RUN}}}) {{ bucket {{ user {{ username }} }} }} }}",
    f'mutation {{ ackRunQueueItem(input: {{{ITEM}, runName: "{RUN}"}}) {{ success }} }}',
    f'mutation {{ failRunQueueItem(input: {{{ITEM}, message: "m", stage: "s"}}) {{ success }} }}',
    f'mutation {{ popFromRunQueue(input: {{{WHERE}, queueName: "q"}}) {{ runSpec }} }}',
]
ADMIN_BODIES: list[dict[str, Any]] = [
    {
        "username": "u1",
        "email": "u@example.com",
        "api_key": "k" * 40,
        "admin": False,
        "service": True,
    },
    {"name": "team2", "members": [{"username": "victim", "role": "admin"}]},
    {"description": "d", "api_key": "k" * 40},
    {"role": "viewer"},
]
BODIES = [
    b"", b"{}", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"\0", b"{", b"[" * 20_000,
    b'{"a":' * 5000, b"{}" * 3,
    b'{"query": "{ viewer { id } }"}', b'{"query": 5}', b'{"query": "{ viewer"}',
    b'{"query": "\xff"}',
    b'{"query": "{ viewer { id } }", "variables": []}', b'{"query": "\\ud800"}',
    b'[{"query": "{ viewer { id } }"}]',
    b'{"query": "{ viewer { id } }", "operationName": "x"}', b'{"username": "\\u0000"}',
    b'{"username": 5}',
    b'{"username": "u", "email": "\\ud800"}',
    b'{"name": "team", "members": [{"username": "\\u0000"}]}',
    b'{"username": "u", "api_key": "x"}', b'{"name": "t", "members": 5}', b'{"role": "x"}',
    b'{"role": "admin"}',
    b'{"files": {"output.log": {"offset": 0, "content": ["x"]}}}',
    b'{"files": {"output.log": {"offset": -1}}}',
    b'{"complete": true, "exitcode": 99999999999999999999}', b'{"files": null}',
    b'{"description": "\\u0000"}',
    *_compressed(),
    *(json.dumps({"query": query}).encode() for query in QUERIES_OF_HEADERS),
    *(
        json.dumps({**known, key: odd}).encode()
        for known in ADMIN_BODIES
        for key in known
        for odd in ODD
    ),
]  # fmt: skip


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request; `{signed}` in its target becomes a query that permits it."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    signed_key: str | None = None

    @property
    def broken(self) -> bool:
        """Whether the request has no end that a server could know, so that none may answer."""
        names = {name.lower() for name, _ in self.headers}
        return bool(names & {b"content-length", b"transfer-encoding", b"expect"})

    def written(self, key: bytes, query: bytes) -> bytes:
        """Return the bytes to send."""
        lines = [b"%b %b HTTP/1.1" % (self.method, self.target.replace(b"{signed}", query))]
        names = {name.lower() for name, _ in self.headers}
        if b"host" not in names:
            lines.append(b"Host: x")
        if b"authorization" not in names:
            lines.append(b"Authorization: Bearer " + key)
        if not names & {b"content-length", b"transfer-encoding"}:
            lines.append(b"Content-Length: %d" % len(self.body))
        lines += [b"%b: %b" % header for header in self.headers]
        return b"\r\n".join([*lines, b"Connection: close", b"", self.body])


async def exchange(
    url: str, request: bytes, *, endless: bool = False
) -> tuple[int | None, dict[str, str], bytes]:
    """Send bytes and return (status, headers, body), the status None where no answer came.

    A server may wait for ever for the rest of an `endless` request, so we go away after a moment.
    """
    host, port = url.removeprefix("http://").split(":")
    async with asyncio.timeout(TIMEOUT_SECONDS):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(request)
            await writer.drain()
            answer = await _read(reader, MOMENT_SECONDS if endless else TIMEOUT_SECONDS)
        except ConnectionError:
            answer = b""
        finally:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    if not head:
        return None, {}, b""
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in rest)
    return int(first.split()[1]), headers, body


async def _read(reader: asyncio.StreamReader, seconds: float) -> bytes:
    parts: list[bytes] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while part := await reader.read(65536):
                parts.append(part)
    return b"".join(parts)


def calls(routes: list[tuple[str, str]]) -> st.SearchStrategy[Call]:
    """Return a strategy of requests to these (method, path with {placeholders})."""
    return st.sampled_from(routes).flatmap(lambda route: _calls_to(*route)) | _storage_calls()


def _calls_to(method: str, path: str) -> st.SearchStrategy[Call]:
    parts = [_segment(part) for part in path.removeprefix("/").split("/")]
    target = st.builds(
        lambda query, *words: b"/" + b"/".join(words) + query, _odd(b"", QUERIES), *parts
    )
    return _completed(st.just(method), target, st.none())


def _storage_calls() -> st.SearchStrategy[Call]:
    """Return requests to real addresses, as they are or tampered with."""
    keys = st.sampled_from(KEYS)
    tail = st.sampled_from([b"?{signed}"] * 3 + [b"?{signed}&filename=x", b"?x={signed}",
    b"/..?{signed}",
                            b"?{signed}&expires=1", b"?{signed}x", b"%2F..?{signed}",
                            b"?{signed}&signature=x"])  # fmt: skip
    return keys.flatmap(
        lambda key: _completed(
            st.sampled_from(["GET", "PUT", "HEAD", "OPTIONS", "DELETE"]),
            tail.map(lambda tail: b"/storage/" + key.encode() + tail),
            st.just(key),
        )
    )


def _completed(
    method: st.SearchStrategy[str],
    target: st.SearchStrategy[bytes],
    key: st.SearchStrategy[str | None],
) -> st.SearchStrategy[Call]:
    return st.builds(
        Call,
        method=_one_in(8, method, st.sampled_from(METHODS)).map(lambda word: word.encode()),
        target=target,
        headers=_one_in(
            2, st.just([]), st.lists(_header(), max_size=2, unique_by=lambda pair: pair[0])
        ),
        body=st.sampled_from(BODIES) | st.binary(max_size=50),
        signed_key=key,
    )


def _header() -> st.SearchStrategy[tuple[bytes, bytes]]:
    odd = {
        b"Host": HOSTS, b"Content-Encoding": ENCODINGS, b"Range": RANGES,
        b"Content-Length": LENGTHS,
        b"Content-Type": TYPES, b"Authorization": AUTHORITIES, b"Expect": EXPECTS,
        b"Transfer-Encoding": [b"chunked", b"gzip", b"chunked, chunked", b"identity", b"\xff"],
        b"X-Launch-Async-Lease": [b"", b"x", b"\xff", b"x" * 5000],
        b"X-Wandb-Username": [b"victim", b"nobody", b"", b"\xff", b"x" * 5000],
        b"X-Forwarded-Proto": [b"\xff", b"https", b"x:"], b"X" * 9000: [b"1"],
        b"": [b"x"],
        b"Cookie": [b"a" * 8000], b"If-None-Match": [b"*"], b"Upgrade": [b"websocket", b"h2c"],
        b"Accept-Encoding": [b"gzip", b"\xff"], b"X\0": [b"1"], b"A b": [b"1"],
        b"Via": [b"\0", b"a\rb"],
    }  # fmt: skip
    return st.sampled_from(sorted(odd)).flatmap(
        lambda name: st.sampled_from(odd[name]).map(lambda value: (name, value))
    )


def _segment(part: str) -> st.SearchStrategy[bytes]:
    if not part.startswith("{"):
        return _odd(part.encode(), SEGMENTS, share=30)
    name = part.strip("{}").partition(":")[0]
    if name == "rest":
        words = [st.just(word) for word in REAL_SEGMENTS[name].split("/")]
        return st.tuples(
            *(_one_in(4, word.map(str.encode), st.sampled_from(SEGMENTS)) for word in words)
        ).map(b"/".join)
    return _odd(REAL_SEGMENTS.get(name, "x").encode(), SEGMENTS, share=2)


def _odd(usual: bytes, odd: list[bytes], *, share: int = 3) -> st.SearchStrategy[bytes]:
    return _one_in(share, st.just(usual), st.sampled_from(odd))


def _one_in(
    share: int, usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    return st.integers(1, share).flatmap(lambda number: odd if number == share else usual)
