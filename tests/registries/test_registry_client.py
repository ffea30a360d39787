"""What the registry client asks, and what it makes of each answer."""

import base64
import hashlib
import json
import logging

import anyio
import pytest
from aiohttp import web
from known_logins import PLANTED, Logins, everything_said
from named_sites import session_where
from scripted_registry import (
    DIGEST,
    Site,
    answering,
    hanging,
    in_turn,
    manifest,
    scripted,
    wants,
)

from launch_async.adapters.registries.client import OciRegistry
from launch_async.adapters.registries.http import registry_session
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.image import ImageRef

pytestmark = pytest.mark.anyio

REPOSITORY = "team/nested/app"
PATH = f"/v2/{REPOSITORY}/manifests/v1"
BASIC = f"Basic {base64.b64encode(f'agent:{PLANTED}'.encode()).decode()}"


def image_at(site: Site, version: str = ":v1") -> ImageRef:
    return ImageRef.parse(f"{site.host}/{REPOSITORY}{version}")


async def test_an_image_is_found_by_one_head_request(session):
    async with scripted() as site:
        site.on("HEAD", PATH, manifest())
        assert await OciRegistry(session, Logins()).find(image_at(site)) == DIGEST
        assert site.asked == [f"HEAD {PATH}"]
        assert set(site.requests[0].headers["Accept"].split(", ")) == {
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        }


async def test_an_image_that_is_not_there_is_none(session):
    async with scripted() as site:
        assert await OciRegistry(session, Logins()).find(image_at(site)) is None


async def test_a_digest_is_asked_for_and_is_the_answer(session):
    async with scripted() as site:
        site.on("HEAD", f"/v2/{REPOSITORY}/manifests/{DIGEST}", answering(200))
        found = await OciRegistry(session, Logins()).find(image_at(site, f":v1@{DIGEST}"))
        assert found == DIGEST


@pytest.mark.parametrize("head", [answering(405), answering(501), answering(200)])
async def test_without_a_digest_from_head_the_manifest_is_read(session, head):
    content = json.dumps({"schemaVersion": 2})
    async with scripted() as site:
        site.on("HEAD", PATH, head)
        site.on("GET", PATH, answering(200, text=content))
        found = await OciRegistry(session, Logins()).find(image_at(site))
        assert found == f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


@pytest.mark.parametrize("page", ["<html>Welcome</html>", "[]", "{}"])
async def test_a_page_that_is_no_manifest_is_no_image(session, page):
    async with scripted() as site:
        site.on("HEAD", PATH, answering(200, headers={"Docker-Content-Digest": "none"}))
        site.on("GET", PATH, answering(200, text=page))
        with pytest.raises(Unavailable, match="is it a registry"):
            await OciRegistry(session, Logins()).find(image_at(site))


async def test_a_manifest_beyond_what_registries_take_is_not_read(session):
    async with scripted() as site:
        site.on("HEAD", PATH, answering(405))
        site.on("GET", PATH, answering(200, text=" " * ((4 << 20) + 1)))
        with pytest.raises(Unavailable, match="larger than 4096 KiB"):
            await OciRegistry(session, Logins()).find(image_at(site))


async def test_a_password_is_sent_once_it_is_asked_for_and_at_once_from_then_on(session):
    async with scripted() as site:
        challenge = 'Basic realm="x"'
        site.on("HEAD", PATH, wants(challenge, manifest(), valid=lambda sent: sent == BASIC))
        registry = OciRegistry(session, Logins("agent"))
        assert await registry.find(image_at(site)) == DIGEST
        assert site.authorizations == [None, BASIC]
        assert await registry.find(image_at(site)) == DIGEST
        assert site.authorizations == [None, BASIC, BASIC]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("username", [None, "agent"])
async def test_a_refusal_names_the_registry_and_the_remedy(session, status, username):
    async with scripted() as site:
        refusal = answering(status, headers={"WWW-Authenticate": "Basic"})
        site.on("HEAD", PATH, refusal)
        with pytest.raises(ItemError) as caught:
            await OciRegistry(session, Logins(username)).find(image_at(site))
    assert caught.value.reason is Reason.REGISTRY_DENIED
    text = str(caught.value)
    assert text.startswith(f"The registry {site.host} denies access to {REPOSITORY}: ")
    # A 403 comes without a question, so that no login was tried.
    tried = username is not None and status == 401
    assert ("renew it" in text) == tried
    assert (f"docker login {site.host}" in text) == (not tried)


@pytest.mark.parametrize("status", [403, 404])
async def test_what_is_hidden_from_strangers_is_found_with_a_login(session, status):
    async with scripted() as site:

        async def hide(request: web.Request) -> web.StreamResponse:
            known = request.headers.get("Authorization") == BASIC
            return await (manifest() if known else answering(status))(request)

        site.on("HEAD", PATH, hide)
        site.on("GET", "/v2/", answering(401, headers={"WWW-Authenticate": "Basic"}))
        registry = OciRegistry(session, Logins("agent"))
        assert await registry.find(image_at(site)) == DIGEST
        assert site.asked == [f"HEAD {PATH}", "GET /v2/", f"HEAD {PATH}"]
        assert await registry.find(image_at(site)) == DIGEST
        assert site.asked[3:] == [f"HEAD {PATH}"]


async def test_an_unknown_way_to_log_in_is_said(session):
    async with scripted() as site:
        site.on("HEAD", PATH, answering(401, headers={"WWW-Authenticate": "Negotiate"}))
        with pytest.raises(ItemError, match="Basic or Bearer"):
            await OciRegistry(session, Logins("agent")).find(image_at(site))


async def test_a_rotated_password_is_taken_at_the_next_use(session):
    async with scripted() as site:
        logins = Logins("agent", "old")
        valid = f"Basic {base64.b64encode(b'agent:new').decode()}"
        site.on("HEAD", PATH, wants("Basic", manifest(), valid=lambda sent: sent == valid))
        registry = OciRegistry(session, logins)
        with pytest.raises(ItemError):
            await registry.find(image_at(site))
        logins.password = "new"
        assert await registry.find(image_at(site)) == DIGEST


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_an_outage_is_unavailable_for_as_long_as_it_says(session, status):
    async with scripted() as site:
        site.on("HEAD", PATH, answering(status, headers={"Retry-After": "17"}))
        with pytest.raises(Unavailable) as caught:
            await OciRegistry(session, Logins()).find(image_at(site))
        assert caught.value.retry_after_seconds == 17
        assert site.host in str(caught.value)


async def test_a_registry_that_says_429_is_left_alone(session):
    async with scripted() as site:
        site.on("HEAD", PATH, answering(429, headers={"Retry-After": "100"}))
        registry = OciRegistry(session, Logins())
        with pytest.raises(Unavailable):
            await registry.find(image_at(site))
        with pytest.raises(Unavailable) as again:
            await registry.find(image_at(site, ":v2"))
        assert again.value.retry_after_seconds == pytest.approx(100, abs=30)
        assert site.asked == [f"HEAD {PATH}"]


async def test_a_registry_that_hangs_has_an_end(session):
    async with scripted() as site:
        site.on("HEAD", PATH, hanging())
        registry = OciRegistry(session, Logins(), call_timeout_seconds=0.2)
        with anyio.fail_after(10), pytest.raises(Unavailable, match="did not answer in time"):
            await registry.find(image_at(site))


async def test_a_whole_search_has_an_end(session):
    async with scripted() as site:
        site.on("HEAD", PATH, hanging())
        registry = OciRegistry(session, Logins(), find_timeout_seconds=0.2)
        with anyio.fail_after(10), pytest.raises(Unavailable, match=site.host):
            await registry.find(image_at(site))


async def test_a_sick_registry_is_asked_no_more_and_others_are_not_held_up(session):
    async with scripted() as sick, scripted() as well:
        sick.on("HEAD", PATH, answering(500))
        well.on("HEAD", PATH, manifest())
        registry = OciRegistry(session, Logins())
        for number in range(20):
            image = ImageRef.parse(f"{sick.host}/team/app{number % 3}:v1")
            sick.on("HEAD", f"/v2/team/app{number % 3}/manifests/v1", answering(500))
            with pytest.raises(Unavailable):
                await registry.find(image)
        assert len(sick.requests) == 5
        assert await registry.find(image_at(well)) == DIGEST


async def test_a_registry_that_nobody_runs_is_unavailable(session):
    async with scripted() as site:
        pass
    with pytest.raises(Unavailable, match=site.host):
        await OciRegistry(session, Logins()).find(image_at(site))


async def test_tls_is_spoken_on_loopback_too_if_the_registry_speaks_it(session, tls):
    async with scripted(tls) as site:
        site.on("HEAD", PATH, manifest())
        registry = OciRegistry(session, Logins())
        assert await registry.find(image_at(site)) == DIGEST
        assert await registry.find(image_at(site)) == DIGEST


async def test_a_registry_that_comes_back_with_tls_is_found_again(session, tls):
    async with scripted() as site:
        site.on("HEAD", PATH, manifest())
        image = image_at(site)
        registry = OciRegistry(session, Logins())
        assert await registry.find(image) == DIGEST
    async with scripted(tls, port=int(site.host.rpartition(":")[2])) as site:
        site.on("HEAD", PATH, manifest())
        with pytest.raises(Unavailable):
            await registry.find(image)
        assert await registry.find(image) == DIGEST


async def test_a_registry_of_an_unknown_ca_is_not_trusted(tls):
    async with scripted(tls) as site, registry_session() as session:
        with pytest.raises(Unavailable, match="name its CA with SSL_CERT_FILE"):
            await OciRegistry(session, Logins("agent")).find(image_at(site))
        assert site.requests == []


async def test_plain_http_is_not_spoken_with_others_than_loopback(ca_file):
    async with scripted() as site, session_where({"far.example.com": site}, ca_file) as session:
        site.on("HEAD", PATH, manifest())
        image = ImageRef.parse(f"far.example.com/{REPOSITORY}:v1")
        with pytest.raises(Unavailable, match=r"far\.example\.com"):
            await OciRegistry(session, Logins()).find(image)
        assert site.requests == []
        # Configured as insecure, like Docker's daemon has it, it is.
        registry = OciRegistry(session, Logins(), insecure_hosts=["far.example.com"])
        assert await registry.find(image) == DIGEST


async def test_other_hosts_are_reached_through_the_proxy(session, monkeypatch):
    async with scripted() as proxy:
        proxy.on("CONNECT", "far.example.com:443", answering(407))
        monkeypatch.setenv("HTTPS_PROXY", f"http://agent:{PLANTED}@{proxy.host}")
        image = ImageRef.parse(f"far.example.com/{REPOSITORY}:v1")
        with pytest.raises(Unavailable, match="the proxy answered") as caught:
            await OciRegistry(session, Logins()).find(image)
        assert [request.method for request in proxy.requests] == ["CONNECT"]
    said = everything_said(caught.value)
    assert PLANTED not in said
    assert BASIC.partition(" ")[2] not in said


async def test_docker_hub_is_asked_where_it_is(ca_file, tls):
    async with (
        scripted(tls) as hub,
        scripted(tls) as auth,
        session_where({"registry-1.docker.io": hub, "auth.docker.io": auth}, ca_file) as session,
    ):
        path = "/v2/library/python/manifests/3.11"
        realm = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
        hub.on("HEAD", path, wants(realm, manifest(), valid=lambda sent: sent == "Bearer t1"))
        auth.on("GET", "/token", answering(200, text='{"token": "t1", "expires_in": 300}'))
        found = await OciRegistry(session, Logins()).find(ImageRef.parse("python:3.11"))
        assert found == DIGEST
        assert dict(auth.requests[0].query) == {
            "service": "registry.docker.io",
            "scope": "repository:library/python:pull",
        }


async def test_a_redirect_is_followed_without_the_login_of_this_host(session):
    async with scripted() as site, scripted() as other:
        moved = answering(307, headers={"Location": f"{other.url}/moved"})
        site.on("HEAD", PATH, wants("Basic", moved, valid=lambda sent: sent == BASIC))
        other.on("HEAD", "/moved", manifest())
        assert await OciRegistry(session, Logins("agent")).find(image_at(site)) == DIGEST
        assert other.authorizations == [None]


async def test_a_redirect_on_the_same_host_keeps_the_login(session):
    async with scripted() as site:
        moved = answering(302, headers={"Location": "/moved"})
        site.on("HEAD", PATH, wants("Basic", moved, valid=lambda sent: sent == BASIC))
        site.on("HEAD", "/moved", wants("Basic", manifest(), valid=lambda sent: sent == BASIC))
        assert await OciRegistry(session, Logins("agent")).find(image_at(site)) == DIGEST


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
async def test_a_host_that_was_redirected_to_gets_no_login(session, scheme):
    async with scripted() as site, scripted() as other:
        challenge = f'{scheme} realm="{other.url}/token"'
        site.on("HEAD", PATH, answering(307, headers={"Location": f"{other.url}/moved"}))
        other.on("HEAD", "/moved", answering(401, headers={"WWW-Authenticate": challenge}))
        with pytest.raises(ItemError, match="wants a login of its own"):
            await OciRegistry(session, Logins("agent")).find(image_at(site))
        assert other.authorizations == [None]


@pytest.mark.parametrize(
    "location", ["http://far.example.com/x", "http://127.0.0.1:1/x", "ftp://127.0.0.1/x"]
)
async def test_a_redirect_out_of_tls_is_refused(session, tls, location):
    async with scripted(tls) as site:
        site.on("HEAD", PATH, answering(307, headers={"Location": location}))
        with pytest.raises(ItemError, match="configure it as insecure"):
            await OciRegistry(session, Logins("agent")).find(image_at(site))


@pytest.mark.parametrize("location", ["http://[", "//", ""])
async def test_a_redirect_to_nowhere_is_no_answer(session, location):
    async with scripted() as site:
        site.on("HEAD", PATH, answering(307, headers={"Location": location}))
        with pytest.raises(Unavailable):
            await OciRegistry(session, Logins("agent")).find(image_at(site))


async def test_redirects_in_circles_end(session):
    async with scripted() as site:
        site.on("HEAD", PATH, answering(307, headers={"Location": PATH}))
        with pytest.raises(Unavailable, match="in circles"):
            await OciRegistry(session, Logins()).find(image_at(site))
        assert len(site.requests) == 6


async def test_no_error_and_no_log_line_shows_a_password_or_a_token(session, caplog):
    caplog.set_level(logging.DEBUG)
    token = "planted-token-8d21"

    async def nonsense(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 200 OK\r\nno header at all\r\n\r\n")
        request.transport.close()
        return web.Response()

    async with scripted() as site, scripted() as auth:
        site.on("HEAD", PATH, wants(
            f'Bearer realm="{auth.url}/token"', in_turn(manifest(), nonsense, answering(403)),
            valid=lambda sent: sent == f"Bearer {token}",
        ))  # fmt: skip
        auth.on("GET", "/token", answering(200, text=json.dumps({"token": token})))
        registry = OciRegistry(session, Logins("agent"))
        assert await registry.find(image_at(site)) == DIGEST
        said = [repr(registry)]
        for kind in (Unavailable, ItemError):
            with pytest.raises(kind) as caught:
                await registry.find(image_at(site))
            said.append(everything_said(caught.value))
        auth.on("GET", "/token", nonsense)
        with pytest.raises(Unavailable) as caught:
            await OciRegistry(session, Logins("agent")).find(image_at(site))
        said.append(everything_said(caught.value))
        assert auth.authorizations[-1] == BASIC
    text = "\n".join([*said, caplog.text])
    for secret in (PLANTED, token, BASIC.partition(" ")[2]):
        assert secret not in text
