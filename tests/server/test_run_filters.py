"""Filters of runs mean what MongoDB's would, on either database: compared with a small model."""

import json
import operator
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_harness import USERNAME, Server

from launch_async.server.context import utc_now
from launch_async.server.errors import ApiError
from launch_async.server.projects import ProjectRow, ensure_project, resolve_entity
from launch_async.server.run_filters import FilterReader
from launch_async.server.run_list import count_runs, list_runs
from launch_async.server.run_rows import document_columns
from launch_async.server.runs import insert_run

pytestmark = pytest.mark.anyio

PROJECT = ProjectRow(
    id=1,
    entity_id=1,
    entity_name=USERNAME,
    entity_kind="user",
    entity_user_id=1,
    entity_created_at=utc_now(),
    name="filters",
    description=None,
    access=None,
    created_by=None,
    created_at=utc_now(),
)
MISSING = object()
VALUES = [1, 1.0, 2.5, -3, 10**18, "a", "ab", "b", "", "1", "é", True, False, None, MISSING]
LISTS = [[], [1, 2], ["a", 3], [None], [[1]], {"k": 1}, {}]
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def documents() -> list[dict[str, Any]]:
    """What each run of the test holds: every value somewhere, nested and with dots in keys."""
    found = [
        {"v": value, "group": "g" if index % 3 else None, "tags": ["a", "b", "ab"][: index % 4]}
        for index, value in enumerate([*VALUES, *LISTS])
    ]
    found += [{"m": {"x": 1}}, {"m.x": 1}, {"m": {"x": "a"}, "m.x": 1}, {"m": 1}, {"m": [1]}]
    return found


DOCUMENTS = documents()


def values_of(document: dict[str, Any], field: str) -> list[Any]:
    """Return what a field of a run is; of a key with a dot in it both readings."""
    _, _, path = field.partition(".")
    if field == "group":
        return [document.get("group")]
    if field == "tags":
        return [document.get("tags", [])]
    nested: Any = document
    for key in path.split("."):
        nested = nested.get(key, MISSING) if isinstance(nested, dict) else MISSING
    return [nested, *([document.get(path, MISSING)] if "." in path else [])]


def kind(value: Any) -> str:
    return (
        "number"
        if isinstance(value, float)
        else {"int": "number"}.get(type(value).__name__, type(value).__name__)
    )


def elements(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def same(value: Any, wanted: Any) -> bool:
    if wanted is None:
        return value is None or value is MISSING
    if isinstance(wanted, list | dict):
        return bool(value == wanted)
    return any(kind(each) == kind(wanted) and each == wanted for each in elements(value))


def equal(found: list[Any], wanted: Any) -> bool:
    there = [same(value, wanted) for value in found]
    return all(there) if wanted is None else any(there)


def one_of(found: list[Any], wanted: list[Any]) -> bool:
    return any(equal(found, each) for each in wanted)


def searched(found: list[Any], pattern: str) -> bool:
    texts = [each for value in found for each in elements(value) if isinstance(each, str)]
    return any(re.search(pattern, text) for text in texts)


def ordered(found: list[Any], name: str, wanted: Any) -> bool:
    return any(
        kind(each) == kind(wanted) and ORDERS[name](each, wanted)
        for value in found
        for each in elements(value)
    )


CHECKS: dict[str, Callable[[list[Any], Any], bool]] = {
    "$eq": equal,
    "$ne": lambda found, wanted: not equal(found, wanted),
    "$in": one_of,
    "$nin": lambda found, wanted: not one_of(found, wanted),
    "$all": lambda found, wanted: bool(wanted) and all(equal(found, each) for each in wanted),
    "$exists": lambda found, wanted: any(each is not MISSING for each in found) is wanted,
    "$regex": searched,
    "$not": lambda found, wanted: not all(holds(found, *each) for each in wanted.items()),
}


def holds(found: list[Any], name: str, wanted: Any) -> bool:
    """Tell whether one operator holds for one of the readings of a field."""
    check = CHECKS.get(name)
    return ordered(found, name, wanted) if check is None else check(found, wanted)


def matches(document: dict[str, Any], part: dict[str, Any]) -> bool:
    """The model: what MongoDB would say, but that one field may have two readings."""
    for name, value in part.items():
        match name:
            case "$and":
                good = all(matches(document, each) for each in value)
            case "$or":
                good = any(matches(document, each) for each in value)
            case "$nor":
                good = not any(matches(document, each) for each in value)
            case _:
                tests = value if isinstance(value, dict) and value else {"$eq": value}
                if not any(key.startswith("$") for key in tests):
                    tests = {"$eq": value}
                found = values_of(document, name)
                if name == "group":  # a column: it is there or it is not
                    found = [MISSING if each is None else each for each in found]
                good = all(holds(found, *each) for each in tests.items())
        if not good:
            return False
    return True


SCALARS = st.sampled_from([value for value in VALUES if value is not MISSING])
TEXTS = st.sampled_from(["a", "ab", "g", "", "h"])
PATTERNS = st.sampled_from(["a", "^a", "b$", "^(a|b)$", "."])


def checks_of(values: st.SearchStrategy[Any], ordered: st.SearchStrategy[Any]) -> Any:
    return st.one_of(
        st.fixed_dictionaries({}, optional={"$eq": values, "$ne": values}),
        st.builds(dict, st.tuples(st.tuples(st.sampled_from(sorted(ORDERS)), ordered))),
        st.builds(
            dict,
            st.tuples(st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(values, max_size=3))),
        ),
        st.fixed_dictionaries({"$exists": st.booleans()}),
        st.fixed_dictionaries({"$regex": PATTERNS}),
    ).filter(bool)


JSON_TESTS = checks_of(
    SCALARS,
    SCALARS.filter(
        lambda value: isinstance(value, str | float | int) and not isinstance(value, bool)
    ),
)
TEXT_TESTS = checks_of(TEXTS | st.none(), TEXTS)


def negated(tests: Any) -> Any:
    return tests | st.fixed_dictionaries({"$not": tests})


LEAVES = st.one_of(
    st.dictionaries(
        st.sampled_from(
            ["config.v", "summary_metrics.v", "config.m.x", "summary_metrics.m.x", "config.m"]
        ),
        SCALARS | st.sampled_from(LISTS[:-1]) | negated(JSON_TESTS),
        min_size=1,
        max_size=2,
    ),
    st.fixed_dictionaries({"group": TEXTS | st.none() | negated(TEXT_TESTS)}),
    st.fixed_dictionaries(
        {
            "tags": TEXTS
            | st.fixed_dictionaries({"$all": st.lists(TEXTS, max_size=2)})
            | checks_of(TEXTS, TEXTS)
        }
    ),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        dict,
        st.tuples(
            st.tuples(
                st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3)
            )
        ),
    ),
    max_leaves=4,
)


async def fill(server: Server) -> Any:
    """Make a run of each document, named by its place in the list; return their project."""
    request = server.request()
    async with server.services.store.write() as connection:
        owner = await resolve_entity(connection, request, USERNAME)
        project = await ensure_project(connection, owner.id, "filters", user_id=server.user_id)
        for index, document in enumerate(DOCUMENTS):
            known = {key: value for key, value in document.items() if value is not MISSING}
            tags = known.pop("tags", [])
            group = known.pop("group", None)
            config = {key: {"value": value} for key, value in known.items()}
            changes = {
                "group_name": group,
                "tags": json.dumps(tags),
                **document_columns("config", json.dumps(config)),
                **document_columns("summary", json.dumps(known, ensure_ascii=False)),
            }
            await insert_run(connection, request, project, f"{index:02}", changes)
    return project


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(part=FILTERS)
async def test_a_filter_chooses_what_the_model_chooses(
    server: Server, part: dict[str, Any]
) -> None:
    if not await server.rows("select 1 from projects where name = 'filters'"):
        await fill(server)
    store = server.services.store
    async with store.write() as connection:
        owner = await resolve_entity(connection, server.request(), USERNAME)
        project = await ensure_project(connection, owner.id, "filters", user_id=server.user_id)
    text = json.dumps(part)
    async with store.read() as connection:
        listed = await list_runs(
            connection, project, filters=text, order="+name", after=None, limit=1000
        )
        assert await count_runs(connection, project, text) == len(listed)
    expected = [f"{index:02}" for index, each in enumerate(DOCUMENTS) if matches(each, part)]
    assert [one.run.name for one in listed] == expected


@pytest.mark.parametrize(
    "part",
    [
        {"state": 3},
        [],
        None,
        {"loss": 1},
        {"config": 1},
        {"config.": 1},
        {'config.a"b': 1},
        {"config.a\n": 1},
        {"state": {"$like": "a"}},
        {"$where": "1"},
        {"$or": []},
        {"$and": {}},
        {"$not": 3},
        {"config.x": {"$gt": None}},
        {"config.x": float("nan")},
        {"config.x": {"$in": 3}},
        {"config.x": {"$in": [0] * 1001}},
        {"config.x": {"$exists": "yes"}},
        {"config.x": {"$regex": "("}},
        {"config.x": {"$regex": "(?=a)"}},
        {"config.x": {"$regex": "a", "$options": "x"}},
        {"config.x": {"$regex": "a" * 1001}},
        {"duration": {"$regex": "a"}},
        {"created_at": "yesterday"},
        {"created_at": 1e300},
        {"created_at": "0001-01-01T00:00:00+14:00"},
        {"config.x": {"$in": [[1]] * 101}},
        {"$and": [{"name": {"$in": ["a"] * 600}}] * 2},
        {"$or": [{"name": {"$regex": "a"}}] * 9},
        {"$or": [{"name": "a"}] * 101},
        json.loads('{"$not":' * 20 + "{}" + "}" * 20),
        {"name": "x" * 100_001},
        {"config.a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q": 1},
    ],
)
def test_a_filter_that_is_not_understood_is_refused(part: Any) -> None:
    with pytest.raises(ApiError) as refused:
        FilterReader(PROJECT, sqlite=True).read(json.dumps(part))
    assert refused.value.status == 400
