"""Users, keys and teams by the admin API: what each change does at once."""

from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest
from admin_harness import ADMIN_KEY, UPSERT, VIEWER, Admin
from server_harness import Http, Server, Template, running_server

from client_documents import client_document
from launch_async.domain.secret import Secret
from launch_async.server.artifact_sweep import sweep_once
from launch_async.server.context import utc_now

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path, template: Template, anyio_backend: str) -> AsyncGenerator[Server]:
    async with running_server(
        tmp_path / "server", template, admin_key=Secret(ADMIN_KEY)
    ) as running:
        yield running


@pytest.fixture
def admin(http: Http) -> Admin:
    return Admin(http)


@pytest.mark.parametrize("kind", ["/users", "/teams"])
@pytest.mark.parametrize("name", ["tester", "team"])
async def test_users_and_teams_share_their_names(admin: Admin, kind: str, name: str) -> None:
    await admin.done("POST", "/teams", {"name": "team"})
    field = "username" if kind == "/users" else "name"
    reply = await admin.ask("POST", kind, {field: name})
    assert reply.status == 409
    assert "is taken" in reply.json()["error"]


async def test_another_users_key_is_a_409(admin: Admin, server: Server) -> None:
    reply = await admin.ask("POST", "/users", {"username": "bob", "api_key": server.key})
    assert reply.status == 409
    assert await server.rows("select username from users") == [("tester",)]


@pytest.mark.parametrize("what", ["/users", "/teams"])
async def test_lists_are_paged(admin: Admin, what: str) -> None:
    field = {"/users": "username", "/teams": "name"}[what]
    made = [f"n{number}" for number in range(5)]
    for name in made:
        await admin.done("POST", what, {field: name})
    found: list[str] = []
    after = "0"
    while after is not None:
        page = await admin.done("GET", f"{what}?limit=2&after={after}")
        names = [each[field] for each in page[what[1:]]]
        assert len(names) <= 2
        found += names
        after = page["next"]
    assert [name for name in found if name != "tester"] == made


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users/nobody"),
        ("DELETE", "/users/nobody"),
        ("GET", "/users/nobody/keys"),
        ("POST", "/users/nobody/keys"),
        ("DELETE", "/users/nobody/keys/1"),
        ("DELETE", "/users/tester/keys/999"),
        ("DELETE", "/users/tester/keys/x"),
        ("GET", "/teams/nobody"),
        ("DELETE", "/teams/nobody"),
        ("GET", "/teams/tester"),
        ("DELETE", "/teams/tester"),
        ("DELETE", "/teams/team/members/tester"),
    ],
)
async def test_what_is_not_there_is_a_404(admin: Admin, method: str, path: str) -> None:
    await admin.done("POST", "/teams", {"name": "team"})
    assert (await admin.ask(method, path)).status == 404


async def test_keys_are_made_listed_and_revoked(admin: Admin) -> None:
    first = await admin.user("bob")
    made = await admin.ask("POST", "/users/bob/keys", {"description": "laptop"})
    assert made.status == 201
    second = made.json()
    listed = (await admin.done("GET", "/users/bob/keys"))["keys"]
    assert [key["hint"] for key in listed] == [first[-4:], second["api_key"][-4:]]
    assert listed[1]["description"] == "laptop"
    await admin.done("DELETE", f"/users/bob/keys/{second['id']}")
    assert (await admin.http.ask(VIEWER, second["api_key"])).status == 401
    assert (await admin.http.ask(VIEWER, first)).status == 200
    assert (await admin.ask("DELETE", f"/users/bob/keys/{second['id']}")).status == 404
    again = await admin.ask("POST", "/users/bob/keys", {"api_key": second["api_key"]})
    assert again.status == 409


async def test_a_key_is_revoked_by_its_own_user_only(admin: Admin, server: Server) -> None:
    await admin.user("bob")
    ((key_id,),) = await server.rows("select id from api_keys where user_id = 1")
    assert (await admin.ask("DELETE", f"/users/bob/keys/{key_id}")).status == 404
    assert (await admin.http.ask(VIEWER)).status == 200


async def test_a_team_lets_its_members_in_by_their_roles(admin: Admin) -> None:
    keys = {role: await admin.user(role) for role in ("viewer", "member", "admin", "stranger")}
    members = [{"username": role, "role": role} for role in ("viewer", "member", "admin")]
    made = await admin.done("POST", "/teams", {"name": "team", "members": members})
    assert sorted(made["members"], key=str) == sorted(members, key=str)
    ask = client_document("EntityIsTeam.api")
    seen = {
        name: (await admin.http.ask(ask, key, entity="team")).json()["data"]["entity"] is not None
        for name, key in keys.items()
    }
    assert seen == {"viewer": True, "member": True, "admin": True, "stranger": False}
    statuses = {name: (await admin.upsert(key, "team", name)).status for name, key in keys.items()}
    assert statuses == {"viewer": 403, "member": 200, "admin": 200, "stranger": 403}


async def test_the_refusal_of_a_viewer_names_the_role_that_it_takes(admin: Admin) -> None:
    key = await admin.user("bob")
    members = [{"username": "bob", "role": "viewer"}]
    await admin.done("POST", "/teams", {"name": "team", "members": members})
    refusal = (await admin.upsert(key, "team")).json()["errors"][0]["message"]
    assert "needs the role member in 'team', and yours is viewer" in refusal


async def test_a_team_may_have_no_members_at_first(admin: Admin) -> None:
    assert (await admin.done("POST", "/teams", {"name": "team"}))["members"] == []
    assert (await admin.done("GET", "/teams/team"))["members"] == []


async def test_a_members_role_changes_at_once(admin: Admin) -> None:
    key = await admin.user("bob")
    await admin.done("POST", "/teams", {"name": "team"})
    statuses = [(await admin.upsert(key, "team")).status]
    for role in ("member", "viewer"):
        await admin.done("PUT", "/teams/team/members/bob", {"role": role})
        statuses.append((await admin.upsert(key, "team")).status)
    assert (await admin.done("GET", "/users/bob"))["teams"] == [{"name": "team", "role": "viewer"}]
    await admin.done("DELETE", "/teams/team/members/bob")
    statuses.append((await admin.upsert(key, "team")).status)
    assert statuses == [403, 200, 403, 403]
    reply = await admin.ask("PUT", "/teams/team/members/bob", {"role": "king"})
    assert (reply.status, reply.json()["field"]) == (422, "role")


async def test_a_deleted_users_keys_die_and_what_is_the_teams_stays(
    admin: Admin, server: Server
) -> None:
    key = await admin.user("bob")
    await admin.done("POST", "/teams", {"name": "team", "members": [{"username": "bob"}]})
    assert (await admin.upsert(key, "team")).status == 200
    await admin.done("DELETE", "/users/bob")
    assert (await admin.http.ask(VIEWER, key)).status == 401
    assert await server.rows("select name, user_id from runs") == [("r", None)]
    assert (await admin.done("GET", "/teams/team"))["members"] == []
    assert (await admin.ask("GET", "/users/bob")).status == 404


@pytest.mark.parametrize("kind", ["users", "teams"])
async def test_what_owns_runs_is_deleted_by_force_only_and_its_files_go_along(
    admin: Admin, server: Server, kind: str
) -> None:
    key = await admin.user("bob")
    if kind == "teams":
        await admin.done("POST", "/teams", {"name": "gone", "members": [{"username": "bob"}]})
    owner = {"users": "bob", "teams": "gone"}[kind]
    assert (await admin.upsert(key, owner)).status == 200
    made = await admin.http.ask(
        client_document("CreateRunFiles.core"),
        key,
        entity=owner,
        project="p",
        run="r",
        files=["f.txt"],
    )
    (file,) = made.json()["data"]["createRunFiles"]["files"]
    assert (await admin.http.send("PUT", file["uploadUrl"], data=b"x")).status == 200
    ((run_id, file_id),) = await server.rows("select run_id, id from run_files")
    refused = await admin.ask("DELETE", f"/{kind}/{owner}")
    assert refused.status == 409
    assert "owns 1 runs; add ?force=true" in refused.json()["error"]
    await admin.done("DELETE", f"/{kind}/{owner}?force=true")
    assert await server.rows("select * from runs") == []
    assert await server.services.blobs.head(f"runs/{run_id}/{file_id}") is None


async def test_files_that_cannot_be_deleted_at_the_moment_go_with_the_next_sweep(
    admin: Admin, server: Server
) -> None:
    key = await admin.user("bob")
    await admin.upsert(key, "bob")
    where = {"entity": "bob", "project": "p", "run": "r", "files": ["f.txt"]}
    made = await admin.http.ask(client_document("CreateRunFiles.core"), key, **where)
    (file,) = made.json()["data"]["createRunFiles"]["files"]
    assert (await admin.http.send("PUT", file["uploadUrl"], data=b"x")).status == 200
    ((run_id, file_id),) = await server.rows("select run_id, id from run_files")
    blob = Path(server.services.settings.blobs()) / f"runs/{run_id}/{file_id}"
    bytes_of_it = blob.read_bytes()
    blob.unlink()
    blob.mkdir()  # no store deletes that
    assert (await admin.ask("DELETE", "/users/bob?force=true")).status == 500
    assert (await admin.ask("GET", "/users/bob")).status == 404
    blob.rmdir()
    blob.write_bytes(bytes_of_it)
    await sweep_once(server.services, now=utc_now())
    assert not blob.exists()


async def test_a_name_that_became_free_reaches_nothing_of_its_former_owner(admin: Admin) -> None:
    old = await admin.user("bob")
    await admin.upsert(old, "bob")
    await admin.done("DELETE", "/users/bob?force=true")
    new = await admin.user("bob")
    runs = 'query R { project(name: "p", entityName: "bob") { runCount } }'
    assert (await admin.http.ask(runs, new)).json() == {"data": {"project": None}}
    assert (await admin.http.ask(VIEWER, old)).status == 401


@pytest.mark.parametrize(
    ("service", "shares", "owner"),
    [(True, True, "bob"), (True, False, "ci"), (False, True, "ci")],
)
async def test_a_service_account_logs_runs_for_whom_it_shares_the_team_with(
    admin: Admin, server: Server, service: bool, shares: bool, owner: str
) -> None:
    key = await admin.user("ci", service=service)
    await admin.user("bob")
    members = [{"username": name} for name in (["ci", "bob"] if shares else ["ci"])]
    await admin.done("POST", "/teams", {"name": "team", "members": members})
    reply = await admin.http.send(
        "POST",
        "/graphql",
        json={"query": UPSERT, "variables": {"entity": "team", "project": "p", "name": "r"}},
        headers={"Authorization": f"Bearer {key}", "X-Wandb-Username": "bob"},
    )
    assert reply.status == 200
    query = "select username from runs join users on users.id = runs.user_id"
    assert await server.rows(query) == [(owner,)]


async def test_of_two_requests_at_once_one_gets_the_name(admin: Admin) -> None:
    statuses: list[int] = []

    async def make(path: str, field: str) -> None:
        statuses.append((await admin.ask("POST", path, {field: "bob"})).status)

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(make, "/users", "username")
            tasks.start_soon(make, "/teams", "name")
    assert sorted(statuses) == [201] + [409] * 7
