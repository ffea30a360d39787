"""Filters of runs: W&B's MongoDB-like JSON, turned into SQL.

    text -> conditions, and a search for each $regex -> searches done -> SQL

A filter that is not understood is refused, never ignored. What is compared with a value of another
type does not match; a list matches when one of its elements does; null also means missing.
"""

import math
from typing import Any

import anyio.to_thread
import msgspec
import re2
from sqlalchemy import (
    ARRAY,
    Integer,
    String,
    and_,
    any_,
    bindparam,
    false,
    func,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.errors import ApiError
from launch_async.server.json_columns import ORDERS, Condition
from launch_async.server.json_text import plain, read_json
from launch_async.server.projects import ProjectRow
from launch_async.server.run_fields import Column, Field, JsonField, field_of
from launch_async.server.store.tables.people import users
from launch_async.server.store.tables.runs import runs

MAX_CHARACTERS = 100_000
MAX_CHOICES = 1000  # of all lists together: SQLite takes 32 thousand parameters
MAX_CONDITIONS = 100  # SQLite takes expressions of a thousand levels
MAX_DEPTH = 16
MAX_SEARCHES = 8
MAX_PATTERN = 1000
SEARCHED_CHARACTERS = 10_000
FLAGS = frozenset("ims")

OPERATORS = sorted({*ORDERS, "$eq", "$ne", "$in", "$nin", "$all", "$exists", "$regex", "$not"})
JOINS = ("$and", "$or", "$nor", "$not")


class Search(msgspec.Struct):
    """One $regex. RE2 searches, here, on both databases: in time linear to the text."""

    pattern: Any
    texts: Any
    """A SELECT of run ids and texts."""

    found: list[int] = []

    async def run(self, connection: AsyncConnection) -> None:
        """Find the runs that match."""
        rows: list[Any] = list(await connection.execute(self.texts))
        self.found = await anyio.to_thread.run_sync(
            lambda: sorted({run_id for run_id, text in rows if self.pattern.search(text)})
        )


async def conditions(
    connection: AsyncConnection, project: ProjectRow, filters: str | None
) -> list[Condition]:
    """Return the WHERE of a list of a project's runs; 400 for a filter that is not understood."""
    reader = FilterReader(project, sqlite=connection.dialect.name == "sqlite")
    found = reader.read(filters)
    for search in reader.searches:
        await search.run(connection)
    return [runs.c.project_id == project.id, found]


class FilterReader:
    """Reads one filter; `searches` are to be run before its conditions are used."""

    def __init__(self, project: ProjectRow, *, sqlite: bool) -> None:
        self.searches: list[Search] = []
        self._project = project
        self._sqlite = sqlite
        self._conditions = 0
        self._choices = 0

    def read(self, filters: str | None) -> Condition:
        """Return the condition that a filter's text means."""
        if not filters:
            return true()
        if len(filters) > MAX_CHARACTERS:
            raise ApiError(f"run filters have at most {MAX_CHARACTERS} characters")
        return self._object(plain(read_json(filters)), 0)

    def _object(self, part: Any, depth: int) -> Condition:
        if not isinstance(part, dict):
            raise ApiError("run filters are JSON objects")
        if depth > MAX_DEPTH:
            raise ApiError("these run filters are nested too deeply")
        found = [
            self._join(name, value, depth)
            if name.startswith("$")
            else self._field(name, value, depth)
            for name, value in part.items()
        ]
        return and_(true(), *found)

    def _join(self, name: str, value: Any, depth: int) -> Condition:
        if name == "$not":
            return not_(self._object(value, depth + 1))
        if name not in JOINS:
            known = ", ".join([*JOINS, *OPERATORS])
            raise ApiError(f"run filters have no {name!r} here; they have {known}")
        if not isinstance(value, list) or (not value and name != "$and"):
            raise ApiError(f"{name} takes a list of run filters")
        parts = [self._object(each, depth + 1) for each in value]
        match name:
            case "$and":
                return and_(true(), *parts)
            case "$or":
                return or_(false(), *parts)
            case _:
                return not_(or_(false(), *parts))

    def _field(self, name: str, value: Any, depth: int) -> Condition:
        field = field_of(name, self._project, sqlite=self._sqlite)
        if not isinstance(value, dict) or not any(key.startswith("$") for key in value):
            return self._compare(name, field, "$eq", value, depth)
        flags = value.get("$options", "")
        parts: list[Condition] = []
        for operator, wanted in value.items():
            if operator == "$regex":
                parts.append(self._search(name, field, wanted, flags))
            elif operator != "$options" or "$regex" not in value:
                parts.append(self._compare(name, field, operator, wanted, depth))
        return and_(*parts)

    def _compare(
        self, name: str, field: Field, operator: str, wanted: Any, depth: int
    ) -> Condition:
        self._count()
        match operator:
            case "$eq":
                return self._equals(name, field, wanted)
            case "$ne":
                return not_(self._equals(name, field, wanted))
            case "$in" | "$nin" | "$all":
                found = self._choose(name, field, operator, wanted)
                return not_(found) if operator == "$nin" else found
            case "$exists" if wanted in (True, False):
                return _exists(field) if wanted else not_(_exists(field))
            case "$not" if isinstance(wanted, dict) and depth < MAX_DEPTH:
                return not_(self._field(name, wanted, depth + 1))
            case _ if operator in ORDERS:
                return self._ordered(name, field, operator, wanted)
            case _:
                known = ", ".join(OPERATORS)
                raise ApiError(
                    f"the filter on {name!r} is not understood: {operator} of "
                    f"{type(wanted).__name__}; there are {known}"
                )

    def _count(self, more: int = 1) -> None:
        self._conditions += more
        if self._conditions > MAX_CONDITIONS:
            raise ApiError(f"run filters have at most {MAX_CONDITIONS} conditions here")

    def _equals(self, name: str, field: Field, wanted: Any) -> Condition:
        return self._is_one_of(name, field, [wanted])

    def _choose(self, name: str, field: Field, operator: str, wanted: Any) -> Condition:
        if not isinstance(wanted, list):
            raise ApiError(f"{operator} on {name!r} takes a list")
        self._choices += len(wanted)
        if self._choices > MAX_CHOICES:
            raise ApiError(f"the lists of run filters have at most {MAX_CHOICES} values here")
        if operator != "$all":
            return self._is_one_of(name, field, wanted)
        self._count(len(wanted))
        parts = [self._equals(name, field, each) for each in wanted]
        return and_(*parts) if parts else false()

    def _is_one_of(self, name: str, field: Field, choices: list[Any]) -> Condition:
        some = [each for each in choices if each is not None]
        found: list[Condition] = [false()]
        if isinstance(field, Column):
            if None in choices:
                found.append(field.expression.is_(None))
            if some:
                known = field.expression.in_([_read(name, field, each) for each in some])
                found.append(and_(field.expression.is_not(None), known))
            return or_(*found)
        if None in choices:
            found.append(and_(*(place.is_null() for place in field.places)))
        scalars = [each for each in some if not isinstance(each, list | dict)]
        self._count(len(some) - len(scalars))
        for each in scalars:
            _check_number(name, each)
        for place in field.places:
            found += [place.equals_whole(each) for each in some if isinstance(each, list | dict)]
            if scalars:
                found.append(place.is_one_of(scalars))
        return or_(*found)

    def _ordered(self, name: str, field: Field, operator: str, wanted: Any) -> Condition:
        if isinstance(field, JsonField):
            if not isinstance(wanted, str | int | float) or isinstance(wanted, bool):
                raise ApiError(f"{operator} on {name!r} takes a number or a text")
            _check_number(name, wanted)
            return or_(*(place.compare(operator, wanted) for place in field.places))
        value = _read(name, field, wanted)
        column = field.expression
        if isinstance(value, str) and not self._sqlite:
            column = column.collate("C")  # as SQLite compares: by code points
        compared = ORDERS[operator][1](column, value)
        return and_(field.expression.is_not(None), compared)

    def _search(self, name: str, field: Field, pattern: Any, flags: Any) -> Condition:
        self._count()
        if len(self.searches) >= MAX_SEARCHES:
            raise ApiError(f"run filters have at most {MAX_SEARCHES} $regex")
        search = Search(_pattern(name, pattern, flags), self._texts(name, field))
        self.searches.append(search)
        if self._sqlite:
            given = bindparam(None, type_=String, callable_=lambda: _json(search.found))
            return runs.c.id.in_(select(func.json_each(given).table_valued("value").c.value))
        return runs.c.id == any_(
            bindparam(None, type_=ARRAY(Integer), callable_=lambda: search.found)
        )

    def _texts(self, name: str, field: Field) -> Any:
        """Return a SELECT of the run ids and texts of a field, of this project's runs."""
        parts: list[Any] = []
        if isinstance(field, JsonField):
            for place in field.places:
                text, source = place.texts()
                shown = select(runs.c.id, func.substr(text, 1, SEARCHED_CHARACTERS).label("text"))
                parts.append(
                    shown.select_from(runs) if source is None else shown.select_from(runs, source)
                )
        elif field.kind is not field.kind.TEXT:
            raise ApiError(f"{name!r} cannot be searched with $regex: it is no text")
        else:
            text = func.substr(field.expression, 1, SEARCHED_CHARACTERS).label("text")
            parts.append(
                select(runs.c.id, text)
                .select_from(runs)
                .join(users, users.c.id == runs.c.user_id, isouter=True)
            )
        owned = [part.where(runs.c.project_id == self._project.id) for part in parts]
        whole = owned[0].union_all(*owned[1:]).subquery()
        return select(whole.c.id, whole.c.text).where(whole.c.text.is_not(None))


def _exists(field: Field) -> Condition:
    if isinstance(field, JsonField):
        return or_(*(place.exists() for place in field.places))
    there: Condition = field.expression.is_not(None)
    return there


def _read(name: str, field: Column, wanted: Any) -> Any:
    _check_number(name, wanted)
    try:
        return field.read(wanted)
    except ValueError as error:
        raise ApiError(f"the filter on {name!r} is not understood: {error}") from error


def _check_number(name: str, wanted: Any) -> None:
    if isinstance(wanted, float) and not math.isfinite(wanted):
        raise ApiError(f"the filter on {name!r} compares with a number that is not finite")


def _pattern(name: str, pattern: Any, flags: Any) -> Any:
    if not isinstance(pattern, str) or not 1 <= len(pattern) <= MAX_PATTERN:
        raise ApiError(f"$regex on {name!r} is a text of 1 to {MAX_PATTERN} characters")
    if not isinstance(flags, str) or not FLAGS.issuperset(flags):
        raise ApiError(f"$options on {name!r} are some of i, m and s")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(f"(?{flags}){pattern}" if flags else pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args else "it is not understood"
        raise ApiError(f"$regex on {name!r} is no regular expression of RE2: {reason}") from error


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
