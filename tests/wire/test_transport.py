"""The transport against a real HTTP server that misbehaves as its script says."""

import base64
import ipaddress
import ssl
import subprocess
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from anyio.abc import SocketAttribute, SocketStream
from scripted_api import ScriptedApi, scripted_api

from launch_async.domain.errors import AgentUnfit, ConfigError, Unavailable
from launch_async.domain.secret import Secret
from launch_async.wire.network import ca_file_of, proxy_for
from launch_async.wire.transport import RequestRefused, Transport

pytestmark = pytest.mark.anyio

KEY = "k" * 40
OK = {"data": {"viewer": {"entity": "me"}}}
WITHIN_SECONDS = 10.0
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def api(anyio_backend: str) -> AsyncGenerator[ScriptedApi]:
    async with scripted_api() as running:
        yield running


async def ask(
    api: ScriptedApi,
    *,
    max_tries: int = 3,
    ca_file: Path | None = None,
    call_timeout_seconds: float = 30.0,
) -> dict:
    with anyio.fail_after(WITHIN_SECONDS):
        async with Transport.open(
            base_url=api.url,
            api_key=Secret(KEY),
            max_tries=max_tries,
            ca_file=ca_file,
            call_timeout_seconds=call_timeout_seconds,
        ) as transport:
            return await transport.execute("{ viewer { entity } }", {})


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_passing_fault_is_tried_again(api: ScriptedApi, status: int):
    api.then(status).then(200, OK)
    assert await ask(api) == OK["data"]
    assert len(api.requests) == 2


async def test_a_fault_that_stays_is_unavailable_and_tried_no_more_than_allowed(api: ScriptedApi):
    for _ in range(5):
        api.then(503, {"error": "migrating"})
    with pytest.raises(Unavailable, match="answered 503: migrating; tried 3 times"):
        await ask(api)
    assert len(api.requests) == 3


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("1", 1, 1),
        ("86400", 3600, 3600),
        ("9" * 400, 3600, 3600),
        ("²", None, None),
        ("soon", None, None),
        ("-1", None, None),
        ("{in 100 s}", 60, 101),
        ("Thu, 01 Jan 1970 00:00:00 -0000", 0, 0),
    ],
)
async def test_retry_after_is_understood_within_reason(
    api: ScriptedApi, value: str, least: float | None, most: float | None
):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    api.then(429, Retry_After=value.replace("{in 100 s}", soon))
    with pytest.raises(Unavailable) as caught:
        await ask(api, max_tries=1)
    asked = caught.value.retry_after_seconds
    if least is None or most is None:
        assert asked is None
    else:
        assert asked is not None
        assert least <= asked <= most


async def test_retry_after_is_waited_for(api: ScriptedApi):
    api.then(429, Retry_After="1").then(200, OK)
    began = anyio.current_time()
    await ask(api)
    assert anyio.current_time() - began >= 1.0


async def test_a_refused_key_makes_the_agent_unfit_at_once(api: ScriptedApi):
    api.then(401, {"error": "invalid key"})
    with pytest.raises(AgentUnfit, match="refused the API key: invalid key") as caught:
        await ask(api)
    assert len(api.requests) == 1
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 501])
async def test_a_refusal_carries_the_services_own_text(api: ScriptedApi, status: int):
    api.then(status, {"errors": [{"message": "no such queue"}, {"message": "ask Ann"}]})
    with pytest.raises(RequestRefused, match="no such queue; ask Ann") as caught:
        await ask(api)
    assert caught.value.status == status
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("errors", "text"),
    [
        ([{"message": "denied"}], "denied"),
        (["denied"], "denied"),
        ({"x": 1}, "no m"),
        ([{}], "no m"),
    ],
)
async def test_graphql_errors_with_200_are_a_refusal(api: ScriptedApi, errors: object, text: str):
    api.then(200, {"data": None, "errors": errors})
    with pytest.raises(RequestRefused, match=text):
        await ask(api)


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"", b"[]", b'"text"', b'{"data": [1]}', b'{"data": 1}', b"[" * 200_000, b"\xff"],
)
async def test_what_no_graphql_api_says_is_an_outage(api: ScriptedApi, body: bytes):
    api.then(200, body)
    with pytest.raises(Unavailable, match="is it a W&B API"):
        await ask(api)


async def test_an_endless_answer_is_cut_off(api: ScriptedApi):
    api.script.append(endless)
    with pytest.raises(Unavailable, match="larger than 64 MiB"):
        await ask(api)
    assert len(api.requests) == 1


async def test_an_endless_file_is_cut_off(api: ScriptedApi, tmp_path: Path):
    api.script.append(endless)
    async with Transport.open(base_url=api.url, api_key=Secret(KEY)) as transport:
        with anyio.fail_after(WITHIN_SECONDS), pytest.raises(RequestRefused, match="larger than"):
            await transport.download(f"{api.url}/file", tmp_path / "file", max_bytes=1 << 20)
    assert (tmp_path / "file").stat().st_size <= 1 << 20


async def test_a_file_may_take_longer_than_a_call(api: ScriptedApi, tmp_path: Path):
    api.script.append(slow_file)
    async with Transport.open(
        base_url=api.url, api_key=Secret(KEY), call_timeout_seconds=0.2, max_tries=1
    ) as transport:
        await transport.download(f"{api.url}/file", tmp_path / "file", max_bytes=100)
    assert (tmp_path / "file").read_bytes() == b"01234"


async def test_a_store_that_stops_reading_is_not_waited_for_without_an_end():
    async def accept(stream: SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, accept)
        _, port = listener.listeners[0].extra_attributes[SocketAttribute.local_address]()
        url = f"http://127.0.0.1:{port}"
        async with Transport.open(
            base_url=url, api_key=Secret(KEY), max_tries=1, stall_seconds=0.05
        ) as transport:
            with anyio.fail_after(WITHIN_SECONDS), pytest.raises(Unavailable, match="in time"):
                await transport.put(f"{url}/file", bytes(32 << 20), {})
        tasks.cancel_scope.cancel()


async def test_a_file_that_was_cut_short_is_fetched_again(api: ScriptedApi, tmp_path: Path):
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        await response.write(b"01234")
        assert request.transport is not None
        request.transport.close()
        return response

    api.script.append(cut)
    api.then(200, b"0123456789")
    async with Transport.open(base_url=api.url, api_key=Secret(KEY)) as transport:
        await transport.download(f"{api.url}/file", tmp_path / "file", max_bytes=100)
    assert (tmp_path / "file").read_bytes() == b"0123456789"


async def test_a_slow_answer_is_an_outage(api: ScriptedApi):
    async def slow(_: web.Request) -> web.Response:
        await anyio.sleep(2)
        return web.json_response(OK)

    api.script.extend([slow, slow])
    with pytest.raises(Unavailable, match="did not answer in time"):
        await ask(api, max_tries=2, call_timeout_seconds=0.1)


async def test_a_refused_connection_is_an_outage(api: ScriptedApi):
    api.url = "http://127.0.0.1:9"
    with pytest.raises(Unavailable, match="cannot be reached"):
        await ask(api, max_tries=2)


@pytest.mark.parametrize("address", ["http://:80:80/", "no address", "ftp://host/file"])
async def test_an_address_that_is_none_is_refused_and_not_tried_again(
    api: ScriptedApi, tmp_path: Path, address: str
):
    async with Transport.open(base_url=api.url, api_key=Secret(KEY), max_tries=1) as transport:
        with pytest.raises((RequestRefused, Unavailable)):
            await transport.download(address, tmp_path / "file", max_bytes=1)


async def test_only_the_api_gets_the_key(api: ScriptedApi):
    async with (
        scripted_api() as store,
        Transport.open(base_url=api.url, api_key=Secret(KEY)) as transport,
    ):
        await transport.put(f"{store.url}/bucket", b"1", {"X-Goog-Meta": "a"})
        await transport.put(f"{api.url}/signed?s=1%2B1%3D2&t=a%20b", b"3", {})
    assert "Authorization" not in store.requests[0].headers
    assert store.requests[0].headers["X-Goog-Meta"] == "a"
    sent = api.requests[-1]
    assert (
        sent.headers["Authorization"] == "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
    )
    assert sent.raw_path == "/signed?s=1%2B1%3D2&t=a%20b"


async def test_the_key_does_not_follow_a_redirect_to_another_host(api: ScriptedApi, tmp_path: Path):
    async with scripted_api() as store:
        api.then(302, Location=f"{store.url}/object?sig=%2F")
        store.then(200, b"content")
        async with Transport.open(base_url=api.url, api_key=Secret(KEY)) as transport:
            await transport.download(f"{api.url}/file", tmp_path / "file", max_bytes=100)
    assert "Authorization" not in store.requests[0].headers
    assert store.requests[0].raw_path == "/object?sig=%2F"


async def test_a_netrc_entry_of_the_host_changes_nothing(
    api: ScriptedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login other password {'o' * 40}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    await ask(api.then(200, OK))
    expected = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
    assert api.requests[0].headers["Authorization"] == expected


async def test_http_proxy_is_used(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch):
    async with scripted_api() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        proxy.then(200, OK)
        api.url = "http://wandb.example"
        assert await ask(api) == OK["data"]
    assert proxy.requests[0].url.host == "wandb.example"


@pytest.mark.parametrize("listed", ["wandb.example", "wandb.example:8080", ".example", "*"])
async def test_no_proxy_is_heeded(listed: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert proxy_for("http://wandb.example:8080/graphql") == "http://127.0.0.1:9"
    monkeypatch.setenv("no_proxy", listed)
    assert proxy_for("http://wandb.example:8080/graphql") is None


async def test_loopback_is_never_behind_a_proxy(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert await ask(api.then(200, OK)) == OK["data"]


async def test_a_proxy_of_another_kind_is_named(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
    api.url = "http://wandb.example"
    with pytest.raises(AgentUnfit, match="HTTP_PROXY must be an http"):
        await ask(api)


async def test_a_custom_ca_is_trusted(tmp_path: Path):
    certificate, key = make_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    ca_file = ca_file_of({"SSL_CERT_FILE": str(certificate)})
    async with scripted_api(tls) as api:
        assert await ask(api.then(200, OK), ca_file=ca_file) == OK["data"]
        with pytest.raises(Unavailable, match="name its CA with SSL_CERT_FILE"):
            await ask(api, max_tries=1)


async def test_a_ca_file_that_is_none_is_a_wrong_setting(api: ScriptedApi, tmp_path: Path):
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"ca\.pem is not a readable bundle"):
        await ask(api, ca_file=tmp_path / "ca.pem")


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while request.transport is not None and not request.transport.is_closing():
        await response.write(b"x" * (1 << 16))
    return response


async def slow_file(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(5):
        await response.write(str(number).encode())
        await anyio.sleep(0.1)
    return response


def make_certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    name = f"subjectAltName=IP:{ipaddress.ip_address('127.0.0.1')}"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=t", "-addext", name),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key
