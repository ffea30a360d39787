"""Every field and mutation of the schema, asked with values that fit their type and nothing else.

LAUNCH_ASYNC_FUZZ=N tries N times as much; the seed of the choice is LAUNCH_ASYNC_FUZZ_SEED.
"""

import os
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fuzz_documents import SCHEMA, Target, document, targets
from fuzz_harness import FUZZ, MORE, Asked, ask, seed, still_serves
from fuzz_values import LONG, choices, real, values
from graphql import (
    GraphQLInputType,
    get_introspection_query,
    get_named_type,
    is_input_object_type,
    is_input_type,
    parse,
    type_from_ast,
)
from hypothesis import given
from hypothesis import strategies as st
from server_harness import Http

from client_documents import client_documents

pytestmark = pytest.mark.anyio

SHARE = 4  # variations of each target in an ordinary run
SEED = int(os.environ.get("LAUNCH_ASYNC_FUZZ_SEED") or random.SystemRandom().randrange(10**6))
DOCUMENTS = sorted(client_documents().values())
PIECE = re.compile(r"\w+|[^\w\s]")
USE = re.compile(r"(?<=:)\s*\$\w+")
PIECES = [
    "", "{", "}", "(", ")", "!", "$", "...", "@", "@skip(if: true)", "@include(if: null)", "@x",
    '"', "\0",
    '\"\"\"', "#", ":", "\ud800", "\ufeff", "id", "__typename", "__schema { types { name } }", "on",
    "null",
    "query", "mutation", "subscription", "fragment F on Query { ...F }", "...F", "-", "1e999", LONG,
    "é",
]  # fmt: skip
LITERALS = [
    "null", "1", "-1", "1.5", "1e999", "9" * 5000, "true", "ENUM", '""', '"x"', '"\\u0000"',
    '"\\ud800"',
    '"\\u{D800}"', '"\\u{110000}"', '\"\"\"a\"\"\"', "{}", "[]", "[[[[1]]]]", "{a: 1, a: 2}",
    "{a: {b: [null]}}",
    "$nonsense", "[" * 300 + "]" * 300, "{a:" * 300 + "1" + "}" * 300, f'"{LONG}"',
    '"{\\"a\\": 1}"', '"{"',
]  # fmt: skip
VIEWER = "{ viewer { id } }"
ODD_REQUESTS: list[Any] = [
    [], [{"query": VIEWER}], None, 5, "x", {}, {"query": None}, {"query": []}, {"query": ""},
    {"query": "#"},
    {"query": "query A { viewer { id } } query B { viewer { id } }"},
    {"query": VIEWER, "operationName": "x"}, {"query": VIEWER, "variables": 5},
    {"query": VIEWER, "variables": {"": {}}}, {"query": "fragment F on Query { viewer { id } }"},
    {"query": "subscription { viewer { id } }"}, {"query": "type X { a: Int }"},
    {"query": "query ($a: Query) { viewer { id } }"},
    {"query": "query ($a: Nope!) { viewer { id } }"},
    {"query": "query ($a: Int = 1e999) { project { run(name: $a) { id } } }"},
    {"query": "{ viewer { id @skip(if: $x) } }"},
    {"query": "{ ...A } fragment A on Query { ...A }"},
    {"query": "{ __typename }"}, {"query": "mutation { __typename }"}, {"query": "{ viewer }"},
    {"query": get_introspection_query()}, {"query": "{ viewer { id: name id } }"}, b"", b"\xff",
    b"{", b"\0",
    {"query": VIEWER, "extensions": {"persistedQuery": {}}},
    {"query": "query { viewer { id } } " * 200},
]  # fmt: skip
TARGETS = sorted(targets(), key=lambda target: ("delete" in str(target), str(target)))


@pytest.fixture
async def stocked(http: Http) -> Http:
    """A server with one or two of each thing."""
    await seed(http)
    return http


async def test_each_field_is_answered_whatever_one_of_its_arguments_is(stocked: Http) -> None:
    chance = random.Random(SEED)  # noqa: S311
    for target in TARGETS:
        base = {name: real(kind, name) for name, kind in target.arguments.items()}
        odd = list(variations(target, base))
        for each in [base, *chance.sample(odd, min(len(odd), SHARE * MORE))]:
            await ask(stocked, document(target, each))
    await still_serves(stocked)


def field_requests() -> st.SearchStrategy[Asked]:
    """Return a strategy of whole requests for one target."""

    def asked(target: Target) -> st.SearchStrategy[Asked]:
        parts = {name: values(kind, name) for name, kind in target.arguments.items()}
        return st.fixed_dictionaries(parts).map(lambda given: Asked(document(target, given)))

    return st.sampled_from(TARGETS).flatmap(asked)


def client_requests() -> st.SearchStrategy[Asked]:
    """Return a strategy of a client's documents, as they are or mutilated, with odd variables."""

    def asked(text: str) -> st.SearchStrategy[Asked]:
        parts = {name: values(kind, name) for name, kind in variables_of(text).items()}
        return st.fixed_dictionaries(
            {
                "query": st.just(text) | mutilated(text),
                "variables": st.fixed_dictionaries({}, optional=parts),
                "operationName": st.sampled_from(["", None, "x"]),
            }
        ).map(Asked)

    return st.sampled_from(DOCUMENTS).flatmap(asked)


def variables_of(text: str) -> dict[str, GraphQLInputType]:
    """Return the variables of a document whose types our schema has."""
    found: dict[str, GraphQLInputType] = {}
    for definition in parse(text).definitions:
        for variable in getattr(definition, "variable_definitions", None) or ():
            kind = type_from_ast(SCHEMA, variable.type)
            if is_input_type(kind):
                found[variable.variable.name.value] = kind
    return found


def mutilated(text: str) -> st.SearchStrategy[str]:
    """Return a strategy of a document with a piece replaced, or a variable by a literal."""
    places = [match.span() for match in PIECE.finditer(text)]
    uses = [match.span() for match in USE.finditer(text)] or places

    def replaced(span: tuple[int, int], word: str) -> str:
        return text[: span[0]] + word + text[span[1] :]

    return st.builds(replaced, st.sampled_from(places), st.sampled_from(PIECES)) | st.builds(
        replaced, st.sampled_from(uses), st.sampled_from(LITERALS)
    )


@FUZZ
@given(st.lists(field_requests(), min_size=1, max_size=10))
async def test_each_field_is_answered_whatever_all_its_arguments_are(
    stocked: Http, asked: list[Asked]
) -> None:
    for each in asked:
        await ask(stocked, each.body)


@FUZZ
@given(st.lists(client_requests(), min_size=1, max_size=10))
async def test_a_document_of_a_client_is_answered_whatever_becomes_of_it(
    stocked: Http, asked: list[Asked]
) -> None:
    for each in asked:
        await ask(stocked, each.body)


async def test_a_request_that_no_client_makes_is_answered(stocked: Http) -> None:
    for body in ODD_REQUESTS:
        assert (await ask(stocked, body)).status in {200, 400}
    await still_serves(stocked)


def variations(target: Target, base: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the arguments with one value, anywhere in them, replaced by an odd one."""
    for name, kind in target.arguments.items():
        for value in odd_values(kind, name, base[name]):
            yield {**base, name: value}


def odd_values(given: GraphQLInputType, name: str, known: Any) -> Iterator[Any]:
    """Yield what to put in the place of one value."""
    kind = get_named_type(given)
    if not is_input_object_type(kind):
        for value in [*choices(given, name), None]:
            yield [value] if isinstance(known, list) else value
        return
    for part, field in kind.fields.items():
        inner = known[0] if isinstance(known, list) else known
        for value in odd_values(field.type, part, (inner or {}).get(part)):
            changed = {**(inner or {}), part: value}
            yield [changed] if isinstance(known, list) else changed
