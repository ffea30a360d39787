"""Every document of every client that we serve is valid: we validate strictly.

What a client puts together at run time comes over the wire in tests/clients.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from client_documents import client_documents, documents_of
from client_environments import REMEDY, VERSIONS, is_installed, package_of
from launch_async.server.graphql import GraphQL, GraphQLErrors
from out_of_scope import scope_of

IN_WORDS = re.compile(
    r"Cannot query field|Unknown (type|argument|fragment)|Expected value of type|Variable '\$"
)
INTROSPECTED = re.compile(r"""__type\(name: ?["'](\w+)["']\)""")


@pytest.fixture(scope="module", params=VERSIONS)
def package(request: pytest.FixtureRequest, miss: Callable[[str], NoReturn]) -> Path:
    """The folder of one version of the client."""
    if not is_installed(request.param):
        miss(f"wandb {request.param} is missing: {REMEDY}")
    return package_of(request.param)


def test_a_document_is_valid_or_known_not_to_be_served(package: Path, graphql: GraphQL) -> None:
    assert refused(graphql, documents_of(package)) == {}


def test_a_document_of_the_installed_client_is_valid(graphql: GraphQL) -> None:
    assert refused(graphql, client_documents()) == {}


def test_what_is_not_served_is_refused_in_words(graphql: GraphQL) -> None:
    """A reason that fits no document any more has to go."""
    found: dict[str, list[str]] = {}
    for version in filter(is_installed, VERSIONS):
        for name, text in documents_of(package_of(version)).items():
            key = scope_of(name)
            if key is not None:
                found.setdefault(key, []).extend(faults(graphql, text))
    assert [key for key, faults in found.items() if not faults] == []
    told = {fault for faults in found.values() for fault in faults}
    assert [fault for fault in told if not IN_WORDS.search(fault)] == []


def test_a_type_that_an_older_client_looks_up_is_there(package: Path, graphql: GraphQL) -> None:
    """Those clients end when they are told of none."""
    asked = {
        name
        for path in package.rglob("*.py")
        for name in INTROSPECTED.findall(path.read_text(encoding="utf-8"))
    }
    assert asked - set(graphql.schema.type_map) == set()


def test_a_document_is_checked_once(graphql: GraphQL) -> None:
    text = client_documents()["Viewer.core"]
    assert graphql.check(text) is graphql.check(text)


def test_an_unknown_field_is_refused_in_the_words_that_the_client_looks_for(
    graphql: GraphQL,
) -> None:
    with pytest.raises(GraphQLErrors, match="Cannot query field 'nonsense'"):
        graphql.check("{ viewer { nonsense } }")


def refused(graphql: GraphQL, documents: dict[str, str]) -> dict[str, list[str]]:
    """Return what is wrong with documents that we mean to serve."""
    wrong = {
        name: faults(graphql, text) for name, text in documents.items() if scope_of(name) is None
    }
    return {name: found for name, found in wrong.items() if found}


def faults(graphql: GraphQL, text: str) -> list[str]:
    try:
        graphql.check(text)
    except GraphQLErrors as refused:
        return [error.message for error in refused.errors]
    return []
