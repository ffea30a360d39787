"""Every document about artifacts, queues, items and agents that wandb 0.31.0 sends is valid."""

from pathlib import Path

import pytest

from launch_async.server.graphql import GraphQL
from launch_async.server.resolvers.bind import BINDABLES

DOCUMENTS = sorted((Path(__file__).parent / "documents_launch").glob("*.graphql"))


@pytest.fixture(scope="module")
def graphql() -> GraphQL:
    return GraphQL.load(BINDABLES)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_a_document_of_the_client_is_valid(graphql: GraphQL, path: Path) -> None:
    graphql.check(path.read_text())
