"""Filters and orders of collections and versions: W&B's MongoDB-like JSON, turned into SQL.

    {"name": {"$regex": "^mnist"}, "$or": [{"tag": "prod"}, {"createdAt": {"$gt": "2026-01-01"}}]}

What is not understood is refused, never ignored.
"""

import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import anyio.to_thread
import msgspec
import re2
from sqlalchemy import ColumnElement, Select, and_, false, not_, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.errors import ApiError
from launch_async.server.json_text import read_json
from launch_async.server.store.tables.artifacts import (
    artifact_aliases,
    artifact_collection_tags,
    artifact_collections,
    artifact_tags,
    artifact_types,
    artifacts,
)
from launch_async.server.store.tables.texts import in_order

MAX_DEPTH: Final = 16
MAX_CONDITIONS: Final = 100
MAX_CHOICES: Final = 1000
MAX_PATTERN: Final = 1000
MAX_FOUND: Final = 10_000
JOINS: Final = ("$and", "$or", "$nor", "$not")
COMPARISONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}

Condition = ColumnElement[bool]
Text = ColumnElement[str]


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """What a kind of thing can be filtered and ordered by."""

    what: str
    """Its name in messages."""
    id: Any
    texts: Mapping[str, Any]
    moments: Mapping[str, Any]
    sets: Mapping[str, tuple[Any, Any]]
    """(owner's id, member) of what a thing has several of."""
    orders: Mapping[str, Any]

    @property
    def known(self) -> str:
        """The names by which it can be filtered."""
        return ", ".join(sorted({*self.texts, *self.moments, *self.sets}))


def _both(snake: str, column: Any) -> dict[str, Any]:
    head, *tail = snake.split("_")
    return {snake: column, "".join([head, *(word.title() for word in tail)]): column}


_COLLECTION_MOMENTS = {
    **_both("created_at", artifact_collections.c.created_at),
    **_both("updated_at", artifact_collections.c.updated_at),
}
_TAGS = (artifact_collection_tags.c.collection_id, artifact_collection_tags.c.name)
COLLECTIONS: Final = Fields(
    what="artifact collections",
    id=artifact_collections.c.id,
    texts={
        "name": artifact_collections.c.name,
        "description": artifact_collections.c.description,
        "type": artifact_types.c.name,
    },
    moments=_COLLECTION_MOMENTS,
    sets={"tag": _TAGS, "tags": _TAGS},
    orders={"name": in_order(artifact_collections.c.name), **_COLLECTION_MOMENTS},
)

_VERSION_MOMENTS = {
    **_both("created_at", artifacts.c.created_at),
    **_both("updated_at", artifacts.c.updated_at),
}
_VERSION_TAGS = (artifact_tags.c.artifact_id, artifact_tags.c.name)
_ALIASES = (artifact_aliases.c.artifact_id, artifact_aliases.c.alias)
VERSIONS: Final = Fields(
    what="artifact versions",
    id=artifacts.c.id,
    texts={
        "state": artifacts.c.state,
        "digest": artifacts.c.digest,
        "description": artifacts.c.description,
    },
    moments=_VERSION_MOMENTS,
    sets={"tag": _VERSION_TAGS, "tags": _VERSION_TAGS, "alias": _ALIASES, "aliases": _ALIASES},
    orders=_VERSION_MOMENTS,
)


async def conditions(
    connection: AsyncConnection, fields: Fields, filters: str | None, universe: Select[Any]
) -> Condition:
    """Return the WHERE that filters mean; `universe` selects the ids among which they look."""
    if not filters:
        return true()
    return await _Reader(connection, fields, universe).read(read_json(filters), 0)


def ordered(fields: Fields, order: str | None, default: Any, **more: Any) -> list[Any]:
    """Return the ORDER BY that an order such as "-created_at" means."""
    if not order:
        return [default]
    known = {**fields.orders, **more}
    name = order.removeprefix("-").removeprefix("+")
    column = known.get(name)
    if column is None:
        raise ApiError(
            f"{fields.what} cannot be ordered by {name!r} here; by {', '.join(sorted(known))} "
            "they can"
        )
    newest = order.startswith("-")
    return [column.desc(), fields.id.desc()] if newest else [column, fields.id]


class _Reader:
    """Reads one filter."""

    def __init__(self, connection: AsyncConnection, fields: Fields, universe: Select[Any]) -> None:
        self._connection = connection
        self._fields = fields
        self._universe = universe
        self._conditions = 0

    async def read(self, part: Any, depth: int) -> Condition:
        """Return the condition that an object of the filter means."""
        if not isinstance(part, dict) or depth > MAX_DEPTH:
            raise ApiError(f"filters of {self._fields.what} are JSON objects, not deeply nested")
        found: list[Condition] = []
        for name, value in part.items():
            if name.startswith("$"):
                found.append(await self._join(name, value, depth))
                continue
            tests = value if isinstance(value, dict) else {"$eq": value}
            for test, wanted in tests.items():
                found.append(await self._test(name, test, wanted))
        return and_(true(), *found)

    async def _join(self, name: str, value: Any, depth: int) -> Condition:
        if name == "$not":
            return not_(await self.read(value, depth + 1))
        if name not in JOINS or not isinstance(value, list):
            raise ApiError(f"filters of {self._fields.what} join lists by {', '.join(JOINS)}")
        parts = [await self.read(each, depth + 1) for each in value]
        if name == "$and":
            return and_(true(), *parts)
        either = or_(false(), *parts)
        return either if name == "$or" else not_(either)

    async def _test(self, name: str, test: str, wanted: Any) -> Condition:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise ApiError(f"a filter has at most {MAX_CONDITIONS} conditions")
        fields = self._fields
        if test == "$not":
            tests = wanted if isinstance(wanted, dict) else {"$eq": wanted}
            return not_(and_(*[await self._test(name, *each) for each in tests.items()]))
        if name in fields.sets:
            owner, member = fields.sets[name]
            positive = {"$ne": "$eq", "$nin": "$in"}.get(test, test)
            members = select(member).where(owner.in_(self._universe))
            condition = await self._compare(name, member, members, positive, wanted)
            found: Condition = fields.id.in_(select(owner).where(condition))
            return found if positive == test else not_(found)
        if name in fields.moments:
            return self._compare_moment(name, fields.moments[name], test, wanted)
        if name in fields.texts:
            column = fields.texts[name]
            texts = self._universe.with_only_columns(column)
            return await self._compare(name, column, texts, test, wanted)
        raise ApiError(f"{fields.what} cannot be filtered by {name!r}; by {fields.known} they can")

    async def _compare(
        self, name: str, column: Text, texts: Select[Any], test: str, wanted: Any
    ) -> Condition:
        match test:
            case "$eq" if wanted is None or isinstance(wanted, str):
                return column.is_(None) if wanted is None else column == wanted
            case "$ne" if wanted is None or isinstance(wanted, str):
                return column.is_distinct_from(wanted)
            case "$in" | "$nin" if _is_choice(wanted):
                chosen = column.in_(wanted) if wanted else false()
                return chosen if test == "$in" else not_(and_(column.is_not(None), chosen))
            case "$contains" if isinstance(wanted, str):
                return column.contains(wanted, autoescape=True)
            case "$regex" if isinstance(wanted, str):
                return await self._search(name, column, texts, wanted)
            case _:
                raise ApiError(
                    f"the filter on {name!r} is not understood; there are $eq, $ne, $in, $nin, "
                    "$contains, $regex and $not"
                )

    def _compare_moment(
        self, name: str, column: ColumnElement[Any], test: str, wanted: Any
    ) -> Condition:
        compare = COMPARISONS.get(test)
        if compare is None or not isinstance(wanted, str):
            raise ApiError(
                f"the filter on {name!r} is not understood; compare with a moment by "
                f"{', '.join(COMPARISONS)}"
            )
        try:
            moment = datetime.fromisoformat(wanted)
            aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            condition: Condition = compare(column, aware.astimezone(UTC))
        except (ValueError, OverflowError) as error:
            raise ApiError(f"the filter on {name!r} holds no moment in ISO 8601") from error
        return condition

    async def _search(self, name: str, column: Text, texts: Select[Any], pattern: str) -> Condition:
        """RE2 searches, here, on both databases: in time linear to the text."""
        options = re2.Options()
        options.log_errors = False
        if len(pattern) > MAX_PATTERN:
            raise ApiError(f"$regex on {name!r} has at most {MAX_PATTERN} characters")
        try:
            searched = re2.compile(pattern, options)
        except re2.error as error:
            raise ApiError(f"$regex on {name!r} is no regular expression of RE2") from error
        rows = await self._connection.execute(texts.distinct().where(column.is_not(None)))
        known = list(rows.scalars())
        matches = await anyio.to_thread.run_sync(
            lambda: sorted(text for text in known if searched.search(text))
        )
        if len(matches) > MAX_FOUND:
            raise ApiError(f"$regex on {name!r} finds more than {MAX_FOUND}; narrow it down")
        found: Condition = column.in_(matches) if matches else false()
        return found


def _is_choice(wanted: Any) -> bool:
    return (
        isinstance(wanted, list)
        and len(wanted) <= MAX_CHOICES
        and all(isinstance(each, str) for each in wanted)
    )
