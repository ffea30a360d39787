"""Each version of the wandb client against a server of its own, on each database.

The fixtures last a module: one does the work of a whole flow with few starts of the client, and
the tests read what came of it.
"""

from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest
from anyio.from_thread import start_blocking_portal
from clients_harness import Client, LivePlane, Template, open_template

from client_environments import REMEDY, VERSIONS, is_installed
from databases import Postgres
from launch_async.server.graphql import GraphQL
from launch_async.server.resolvers.bind import BINDABLES


@pytest.fixture(scope="session")
def graphql() -> GraphQL:
    return GraphQL.load(BINDABLES)


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest, miss: Callable[[str], NoReturn]) -> str:
    """The client that is tried."""
    if not is_installed(request.param):
        miss(f"wandb {request.param} is missing: {REMEDY}")
    return request.param


@pytest.fixture(scope="session")
def template(
    tmp_path_factory: pytest.TempPathFactory, graphql: GraphQL, database: Postgres | None
) -> Iterator[Template]:
    folder = tmp_path_factory.mktemp("template")
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_template(folder, graphql, database)) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def plane(
    tmp_path_factory: pytest.TempPathFactory, template: Template, version: str
) -> Iterator[LivePlane]:
    """A new server for each client."""
    with template.served(tmp_path_factory.mktemp(f"server-{version}") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, version: str, plane: LivePlane) -> Client:
    return Client(version, tmp_path_factory.mktemp("home"), plane.plane)
