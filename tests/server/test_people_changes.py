"""Users, keys and teams are made and changed in the client's words, by whom it may."""

from typing import Any

import pytest
from server_harness import Http, Server

from client_documents import client_document
from launch_async.server.ids import encode_id
from launch_async.server.users import create_api_key, create_user

pytestmark = pytest.mark.anyio

MEMBERS = "query Members($name: String!) { entity(name: $name) { members { id username role } } }"


async def plain_user(server: Server, name: str = "plain") -> str:
    """Make a user who is no admin and return a key."""
    async with server.services.store.write() as connection:
        user = await create_user(connection, name, email=f"{name}@example.com")
        return await create_api_key(connection, user)


async def told(http: Http, document: str, **variables: Any) -> tuple[int, Any]:
    """Return the status, and the payload or the message."""
    reply = await http.ask(client_document(f"{document}.python"), **variables)
    body = reply.json()
    if "errors" in body:
        return reply.status, body["errors"][0]["message"]
    return reply.status, body["data"]["result"]


async def members(http: Http, team: str = "crew") -> dict[str, str]:
    data = await http.data(MEMBERS, name=team)
    return {member["username"]: member["role"] for member in data["entity"]["members"]}


async def test_an_admin_makes_a_user_of_an_address(http: Http) -> None:
    status, made = await told(http, "CreateUserFromAdmin", email="new.one@example.com", admin=False)
    assert (status, made["user"]["username"], made["user"]["admin"]) == (200, "new.one", False)
    again = await told(http, "CreateUserFromAdmin", email="new.one@example.org", admin=False)
    assert again == (409, "the name 'new.one' is taken")
    status, message = await told(http, "CreateUserFromAdmin", email="no address", admin=False)
    assert (status, "is not an address" in message) == (400, True)


async def test_a_key_is_made_shown_once_and_revoked(http: Http) -> None:
    _, made = await told(http, "GenerateApiKey", description="mine")
    key, node = made["apiKey"]["name"], made["apiKey"]["id"]
    assert (await http.ask("{ viewer { username } }", key=key)).status == 200
    listed = await http.data("{ viewer { apiKeys { edges { node { id name } } } } }")
    names = {
        each["node"]["id"]: each["node"]["name"] for each in listed["viewer"]["apiKeys"]["edges"]
    }
    assert names[node] == f"...{key[-4:]}"

    assert await told(http, "DeleteApiKey", id=node) == (200, {"success": True})

    assert (await http.ask("{ viewer { username } }", key=key)).status == 401
    assert (await told(http, "DeleteApiKey", id=node))[0] == 404


async def test_only_an_admin_revokes_the_key_of_another(http: Http, server: Server) -> None:
    key = await plain_user(server)
    (mine,) = await server.rows("select id from api_keys where user_id = 1 order by id limit 1")
    (theirs,) = await server.rows("select max(id) as id from api_keys")
    document = client_document("DeleteApiKey.python")

    refused = await http.ask(document, key=key, id=encode_id("ApiKey", mine.id))
    taken = await http.ask(document, id=encode_id("ApiKey", theirs.id))

    assert (refused.status, taken.status) == (404, 200)
    noted = await server.rows("select username, action, subject from audit_log")
    assert noted == [("tester", "key.revoke", "plain")]
    assert (await http.ask("{ viewer { username } }", key=key)).status == 401


async def test_a_team_is_made_and_filled_by_its_admin(http: Http, server: Server) -> None:
    await plain_user(server)
    _, made = await told(http, "CreateTeam", teamName="crew")
    assert made["entity"]["name"] == "crew"
    assert await members(http) == {"tester": "admin"}

    invited = await told(http, "CreateInvite", entity="crew", email="plain@example.com")
    assert (invited[0], invited[1]["invite"]["toUser"]) == (200, {"name": "plain"})
    assert await members(http) == {"tester": "admin", "plain": "member"}
    again = await told(http, "CreateInvite", entity="crew", username="plain", admin=True)
    assert again == (409, "'plain' is a member of 'crew' already")
    assert (await told(http, "CreateInvite", entity="crew", username="nobody"))[0] == 404

    who = invited[1]["invite"]["id"]
    assert await told(http, "DeleteInvite", entity="crew", id=who) == (200, {"success": True})
    assert await members(http) == {"tester": "admin"}
    assert (await told(http, "DeleteInvite", entity="crew", id=who))[0] == 404


async def test_a_service_account_belongs_to_its_team(http: Http, server: Server) -> None:
    await told(http, "CreateTeam", teamName="crew")
    _, made = await told(http, "CreateServiceAccount", entity="crew", description="CI of crew")
    assert made["user"]["id"]
    assert await members(http) == {"tester": "admin", "CI-of-crew": "member"}
    (account,) = await server.rows("select service from users where username = 'CI-of-crew'")
    assert account.service


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        ("CreateUserFromAdmin", {"email": "x@example.com", "admin": True}),
        ("CreateTeam", {"teamName": "own"}),
        ("CreateInvite", {"entity": "crew", "username": "plain", "admin": True}),
        ("DeleteInvite", {"entity": "crew", "id": encode_id("User", 1)}),
        ("CreateServiceAccount", {"entity": "crew", "description": "mine"}),
        ("CreateInvite", {"entity": "nothing", "username": "plain"}),
    ],
)
async def test_others_may_not(
    http: Http, server: Server, document: str, variables: dict[str, Any]
) -> None:
    key = await plain_user(server)
    await told(http, "CreateTeam", teamName="crew")
    before = await server.rows("select username from users"), await members(http)

    reply = await http.ask(client_document(f"{document}.python"), key=key, **variables)

    assert reply.status == 403
    assert (await server.rows("select username from users"), await members(http)) == before


async def test_what_was_done_is_in_the_audit_trail(http: Http, server: Server) -> None:
    await told(http, "CreateTeam", teamName="crew")
    await told(http, "CreateUserFromAdmin", email="new@example.com", admin=False)
    await told(http, "CreateInvite", entity="crew", username="new")
    rows = await server.rows("select action, subject from audit_log order by id")
    assert [tuple(row) for row in rows] == [
        ("team.create", "crew"),
        ("user.create", "new"),
        ("team.set_member", "crew"),
    ]
