"""The admin API: who may ask, and what is refused with the field that is wrong."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from admin_harness import ADMIN_KEY, VIEWER, Admin
from server_harness import Http, Server, Template, running_server

from launch_async.domain.secret import Secret

pytestmark = pytest.mark.anyio

OWN_KEY = "k" * 40


@pytest.fixture
async def server(tmp_path: Path, template: Template, anyio_backend: str) -> AsyncGenerator[Server]:
    async with running_server(
        tmp_path / "server", template, admin_key=Secret(ADMIN_KEY)
    ) as running:
        yield running


@pytest.fixture
def admin(http: Http) -> Admin:
    return Admin(http)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users"),
        ("POST", "/users"),
        ("DELETE", "/users/tester"),
        ("GET", "/teams"),
        ("GET", "/audit"),
    ],
)
async def test_without_an_admin_key_there_is_no_admin_api(
    http: Http, tmp_path: Path, template: Template, method: str, path: str
) -> None:
    async with running_server(tmp_path / "plain", template) as plain:
        for key in (ADMIN_KEY, plain.key):
            reply = await Admin(Http(http.session, plain)).ask(method, path, key=key)
            assert reply.status == 404


@pytest.mark.parametrize("key", [None, "", "wrong", "a" * 40, ADMIN_KEY + "a", ADMIN_KEY[:-1]])
async def test_a_wrong_admin_key_is_a_401(admin: Admin, key: str | None) -> None:
    reply = await admin.ask("GET", "/users", key=key)
    assert reply.status == 401
    assert "Authorization: Bearer KEY" in reply.json()["error"]


async def test_a_user_needs_to_be_an_admin(admin: Admin, server: Server) -> None:
    key = await admin.user("bob")
    assert (await admin.ask("GET", "/users", key=key)).status == 403
    assert (await admin.ask("GET", "/users", key=server.key)).status == 200


async def test_a_user_is_made_with_a_key_that_works_at_once(admin: Admin) -> None:
    given = {"username": "bob", "email": "bob@example.com"}
    reply = await admin.ask("POST", "/users", given)
    made = reply.json()
    assert reply.status == 201
    assert made.pop("created_at")
    key = made.pop("api_key")
    assert made == {**given, "admin": False, "service": False}
    viewer = (await admin.http.ask(VIEWER, key)).json()["data"]["viewer"]
    assert (viewer["username"], viewer["email"]) == ("bob", "bob@example.com")
    assert (await admin.upsert(key, "bob")).status == 200


async def test_a_user_may_be_given_a_key_a_service_account_and_admin(admin: Admin) -> None:
    key = await admin.user("ci", api_key=OWN_KEY, service=True, admin=True)
    assert key == OWN_KEY
    shown = await admin.done("GET", "/users/ci")
    assert (shown["service"], shown["admin"]) == (True, True)
    assert (await admin.ask("GET", "/users", key=OWN_KEY)).status == 200


async def test_a_key_is_shown_once_only(admin: Admin, server: Server) -> None:
    key = await admin.user("bob")
    for path in ("/users", "/users/bob", "/users/bob/keys", "/audit"):
        assert key.encode() not in (await admin.ask("GET", path)).body
    for table in ("api_keys", "audit_log"):
        assert key not in str(await server.rows(f"select * from {table}"))  # noqa: S608


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/users", {}, "username"),
        ("/users", {"username": 7}, "username"),
        ("/users", {"username": ""}, "username"),
        ("/users", {"username": "a/b"}, "username"),
        ("/users", {"username": "admin key"}, "username"),
        ("/users", {"username": "x" * 129}, "username"),
        ("/users", {"username": "x", "emial": "a@b.c"}, "emial"),
        ("/users", {"username": "x", "email": "nowhere"}, "email"),
        ("/users", {"username": "x", "email": "a b@c.d"}, "email"),
        ("/users", {"username": "x", "api_key": "short"}, "api_key"),
        ("/users", {"username": "x", "api_key": "with blank" * 5}, "api_key"),
        ("/users", {"username": "x", "admin": "yes"}, "admin"),
        ("/users", [], None),
        ("/users/tester/keys", {"description": "x" * 257}, "description"),
        ("/users/tester/keys", {"api_key": "short"}, "api_key"),
        ("/teams", {"members": []}, "name"),
        ("/teams", {"name": ".."}, "name"),
        ("/teams", {"name": "t", "members": [{"username": "nobody"}]}, "members[0].username"),
        ("/teams", {"name": "t", "members": [{}]}, "members[0].username"),
        (
            "/teams",
            {"name": "t", "members": [{"username": "tester", "role": "boss"}]},
            "members[0].role",
        ),
        (
            "/teams",
            {"name": "t", "members": [{"username": "tester"}, {"username": "tester"}]},
            "members[1].username",
        ),
    ],
)
async def test_bad_input_is_a_422_that_names_the_field_and_changes_nothing(
    admin: Admin, server: Server, path: str, body: Any, field: str | None
) -> None:
    reply = await admin.ask("POST", path, body)
    assert (reply.status, reply.json()["field"]) == (422, field), reply.json()
    assert reply.json()["error"]
    assert "short" not in reply.json()["error"]
    assert await server.rows("select name from entities") == [("tester",)]
    assert await server.rows("select count(*) from api_keys") == [(1,)]
    assert await server.rows("select * from audit_log") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=x", "limit"), ("after=x", "after"), ("page=2", "page")],
)
async def test_a_bad_parameter_is_named(admin: Admin, query: str, field: str) -> None:
    reply = await admin.ask("GET", f"/users?{query}")
    assert (reply.status, reply.json()["field"]) == (422, field)


async def test_a_body_that_is_no_json_is_a_400(admin: Admin) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    reply = await admin.http.send("POST", "/admin/v1/users", data=b"{", headers=headers)
    assert reply.status == 400


async def test_a_body_of_more_than_64_kb_is_a_413(admin: Admin) -> None:
    body = {"username": "x" * (64 * 1024)}
    assert (await admin.ask("POST", "/users", body)).status == 413


async def test_the_admin_key_itself_is_no_users_key(admin: Admin) -> None:
    assert (await admin.http.ask(VIEWER, ADMIN_KEY)).status == 401


async def test_an_admins_run_key_opens_nothing(admin: Admin) -> None:
    make = """mutation { upsertRunQueue(input: {entityName: "tester", projectName: "model-registry",
      queueName: "q", resourceType: "local-process", resourceConfig: "{}"}) { success } }"""
    await admin.http.data(make)
    push = """mutation { pushToRunQueueByName(input: {entityName: "tester",
      projectName: "model-registry", queueName: "q",
      runSpec: "{\\"entity\\":\\"tester\\",\\"project\\":\\"p\\",\\"job\\":\\"a/b/c:latest\\"}"})
      { runQueueItemId } }"""
    await admin.http.data(push)
    pop = 'mutation { popFromRunQueue(input: {queueName: "q"}) { runSpec } }'
    spec = (await admin.http.data(pop))["popFromRunQueue"]["runSpec"]
    assert (await admin.ask("GET", "/users", key=spec["_wandb_api_key"])).status == 403
