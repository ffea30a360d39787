"""Uploads and downloads at addresses that carry their own permission."""

import base64
import hashlib
import io
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import anyio
import msgspec
import pytest
from server_harness import Http, Server
from yarl import URL

from client_documents import client_document
from launch_async.server.app import listening
from launch_async.server.blobs import Blobs
from launch_async.server.errors import ApiError
from launch_async.server.urls import Urls, UrlSigner

pytestmark = pytest.mark.anyio

RUN = {"entity": "tester", "project": "proj", "run": "r1"}
CONTENT = bytes(range(256)) * 40


def md5_of(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


async def create_files(http: Http, *names: str) -> list[str]:
    """Make a run with these files and return where to upload them."""
    await http.stream("r1", {})
    made = await http.data(client_document("CreateRunFiles.core"), **RUN, files=list(names))
    assert [file["name"] for file in made["createRunFiles"]["files"]] == list(names)
    return [file["uploadUrl"] for file in made["createRunFiles"]["files"]]


async def file_of(http: Http, name: str) -> dict[str, Any]:
    variables = {"entity": "tester", "project": "proj", "name": "r1", "fileNames": [name]}
    data = await http.data(client_document("RunFiles.files"), **variables)
    (edge,) = data["project"]["run"]["files"]["edges"]
    return edge["node"]


async def uploaded(http: Http, name: str = "config.yaml", content: bytes = CONTENT) -> str:
    """Upload a file and return where to download it."""
    (url,) = await create_files(http, name)
    assert (await http.send("PUT", url, data=content)).status == 200
    return (await file_of(http, name))["directUrl"]


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "code/deep er/train.py",
        "test with_special-characters.txt",
        "50%.txt",
        "a?b#c&d=e+f.txt",
        "ünï.txt",
        "../../etc/passwd",
        "x" * 1024,
    ],
)
async def test_a_file_of_any_name_comes_back(http: Http, name: str) -> None:
    (url,) = await create_files(http, name)
    assert URL(url).is_absolute()
    assert (await http.send("PUT", url, data=CONTENT)).status == 200
    file = await file_of(http, name)
    assert (file["name"], file["sizeBytes"]) == (name, len(CONTENT))
    assert file["md5"] == md5_of(CONTENT)
    reply = await http.send("GET", file["directUrl"])
    assert (reply.status, reply.body) == (200, CONTENT)
    assert quote(name.rpartition("/")[2]) in reply.headers["Content-Disposition"]


async def test_a_file_is_found_by_its_path_too(http: Http) -> None:
    await uploaded(http, "a b.txt")
    assert (await file_of(http, "./a b.txt"))["name"] == "a b.txt"


async def test_an_empty_file_comes_back(http: Http) -> None:
    reply = await http.send("GET", await uploaded(http, content=b""))
    assert (reply.status, reply.body) == (200, b"")


async def test_a_second_upload_replaces_the_first(http: Http) -> None:
    await uploaded(http, content=b"first")
    reply = await http.send("GET", await uploaded(http, content=b"second"))
    assert reply.body == b"second"


async def test_a_file_of_many_parts_comes_back(http: Http) -> None:
    content = b"0123456789abcdef" * (12 * 1024 * 1024 // 16)
    (url,) = await create_files(http, "big")
    assert (await http.send("PUT", url, data=io.BytesIO(content))).status == 200
    file = await file_of(http, "big")
    assert file["md5"] == md5_of(content)
    assert (await http.send("GET", file["directUrl"])).body == content


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ("bytes=0-9", 206, CONTENT[:10]),
        ("bytes=100-", 206, CONTENT[100:]),
        ("bytes=-5", 206, CONTENT[-5:]),
        ("bytes=0-999999", 200, CONTENT),
        ("nonsense", 200, CONTENT),
        ("bytes=999999-", 416, None),
    ],
)
async def test_a_part_can_be_asked_for(
    http: Http, asked: str, status: int, expected: bytes | None
) -> None:
    url = await uploaded(http)
    reply = await http.send("GET", url, headers={"Range": asked})
    assert reply.status == status
    if expected is not None:
        assert reply.body == expected
    if status == 206:
        assert reply.headers["Content-Range"].endswith(f"/{len(CONTENT)}")


async def test_head_tells_the_size_alone(http: Http) -> None:
    reply = await http.send("HEAD", await uploaded(http))
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["Content-Length"] == str(len(CONTENT))


async def test_what_was_not_uploaded_is_a_404_and_not_listed(http: Http) -> None:
    await create_files(http, "never.txt")
    file = await file_of(http, "never.txt")
    assert (await http.send("GET", file["directUrl"])).status == 404
    variables = {"entity": "tester", "project": "proj", "name": "r1"}
    run = (await http.data(client_document("RunFiles.files"), **variables))["project"]["run"]
    assert (run["fileCount"], run["files"]["edges"]) == (0, [])


async def test_an_address_is_good_for_its_own_file_and_method_only(http: Http) -> None:
    first, second = await create_files(http, "one", "two")
    query = first.partition("?")[2]
    crossed = second.partition("?")[0] + "?" + query
    bare = first.partition("?")[0]
    longer = first.replace("expires=", "expires=9")
    for method, url in [("PUT", crossed), ("GET", first), ("PUT", bare), ("PUT", longer)]:
        reply = await http.send(method, url, data=b"x" if method == "PUT" else None)
        assert reply.status == 403
        assert reply.json()["error"] == "this address is not signed by this server"
    assert await http.server.rows("select uploaded_at from run_files") == [(None,), (None,)]


def test_an_address_expires() -> None:
    now = 1000.0
    signer = UrlSigner(b"secret", lifetime_seconds=60, clock=lambda: now)
    url = URL(Urls("http://h", signer).upload("runs/1/2"))
    now = 1060.0
    signer.check("PUT", "runs/1/2", url.query)
    now = 1061.0
    with pytest.raises(ApiError, match="expired") as refused:
        signer.check("PUT", "runs/1/2", url.query)
    assert refused.value.status == 403


async def test_another_secret_signs_otherwise() -> None:
    url = URL(Urls("http://h", UrlSigner(b"one", lifetime_seconds=60)).download("runs/1/2"))
    with pytest.raises(ApiError, match="not signed"):
        UrlSigner(b"two", lifetime_seconds=60).check("GET", "runs/1/2", url.query)


async def test_an_upload_that_breaks_off_leaves_what_was_there(http: Http, server: Server) -> None:
    url = URL(await uploaded(http, content=b"whole"), encoded=True)
    (upload,) = await create_files(http, "config.yaml")
    target = URL(upload, encoded=True)
    async with await anyio.connect_tcp("127.0.0.1", target.port or 0) as stream:
        head = f"PUT {target.raw_path_qs} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        await stream.send(head.encode() + b"partial")
    assert (await http.send("GET", str(url))).body == b"whole"
    assert (await file_of(http, "config.yaml"))["sizeBytes"] == 5


async def test_a_browser_may_use_an_address_from_any_page(http: Http) -> None:
    (url,) = await create_files(http, "x")
    reply = await http.send("OPTIONS", url, headers={"Origin": "http://elsewhere"})
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert "PUT" in reply.headers["Access-Control-Allow-Methods"]


async def test_an_uploaded_page_never_runs_as_ours(http: Http) -> None:
    reply = await http.send("GET", await uploaded(http, "evil.html", b"<script>1</script>"))
    assert reply.headers["Content-Disposition"].startswith("attachment")
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Content-Security-Policy"] == "sandbox"


async def test_addresses_follow_the_host_that_the_client_uses(http: Http) -> None:
    await http.stream("r1", {})
    body = {"query": client_document("CreateRunFiles.core"), "variables": {**RUN, "files": ["x"]}}
    headers = {"Authorization": f"Bearer {http.server.key}", "Host": "gateway.docker:8080"}
    reply = await http.send("POST", "/graphql", json=body, headers=headers)
    url = reply.json()["data"]["createRunFiles"]["files"][0]["uploadUrl"]
    assert url.startswith("http://gateway.docker:8080/storage/runs/")


async def test_marking_tells_whether_the_files_are_there(http: Http) -> None:
    await uploaded(http, "there")
    await create_files(http, "absent")
    mark = client_document("MarkRunFilesUploaded.core")
    there = await http.data(mark, **RUN, files=["there"])
    absent = await http.data(mark, **RUN, files=["there", "absent"])
    assert there["markRunFilesUploaded"]["success"] is True
    assert absent["markRunFilesUploaded"]["success"] is False


async def test_files_of_no_run_are_an_error_and_not_null(http: Http) -> None:
    await http.stream("r1", {})
    reply = await http.ask(
        client_document("CreateRunFiles.core"), **{**RUN, "run": "r2"}, files=["x"]
    )
    assert reply.status == 404
    assert reply.json()["errors"][0]["message"] == "run tester/proj/r2 not found"


async def test_a_pattern_finds_files_by_name(http: Http) -> None:
    for name in ("a.json", "b.json", "c.txt"):
        await uploaded(http, name)
    variables = {"entity": "tester", "project": "proj", "name": "r1", "fileLimit": 1}
    names: list[str] = []
    cursor = None
    while True:
        data = await http.data(
            client_document("RunFiles.files"), **variables, pattern="%.json", fileCursor=cursor
        )
        page = data["project"]["run"]["files"]
        names += [edge["node"]["name"] for edge in page["edges"]]
        cursor = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert names == ["a.json", "b.json"]


async def test_a_deleted_file_is_gone_with_its_bytes(http: Http, server: Server) -> None:
    url = await uploaded(http)
    file = await file_of(http, "config.yaml")
    for _ in range(2):
        deleted = await http.data(
            client_document("deleteFiles.files"), files=[file["id"]], projectId=1
        )
        assert deleted["deleteFiles"]["success"] is True
    assert (await http.send("GET", url)).status == 404
    assert await server.rows("select * from run_files") == []


async def test_a_deleted_run_is_gone_with_its_lines_and_files(http: Http, server: Server) -> None:
    url = await uploaded(http)
    line = {"offset": 0, "content": ['{"_step":0}']}
    await http.stream("r1", {"files": {"wandb-history.jsonl": line, "output.log": line}})
    where = {"entity": "tester", "project": "proj", "name": "r1"}
    run = (await http.data(client_document("Run.lazy"), **where))["project"]["run"]
    await http.data(client_document("DeleteRun.plain"), id=run["id"])
    assert (await http.data(client_document("Run.lazy"), **where))["project"]["run"] is None
    assert (await http.send("GET", url)).status == 404
    for count in (
        "select count(*) from runs",
        "select count(*) from run_history",
        "select count(*) from run_console",
        "select count(*) from run_files",
    ):
        assert await server.rows(count) == [(0,)]


class FailingBlobs(Blobs):
    """Blobs whose store loses the connection in the middle, or ends too early."""

    error: OSError | None = None

    async def get(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        whole = await super().get(key, start=start, end=end)

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in whole:
                yield chunk[:100]
                if self.error is not None:
                    raise self.error
                return

        return chunks()


@pytest.mark.parametrize("error", [None, OSError("the store went away")])
async def test_a_download_that_breaks_off_is_not_taken_for_whole(
    http: Http, server: Server, error: OSError | None
) -> None:
    """The status is out by then: an error's text in place of the rest would be a silent lie."""
    download = await uploaded(http)
    services = server.services
    blobs = FailingBlobs.open(services.settings.blobs())
    assert isinstance(blobs, FailingBlobs)
    blobs.error = error
    failing = msgspec.structs.replace(services, blobs=blobs)
    async with listening(failing, services.settings) as url:
        path = download.removeprefix(server.url)
        with anyio.fail_after(10), pytest.raises(aiohttp.ClientError):
            await http.send("GET", url + path)
