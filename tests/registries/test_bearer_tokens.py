"""Tokens: asked for once for all, kept apart by whose they are, renewed, and never leaked."""

import base64
import json

import anyio
import pytest
from known_logins import PLANTED, Logins
from scripted_registry import DIGEST, Site, answering, hanging, in_turn, manifest, scripted, wants

from launch_async.adapters.registries.client import OciRegistry
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.image import ImageRef
from launch_async.wire.docker_config import IDENTITY_TOKEN_USER

pytestmark = pytest.mark.anyio

BASIC = f"Basic {base64.b64encode(f'agent:{PLANTED}'.encode()).decode()}"


def path_of(repository: str) -> str:
    return f"/v2/{repository}/manifests/v1"


def image_at(site: Site, repository: str = "team/app") -> ImageRef:
    return ImageRef.parse(f"{site.host}/{repository}:v1")


def bearer(site: Site, auth: Site, *tokens: str, repository: str = "team/app") -> None:
    """Let the site's repository want a token of `auth`, and let these be good."""
    scope = f"repository:{repository}:pull"
    challenge = f'Bearer realm="{auth.url}/token?a=b",service="reg",scope="{scope}"'
    good = {f"Bearer {token}" for token in tokens}
    site.on("HEAD", path_of(repository), wants(challenge, manifest(), valid=good.__contains__))


def token(value: str, **more: object) -> str:
    return json.dumps({"token": value, **more})


async def test_a_token_is_asked_for_as_the_registry_says_and_kept(session):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1")
        auth.on("GET", "/token", answering(200, text=token("t1", expires_in=300)))
        registry = OciRegistry(session, Logins("agent"))
        assert await registry.find(image_at(site)) == DIGEST
        assert await registry.find(image_at(site)) == DIGEST
        assert dict(auth.requests[0].query) == {
            "a": "b",
            "service": "reg",
            "scope": "repository:team/app:pull",
        }
        assert auth.authorizations == [BASIC]
        assert site.authorizations == [None, "Bearer t1", "Bearer t1"]


async def test_without_a_login_the_token_is_the_anonymous_one(session):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1")
        auth.on("GET", "/token", answering(200, text=json.dumps({"access_token": "t1"})))
        assert await OciRegistry(session, Logins()).find(image_at(site)) == DIGEST
        assert auth.authorizations == [None]


async def test_an_identity_token_is_exchanged_in_a_form(session):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1")
        auth.on("POST", "/token", answering(200, text=json.dumps({"access_token": "t1"})))
        registry = OciRegistry(session, Logins(IDENTITY_TOKEN_USER, "refresh"))
        assert await registry.find(image_at(site)) == DIGEST
        assert auth.forms == [
            {
                "grant_type": "refresh_token",
                "client_id": "launch-async",
                "refresh_token": "refresh",
                "service": "reg",
                "scope": "repository:team/app:pull",
            }
        ]
        assert auth.authorizations == [None]


async def test_an_identity_token_is_no_password(session):
    async with scripted() as site:
        site.on("HEAD", path_of("team/app"), wants("Basic", manifest(), valid=lambda _: False))
        with pytest.raises(ItemError, match="identity token"):
            await OciRegistry(session, Logins(IDENTITY_TOKEN_USER)).find(image_at(site))
        assert site.authorizations == [None]


async def test_all_who_ask_at_once_share_one_token(session):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1")
        auth.on("GET", "/token", answering(200, text=token("t1")))
        registry = OciRegistry(session, Logins("agent"))
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(registry.find, image_at(site))
        assert len(auth.requests) == 1


async def test_all_who_ask_at_once_share_one_failure(session):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1")
        auth.on("GET", "/token", answering(503))
        registry = OciRegistry(session, Logins("agent"))
        failures: list[Unavailable] = []

        async def find() -> None:
            with pytest.raises(Unavailable) as caught:
                await registry.find(image_at(site))
            failures.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(find)
        assert len(failures) == 10
        assert len(auth.requests) <= 2


async def test_a_token_is_for_one_repository(session):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1")
        bearer(site, auth, "t2", repository="team/other")
        answers = [answering(200, text=token(name)) for name in ("t1", "t2")]
        auth.on("GET", "/token", in_turn(*answers))
        registry = OciRegistry(session, Logins("agent"))
        assert await registry.find(image_at(site)) == DIGEST
        assert await registry.find(image_at(site, "team/other")) == DIGEST
        scopes = [request.query["scope"] for request in auth.requests]
        assert scopes == ["repository:team/app:pull", "repository:team/other:pull"]


async def test_a_token_is_for_one_login(session):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1")
        auth.on("GET", "/token", answering(200, text=token("t1")))
        logins = Logins("agent", "one")
        registry = OciRegistry(session, logins)
        await registry.find(image_at(site))
        logins.password = "two"
        await registry.find(image_at(site))
        assert len(auth.requests) == 2


async def test_an_expired_token_is_not_sent(session):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1", "t2")
        auth.on("GET", "/token", in_turn(
            answering(200, text=token("t1", expires_in=0)), answering(200, text=token("t2")),
        ))  # fmt: skip
        registry = OciRegistry(session, Logins("agent"))
        for _ in range(3):
            assert await registry.find(image_at(site)) == DIGEST
        assert site.authorizations == [None, "Bearer t1", "Bearer t2", "Bearer t2"]


async def test_a_token_that_the_registry_takes_no_more_is_replaced(session):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1")
        auth.on("GET", "/token", in_turn(
            answering(200, text=token("t1", expires_in=3600)), answering(200, text=token("t2")),
        ))  # fmt: skip
        registry = OciRegistry(session, Logins("agent"))
        assert await registry.find(image_at(site)) == DIGEST
        bearer(site, auth, "t2")
        assert await registry.find(image_at(site)) == DIGEST
        assert site.authorizations[2:] == ["Bearer t1", "Bearer t2"]
        assert len(auth.requests) == 2


async def test_a_registry_that_takes_no_token_is_asked_twice_and_no_more(session):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth)
        auth.on("GET", "/token", answering(200, text=token("t1")))
        with pytest.raises(ItemError, match="renew it"):
            await OciRegistry(session, Logins("agent")).find(image_at(site))
        assert len(site.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_login_that_gets_no_token_is_refused(session, status):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1")
        auth.on("GET", "/token", answering(status, text=f"no, not with {PLANTED}"))
        with pytest.raises(ItemError) as caught:
            await OciRegistry(session, Logins("agent")).find(image_at(site))
    assert caught.value.reason is Reason.REGISTRY_DENIED
    assert f"{auth.host} gives no token ({status})" in str(caught.value)
    assert site.host in str(caught.value)
    assert PLANTED not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    ["", "<html>", "{}", "[]", '{"token": ""}', '{"token": "a\\r\\nb"}', '{"token": "é"}', "null"],
)
async def test_an_answer_without_a_token_is_an_outage(session, body):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1")
        auth.on("GET", "/token", answering(200, text=body))
        with pytest.raises(Unavailable, match="without a token"):
            await OciRegistry(session, Logins("agent")).find(image_at(site))


async def test_an_endless_answer_is_not_read_to_its_end(session):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1")
        auth.on("GET", "/token", answering(200, text=token("t" * (1 << 20))))
        with pytest.raises(Unavailable, match="larger than 256 KiB"):
            await OciRegistry(session, Logins("agent")).find(image_at(site))


async def test_a_token_server_that_asks_for_time_gets_it(session):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1")
        auth.on("GET", "/token", answering(429, headers={"Retry-After": "9"}))
        with pytest.raises(Unavailable) as caught:
            await OciRegistry(session, Logins("agent")).find(image_at(site))
        assert caught.value.retry_after_seconds == 9


async def test_a_token_server_that_hangs_has_an_end(session):
    async with scripted() as site, scripted() as auth:
        bearer(site, auth, "t1")
        auth.on("GET", "/token", hanging())
        registry = OciRegistry(session, Logins("agent"), call_timeout_seconds=0.3)
        with anyio.fail_after(10), pytest.raises(Unavailable, match=auth.host):
            await registry.find(image_at(site))


async def test_a_registry_with_tls_gets_no_password_sent_in_plain_http(session, tls):
    async with scripted(tls) as site, scripted() as auth:
        bearer(site, auth, "t1")
        with pytest.raises(ItemError, match="plain HTTP"):
            await OciRegistry(session, Logins("agent")).find(image_at(site))
        assert auth.requests == []


@pytest.mark.parametrize(
    "realm", ["http://far.example.com/token", "ftp://127.0.0.1/token", "/token", "http://[", "x"]
)
async def test_a_realm_that_may_not_be_trusted_gets_nothing(session, realm):
    async with scripted() as site:
        challenge = f'Bearer realm="{realm}",service="reg"'
        site.on("HEAD", path_of("team/app"), wants(challenge, manifest(), valid=lambda _: False))
        with pytest.raises(ItemError) as caught:
            await OciRegistry(session, Logins("agent")).find(image_at(site))
    assert caught.value.reason is Reason.REGISTRY_DENIED


async def test_a_realm_does_not_bring_its_own_login(session):
    async with scripted() as site, scripted() as auth:
        challenge = f'Bearer realm="http://a:b@{auth.host}/token"'
        good = wants(challenge, manifest(), valid=lambda sent: sent == "Bearer t1")
        site.on("HEAD", path_of("team/app"), good)
        auth.on("GET", "/token", answering(200, text=token("t1")))
        assert await OciRegistry(session, Logins()).find(image_at(site)) == DIGEST
        assert auth.authorizations == [None]


async def test_a_token_server_that_leads_elsewhere_does_not_take_the_password_along(session):
    async with scripted() as site, scripted() as auth, scripted() as other:
        bearer(site, auth, "t1")
        auth.on("GET", "/token", answering(307, headers={"Location": f"{other.url}/token"}))
        other.on("GET", "/token", answering(200, text=token("t1")))
        assert await OciRegistry(session, Logins("agent")).find(image_at(site)) == DIGEST
        assert auth.authorizations == [BASIC]
        assert other.authorizations == [None]
