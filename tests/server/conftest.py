"""A server of our own for each test, and the real client to use it with."""

import functools
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest
from anyio.from_thread import start_blocking_portal
from server_harness import (
    Http,
    LiveServer,
    Server,
    Template,
    WandbClient,
    open_template,
    running_server,
)

from databases import Postgres
from launch_async.server.graphql import GraphQL
from launch_async.server.resolvers.bind import BINDABLES


@pytest.fixture(scope="session")
def graphql() -> GraphQL:
    return GraphQL.load(BINDABLES)


@pytest.fixture(scope="session")
def templates(
    tmp_path_factory: pytest.TempPathFactory, graphql: GraphQL
) -> Iterator[Callable[[Postgres | None], Template]]:
    """Makes each database's template once; `template` changes with every file."""
    with start_blocking_portal() as portal, ExitStack() as stack:

        @functools.cache
        def made(database: Postgres | None) -> Template:
            folder = tmp_path_factory.mktemp("template")
            opened = portal.wrap_async_context_manager(open_template(folder, graphql, database))
            return stack.enter_context(opened)

        yield made


@pytest.fixture(scope="session")
def template(
    templates: Callable[[Postgres | None], Template], database: Postgres | None
) -> Template:
    return templates(database)


@pytest.fixture
async def server(tmp_path: Path, template: Template, anyio_backend: str) -> AsyncGenerator[Server]:
    async with running_server(tmp_path / "server", template) as running:
        yield running


@pytest.fixture
async def http(server: Server) -> AsyncGenerator[Http]:
    async with aiohttp.ClientSession() as session:
        yield Http(session, server)


@pytest.fixture(scope="session")
def live_server(
    tmp_path_factory: pytest.TempPathFactory, template: Template
) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("live") / "server"
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running_server(folder, template)) as running,
    ):
        yield LiveServer(running, portal)


@pytest.fixture
def wandb_client(tmp_path: Path, live_server: LiveServer) -> WandbClient:
    home = tmp_path / "home"
    home.mkdir()
    return WandbClient(home, live_server.server)
