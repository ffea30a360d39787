"""Every field, every mutation and every route is asked for by everybody, and keeps its rule."""

from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest
from access_questions import (
    SCHEMA,
    Step,
    is_part,
    leading_fields,
    mutation_of,
    query_of,
    value_at,
    way_to,
)
from access_table import FIELDS, MUTATIONS, ROUTES, Rule
from access_world import MD5, PROJECT, RUN, World, make_world
from server_harness import Http, Reply, Template, running_server

from launch_async.domain.secret import Secret
from launch_async.server.app import create_app
from launch_async.server.store.tables import metadata

pytestmark = pytest.mark.anyio

ADMIN_KEY = "admin-key-" + "a" * 40
EVERYBODY = ("stranger", "nobody", "viewer", "member", "admin", "own_run", "other_run")
READERS = {
    Rule.PUBLIC: {"stranger", "viewer", "member", "admin", "own_run", "other_run"},
    Rule.ENTITY_READ: {"viewer", "member", "admin", "own_run", "other_run"},
    Rule.TEAM_READ: {"viewer", "member", "admin"},
    Rule.ADMIN_READ: {"admin"},
    Rule.NOTHING: set[str](),
}
WRITERS = {
    Rule.RUN_WRITE: ("own_run", "member"),
    Rule.MEMBER: ("member",),
    Rule.ADMIN: ("admin",),
    Rule.SERVER_ADMIN: ("operator",),
    Rule.KEY_OWNER: ("member",),
    Rule.OWN: ("viewer", "stranger"),
}
ROLES_NEEDED = {Rule.RUN_WRITE: "member", Rule.MEMBER: "member", Rule.ADMIN: "admin"}
"""Who may; the last but one before the last, as both leave their mark."""

QUERIES = [step for step in leading_fields() if not is_part(step)]


@pytest.fixture(scope="module")
async def shared(
    tmp_path_factory: pytest.TempPathFactory, template: Template, anyio_backend: str
) -> AsyncGenerator[Http]:
    """One server for all: each test has a team of its own."""
    folder = tmp_path_factory.mktemp("rules") / "server"
    async with (
        running_server(folder, template, admin_key=Secret(ADMIN_KEY)) as server,
        aiohttp.ClientSession() as session,
    ):
        yield Http(session, server)


@pytest.fixture(scope="module")
async def readable(shared: Http) -> World:
    """A team that nobody changes."""
    return await make_world(shared)


def test_every_field_that_leads_somewhere_has_a_rule() -> None:
    found: dict[str, set[str]] = {}
    for step in QUERIES:
        found.setdefault(step.parent, set()).add(step.field)
    assert found == {kind: set(fields) for kind, fields in FIELDS.items()}


def test_every_mutation_has_a_rule() -> None:
    assert SCHEMA.mutation_type is not None
    assert set(SCHEMA.mutation_type.fields) == set(MUTATIONS)


async def test_every_route_has_a_rule(shared: Http) -> None:
    services = shared.server.services
    app = create_app(services, services.settings)
    found = set[str]()
    for route in app.router.routes():
        assert route.resource is not None
        method = "GET" if route.method == "HEAD" else route.method
        found.add(f"{method} {route.resource.canonical}")
    assert found == set(ROUTES)


@pytest.mark.parametrize("step", QUERIES, ids=lambda step: f"{step.parent}.{step.field}")
async def test_a_field_is_read_by_whom_its_rule_names(
    shared: Http, readable: World, step: Step
) -> None:
    rule = FIELDS[step.parent][step.field]
    way = way_to(step)
    if rule in ROLES_NEEDED or (way is None and rule is Rule.NOTHING):
        return  # only a mutation leads there
    assert way is not None
    saw = set[str]()
    for who in EVERYBODY:
        reply = await ask(shared, readable.keys[who], query_of(way, readable))
        data = reply.json().get("data")
        if value_at(data, way) is not None:
            saw.add(who)
        elif who == "nobody":
            assert reply.status == 401
        elif rule is not Rule.NOTHING and reply.status != 200:
            assert reply.status in {403, 404}, reply.json()
        if who in {"stranger", "nobody"}:
            assert readable.entity not in str(data), f"{who} learnt of the team: {data}"
    if rule is not Rule.OWN:
        assert saw == READERS[rule]


@pytest.mark.parametrize("name", MUTATIONS)
async def test_who_may_not_do_a_mutation_is_told_so_and_changes_nothing(
    shared: Http, readable: World, name: str
) -> None:
    document, variables = mutation_of(name, readable)
    rule = MUTATIONS[name]
    allowed = WRITERS[rule]
    need = ROLES_NEEDED.get(rule)
    before = await rows_of(shared)
    for who in EVERYBODY:
        if who in allowed or (who == "admin" and need == "member"):
            continue
        if rule is Rule.OWN and who in {"member", "admin"}:
            continue
        reply = await ask(shared, readable.keys[who], document, variables)
        assert is_refusal(reply, name), f"{who}: {reply.json()}"
        if who.endswith("_run"):
            assert reply.status == 403, f"{who}: {reply.json()}"
        elif need is not None and who in {"viewer", "member"}:
            assert reply.status == 403, f"{who}: {reply.json()}"
            assert f"needs the role {need}" in reply.json()["errors"][0]["message"]
    assert await rows_of(shared) == before


@pytest.mark.parametrize("name", MUTATIONS)
async def test_names_of_ones_own_do_not_open_the_ids_of_others(
    shared: Http, readable: World, name: str
) -> None:
    """A stranger may well make something of their own by it, but no row of the team changes."""
    document, variables = mutation_of(name, readable, own_place=(readable.stranger, f"at-{name}"))
    before = await rows_of(shared)
    reply = await ask(shared, readable.keys["stranger"], document, variables)
    assert reply.status < 500
    assert readable.entity not in str(reply.json().get("data"))
    after = await rows_of(shared)
    for table, rows in before.items():
        assert rows <= after[table], table


async def test_whoever_a_rule_names_may_do_the_mutation(shared: Http) -> None:
    """Else the refusals would prove nothing: the questions might be wrong."""
    world = await make_world(shared)
    for name, rule in MUTATIONS.items():
        document, variables = mutation_of(name, world)
        for who in WRITERS[rule]:
            reply = await ask(shared, world.keys[who], document, variables)
            assert reply.status == 200, f"{name} by {who}: {reply.json()}"
            assert not is_refusal(reply, name), f"{name} by {who}: {reply.json()}"


@pytest.mark.parametrize("route", ROUTES)
async def test_a_route_serves_whom_its_rule_names_and_others_change_nothing(
    shared: Http, readable: World, route: str
) -> None:
    world = readable
    rule = ROUTES[route]
    method, path = route.split(" ")
    path = path.format(
        entity=world.entity,
        project=PROJECT,
        run=RUN,
        md5=MD5.hex(),
        key="runs/1/1",
        rest=f"x/{world.entity}/{PROJECT}/data/{world.values['artifact']}/{MD5.hex()}/f",
        username=f"{world.entity}-viewer",
        team=world.entity,
    )
    served = set[str]()
    before = await rows_of(shared)
    for who in EVERYBODY:
        if rule is Rule.RUN_WRITE and who in {"own_run", "member", "admin"}:
            continue
        reply = await send(shared, world.keys[who], method, path)
        if reply.status < 400:
            served.add(who)
        else:
            assert reply.status in {401, 403, 404}, f"{who}: {reply.body!r}"
    assert await rows_of(shared) == before
    assert served == ROUTE_READERS[rule]
    if rule is Rule.RUN_WRITE:
        for who in ("own_run", "member"):
            assert (await send(shared, world.keys[who], method, path)).status == 200


ROUTE_READERS = {
    **READERS,
    Rule.OPEN: set(EVERYBODY),
    Rule.SIGNED: set[str](),
    Rule.ADMIN_KEY: set[str](),
    Rule.RUN_WRITE: set[str](),
}


async def ask(http: Http, key: str | None, query: str, variables: Any = None) -> Reply:
    body = {"query": query, "variables": variables or {}}
    return await send(http, key, "POST", "/graphql", body)


async def send(http: Http, key: str | None, method: str, path: str, body: Any = None) -> Reply:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    if path == "/graphql" and body is None:
        body = {"query": "{ __typename }"}
    return await http.send(method, path, json=body or {}, headers=headers)


def is_refusal(reply: Reply, name: str) -> bool:
    """Tell whether nothing was given: an error, a null, or the word that it did not succeed."""
    if reply.status in {401, 403, 404}:
        return (reply.json().get("data") or {}).get(name) is None
    value = reply.json()["data"][name]
    return value is None or value.get("success") is False


async def rows_of(http: Http) -> dict[str, set[str]]:
    """Return every row of every table."""
    async with http.server.services.store.read() as connection:
        return {
            table.name: {str(row) for row in await connection.execute(table.select())}
            for table in metadata.sorted_tables
        }
