"""What belongs to an entity is reached by its members only, by whatever way it is asked for."""

import json

import pytest
from artifact_harness import ArtifactClient
from launch_harness import ACK, spec
from server_harness import Http, Server

from client_documents import client_document
from launch_async.server.access import Role
from launch_async.server.ids import encode_run_id
from launch_async.server.users import add_member, create_api_key, create_team, create_user

pytestmark = pytest.mark.anyio

RUN_ID = encode_run_id("secret", "proj", "tester")
NAMED = {"entity": "tester", "project": "proj", "name": "secret"}


@pytest.fixture
async def stranger(http: Http, server: Server) -> str:
    """The key of a user who is no member of tester, where a run is."""
    await http.stream("secret", {"files": {}})
    async with server.services.store.write() as connection:
        user_id = await create_user(connection, "stranger")
        return await create_api_key(connection, user_id)


@pytest.mark.parametrize(
    ("name", "variables", "root"),
    [
        ("Run.full", {"entity": "tester", "project": "proj", "name": "secret"}, "project"),
        (
            "RunResumeStatus.core",
            {"entity": "tester", "project": "proj", "name": "secret"},
            "model",
        ),
        ("GetProject.python", {"entity": "tester", "name": "proj"}, "project"),
        ("GetTeamEntity.python", {"name": "tester"}, "entity"),
    ],
)
async def test_a_strangers_query_finds_nothing(
    http: Http, stranger: str, name: str, variables: dict[str, str], root: str
) -> None:
    assert (await http.data(client_document(name), **variables))[root] is not None
    reply = await http.ask(client_document(name), stranger, **variables)
    assert (reply.status, reply.json()) == (200, {"data": {root: None}})


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("GetProjects.python", {"entity": "tester"}),
        ("UpsertBucket.core", {"entity": "tester", "project": "proj", "name": "secret"}),
        ("UpsertBucket.summary", {"id": RUN_ID, "summaryMetrics": "{}"}),
        ("CreateProject.python", {"input": {"entityName": "tester", "name": "mine"}}),
        ("StopRun.core", {"id": RUN_ID}),
        ("DeleteRun.plain", {"id": RUN_ID}),
        ("UpdateRunState.runs", {"input": {"id": RUN_ID, "state": "failed"}}),
        (
            "CreateRunFiles.core",
            {"entity": "tester", "project": "proj", "run": "secret", "files": ["x"]},
        ),
        (
            "NotifyScriptableRunAlert.core",
            {
                "entityName": "tester",
                "projectName": "proj",
                "runName": "secret",
                "title": "t",
                "text": "x",
            },
        ),
    ],
)
async def test_a_strangers_change_is_refused(
    http: Http, server: Server, stranger: str, name: str, variables: dict[str, object]
) -> None:
    before = await server.rows("select * from runs")
    reply = await http.ask(client_document(name), stranger, **variables)
    assert reply.status in {403, 404}
    assert await server.rows("select * from runs") == before


async def test_a_strangers_stream_is_a_403(http: Http, stranger: str) -> None:
    reply = await http.send(
        "POST",
        "/files/tester/proj/secret/file_stream",
        json={"complete": True},
        headers={"Authorization": f"Bearer {stranger}"},
    )
    assert reply.status == 403
    assert "there is no entity 'tester'" in reply.json()["error"]


async def test_a_strangers_deletion_of_files_is_a_403(http: Http, stranger: str) -> None:
    files = client_document("CreateRunFiles.core")
    where = {"entity": "tester", "project": "proj", "run": "secret"}
    await http.data(files, **where, files=["kept.txt"])
    listed = await http.data(
        client_document("RunFiles.files"),
        entity="tester",
        project="proj",
        name="secret",
        fileNames=["kept.txt"],
    )
    file_id = listed["project"]["run"]["files"]["edges"][0]["node"]["id"]
    reply = await http.ask(client_document("deleteFiles.files"), stranger, files=[file_id])
    assert reply.status == 403
    assert await http.server.rows("select name from run_files") == [("kept.txt",)]


@pytest.mark.parametrize("role", [None, Role.VIEWER])
async def test_an_agent_that_may_not_write_an_entitys_runs_claims_none_that_was_there(
    http: Http, role: Role | None
) -> None:
    """Else it could have somebody's run marked as crashed, by failing the item."""
    (entity,) = await http.server.rows("select id from entities where name = 'tester'")
    async with http.server.services.store.write() as connection:
        helper = await create_user(connection, "helper")
        if role is not None:
            await add_member(connection, entity.id, helper, role=role)
        key = await create_api_key(connection, helper)
        tester = http.server.user_id
        team = await create_team(connection, "team", admin_user_id=helper)
        await add_member(connection, team, tester, role=Role.ADMIN)
    make = """mutation($e: String!) { createRunQueue(input: {entityName: $e, queueName: "q",
      projectName: "model-registry", access: PROJECT}) { queueID } }"""
    await http.data(make, e="team")
    push = client_document("pushToRunQueue.api")
    queue = (
        await http.data(
            client_document("ProjectRunQueues.api"), entity="team", projectName="model-registry"
        )
    )["project"]["runQueues"][0]["id"]
    await http.stream("secret", {})
    for named, allowed in (({}, False), ({"run_id": "secret"}, True)):
        await http.data(push, queueID=queue, runSpec=json.dumps(spec(project="proj", **named)))
        popped = await http.ask(
            client_document("popFromRunQueue.api"),
            key,
            entity="team",
            project="model-registry",
            queueName="q",
        )
        item = popped.json()["data"]["popFromRunQueue"]["runQueueItemId"]

        async def ack(run: str, item: str = item) -> bool:
            acked = await http.ask(ACK, key, item=item, run=run)
            return acked.json()["data"]["ackRunQueueItem"]["success"]

        assert await ack("secret") is allowed
        if not allowed:
            await http.stream("began-since", {})
            assert not await ack("began-since")
            assert await ack("fresh")
            await http.stream("fresh", {})
            assert await ack("fresh"), "the first answer may have been lost"


async def test_what_a_run_used_of_another_team_is_shown_to_that_teams_members_only(
    http: Http, server: Server
) -> None:
    """The run's author may be in more teams than those who look at the run."""
    async with server.services.store.write() as connection:
        friend = await create_user(connection, "friend")
        key = await create_api_key(connection, friend)
        team = await create_team(connection, "team", admin_user_id=server.user_id)
        await add_member(connection, team, friend)
    artifact = await ArtifactClient(http).log({"secret.bin": b"x"})
    where = {"entity": "team", "project": "p", "name": "r"}
    await http.data(client_document("UpsertBucket.core"), **where)
    use = """mutation Use($a: ID!) { useArtifact(input: {artifactID: $a, entityName: "team",
      projectName: "p", runName: "r"}) { artifact { id } } }"""
    await http.data(use, a=artifact)
    ask = """{ project(entityName: "team", name: "p") { run(name: "r") {
      inputArtifacts { totalCount edges { node { id } } } } } }"""
    found = (await http.data(ask))["project"]["run"]["inputArtifacts"]
    assert found == {"totalCount": 1, "edges": [{"node": {"id": artifact}}]}
    found = (await http.ask(ask, key)).json()["data"]["project"]["run"]["inputArtifacts"]
    assert found == {"totalCount": 0, "edges": []}


async def test_a_users_keys_and_teams_are_shown_to_that_user_only(
    http: Http, server: Server
) -> None:
    async with server.services.store.write() as connection:
        friend = await create_user(connection, "friend")
        key = await create_api_key(connection, friend)
        team = await create_team(connection, "team", admin_user_id=server.user_id)
        await add_member(connection, team, friend)
    await http.data(client_document("UpsertBucket.core"), entity="team", project="p", name="r")
    ask = """{ project(entityName: "team", name: "p") { run(name: "r") { user { username
      apiKeys { edges { node { name } } } teams { edges { node { name } } } } } } }"""
    own = (await http.data(ask))["project"]["run"]["user"]
    assert [edge["node"]["name"] for edge in own["teams"]["edges"]] == ["team"]
    assert len(own["apiKeys"]["edges"]) == 1
    others = (await http.ask(ask, key)).json()["data"]["project"]["run"]["user"]
    assert others == {"username": "tester", "apiKeys": {"edges": []}, "teams": {"edges": []}}
