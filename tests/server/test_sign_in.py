"""Keys: what proves who asks, and what is kept of it."""

import base64
import hashlib
from pathlib import Path

import pytest
from server_harness import Http, Server

from client_documents import client_document
from launch_async.server.errors import ApiError
from launch_async.server.store.tables import metadata
from launch_async.server.users import (
    add_member,
    create_api_key,
    create_team,
    create_user,
    ensure_local_user,
    revoke_api_key,
)

pytestmark = pytest.mark.anyio


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"api:{key}".encode()).decode()


async def test_the_viewer_is_who_the_key_belongs_to(http: Http) -> None:
    viewer = (await http.data(client_document("GetViewer.python")))["viewer"]
    assert viewer["username"] == viewer["entity"] == "tester"
    assert viewer["email"] == "t@example.com"
    assert viewer["admin"] is True
    assert viewer["flags"] == '{"code_saving_enabled":true}'
    assert viewer["teams"] == {"edges": []}
    (edge,) = viewer["apiKeys"]["edges"]
    assert edge["node"]["description"] == "tests"
    assert edge["node"]["name"] == "..." + http.server.key[-4:]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"\xff\xfe").decode(),
        basic("0" * 40),
        "Bearer " + "0" * 40,
        "Digest x",
    ],
)
async def test_a_wrong_key_is_a_401_that_says_what_to_do(http: Http, header: str) -> None:
    body = {"query": client_document("Viewer.core")}
    for path in ("/graphql", "/files/tester/p/r/file_stream"):
        reply = await http.send("POST", path, json=body, headers={"Authorization": header})
        assert reply.status == 401
        answer = reply.json()
        assert "wandb login" in answer["errors"][0]["message"]
        assert "wandb login" in answer["error"]


async def test_a_revoked_key_is_refused(http: Http, server: Server) -> None:
    async with server.services.store.write() as connection:
        key = await create_api_key(connection, server.user_id, "to be revoked")
    assert (await http.ask("{ viewer { id } }", key)).status == 200
    ((key_id,),) = await server.rows("select id from api_keys where description = 'to be revoked'")
    async with server.services.store.write() as connection:
        assert await revoke_api_key(connection, key_id, user_id=server.user_id)
        assert not await revoke_api_key(connection, key_id, user_id=server.user_id)
    assert (await http.ask("{ viewer { id } }", key)).status == 401


async def test_only_a_digest_of_a_key_is_kept(server: Server) -> None:
    digest = hashlib.sha256(server.key.encode()).hexdigest()
    assert await server.rows("select digest, hint from api_keys") == [(digest, server.key[-4:])]
    for table in metadata.tables:
        assert server.key not in str(await server.rows(f"select * from {table}"))  # noqa: S608
    folder = server.services.settings.data_dir
    for path in folder.glob("launch-async.db*"):  # of SQLite: also what a page keeps of old rows
        assert server.key.encode() not in path.read_bytes()


async def test_the_local_user_keeps_the_key_that_it_has(server: Server) -> None:
    async with server.services.store.write() as connection:
        key = await ensure_local_user(connection, "local", None)
        assert await ensure_local_user(connection, "local", key) == key
    assert len(key) >= 40
    rows = await server.rows("select count(*) from users where username = 'local'")
    assert rows == [(1,)]


async def test_a_name_is_taken_once(server: Server) -> None:
    async with server.services.store.write() as connection:
        with pytest.raises(ApiError, match="taken"):
            await create_user(connection, "tester")
        with pytest.raises(ApiError, match="taken"):
            await create_team(connection, "tester", admin_user_id=server.user_id)


async def test_a_team_is_reached_by_its_members_only(http: Http, server: Server) -> None:
    async with server.services.store.write() as connection:
        stranger = await create_user(connection, "stranger")
        key = await create_api_key(connection, stranger)
        team = await create_team(connection, "team", admin_user_id=server.user_id)
    query = client_document("EntityIsTeam.api")
    assert (await http.data(query, entity="team"))["entity"]["isTeam"] is True
    assert (await http.ask(query, key, entity="team")).json() == {"data": {"entity": None}}
    async with server.services.store.write() as connection:
        await add_member(connection, team, stranger)
    assert (await http.ask(query, key, entity="team")).json()["data"]["entity"]["isTeam"] is True
    viewer = (await http.data(client_document("Viewer.core")))["viewer"]
    assert viewer["teams"]["edges"] == [{"node": {"name": "team"}}]
    members = (await http.data(client_document("GetTeamEntity.python"), name="team"))["entity"][
        "members"
    ]
    assert [(member["username"], member["admin"]) for member in members] == [
        ("tester", True),
        ("stranger", False),
    ]


async def test_the_signing_secret_is_its_owners_alone(server: Server) -> None:
    secret: Path = server.services.settings.data_dir / "secret"
    assert secret.stat().st_mode & 0o777 == 0o600
