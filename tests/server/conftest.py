"""A server of our own for each test, and the real client to use it with."""

from collections.abc import AsyncGenerator, Iterator
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
def template(
    tmp_path_factory: pytest.TempPathFactory, graphql: GraphQL, database: Postgres | None
) -> Iterator[Template]:
    folder = tmp_path_factory.mktemp("template")
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_template(folder, graphql, database)) as template,
    ):
        yield template


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
