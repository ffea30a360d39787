"""Looking into JSON documents, in SQL of either database.

A document is a column of type JsonDocument: jsonb on PostgreSQL, on SQLite a text that is parsed
anew each time. Every condition here is true or false, never NULL.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Float,
    Text,
    and_,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH
from sqlalchemy.sql.selectable import NamedFromClause

Condition = ColumnElement[bool]
Scalar = str | int | float | bool

NUMBER = (int, float)
ORDERS: dict[str, tuple[str, Callable[[Any, Any], Condition]]] = {
    "$gt": (">", operator.gt),
    "$gte": (">=", operator.ge),
    "$lt": ("<", operator.lt),
    "$lte": ("<=", operator.le),
}
"""MongoDB's word for an order: that of a JSON path, and that of a column."""

RANKS = {"number": 1, "string": 2, "object": 3, "array": 4, "boolean": 5}
"""MongoDB's order of types; what is missing or null comes before them all."""

SQLITE_NUMBERS = ("integer", "real")
SQLITE_TYPES = {
    "integer": "number",
    "real": "number",
    "text": "string",
    "object": "object",
    "array": "array",
    "true": "boolean",
    "false": "boolean",
}


class JsonPlace:
    """One place in a JSON document, by the keys that lead to it."""

    def __init__(
        self, document: ColumnElement[str], keys: tuple[str, ...], *, sqlite: bool
    ) -> None:
        self._document = document
        self._keys = keys
        self._sqlite = sqlite

    def exists(self) -> Condition:
        """Whether there is something, be it null."""
        return self._type_of_sqlite().is_not(None) if self._sqlite else self._value().is_not(None)

    def is_null(self) -> Condition:
        """Whether there is nothing, or null."""
        if self._sqlite:
            return func.coalesce(self._type_of_sqlite(), "null") == "null"
        return func.coalesce(func.jsonb_typeof(self._value()), "null") == "null"

    def is_one_of(self, wanted: Sequence[Scalar]) -> Condition:
        """Whether the value, or any element of the list there, is one of these."""
        if not self._sqlite:
            return self._matches("@ == $wanted[*]", list(wanted))
        each = self._elements()
        texts = [one for one in wanted if isinstance(one, str)]
        flags = ["true" if one else "false" for one in wanted if isinstance(one, bool)]
        numbers = [one for one in wanted if isinstance(one, NUMBER) and not isinstance(one, bool)]
        return self._any_element(
            each,
            or_(
                each.c.type.in_(flags),
                and_(each.c.type == "text", each.c.value.in_(texts)),
                and_(each.c.type.in_(SQLITE_NUMBERS), each.c.value.in_(numbers)),
            ),
        )

    def compare(self, order: str, wanted: str | float) -> Condition:
        """Whether the value, or any element of the list there, stands so to a text or number.

        Values of the other type do not.
        """
        if not self._sqlite:
            return self._matches(f"@ {ORDERS[order][0]} $wanted", wanted)
        each = self._elements()
        types = ("text",) if isinstance(wanted, str) else SQLITE_NUMBERS
        compared = ORDERS[order][1](each.c.value, wanted)
        return self._any_element(each, and_(each.c.type.in_(types), compared))

    def equals_whole(self, wanted: Any) -> Condition:
        """Whether the value is this list or object; on SQLite the order of keys counts too."""
        text = _json(wanted)
        if self._sqlite:
            whole = func.json_extract(self._document, self._path()) == func.json(text)
            return and_(self._is_of("object", "array"), whole)
        return func.coalesce(self._value() == _jsonb(text), false())

    def texts(self) -> tuple[ColumnElement[Any], NamedFromClause | None]:
        """Return a column with each text there, and what else it is selected from."""
        if self._sqlite:
            each = self._elements()
            text = case((and_(self._is_listable(), each.c.type == "text"), each.c.value))
            return text, each
        found = func.jsonb_path_query(
            self._value(), _path_of('$ ? (@.type() == "string")'), type_=JSONB
        )
        return found.op("#>>")(literal_column("'{}'")), None

    def rank(self) -> ColumnElement[int]:
        """The place of the value's type in the order of types, 0 for nothing and null."""
        if self._sqlite:
            kinds = {name: RANKS[kind] for name, kind in SQLITE_TYPES.items()}
            return case(kinds, value=self._type_of_sqlite(), else_=0)
        return case(RANKS, value=func.jsonb_typeof(self._value()), else_=0)

    def number(self) -> ColumnElement[float]:
        """The value if it is a number, else 0."""
        if self._sqlite:
            value = func.json_extract(self._document, self._path())
            return case((self._is_of(*SQLITE_NUMBERS), cast(value, Float)), else_=0.0)
        is_number = func.jsonb_typeof(self._value()) == "number"
        return case((is_number, cast(self._as_text(), Float)), else_=0.0)

    def text(self) -> ColumnElement[str]:
        """The value if it is a text, else ""."""
        if self._sqlite:
            value = func.json_extract(self._document, self._path())
            return case((self._is_of("text"), cast(value, Text)), else_="")
        is_text = func.jsonb_typeof(self._value()) == "string"
        return case((is_text, self._as_text()), else_="").collate("C")

    def _value(self) -> ColumnElement[Any]:
        if not self._keys:
            return self._document
        return func.jsonb_extract_path(self._document, *self._keys, type_=JSONB)

    def _as_text(self) -> ColumnElement[str]:
        return func.jsonb_extract_path_text(self._document, *self._keys, type_=Text)

    def _path(self) -> str:
        return "$" + "".join(f'."{key}"' for key in self._keys)

    def _type_of_sqlite(self) -> ColumnElement[Any]:
        return func.json_type(self._document, self._path())

    def _is_of(self, *types: str) -> Condition:
        return func.coalesce(self._type_of_sqlite(), "null").in_(types)

    def _is_listable(self) -> Condition:
        """Whether `_elements` yields what is compared: it would yield an object's values too."""
        return func.coalesce(self._type_of_sqlite(), "object") != "object"

    def _matches(self, predicate: str, wanted: Any) -> Condition:
        """Whether a path's predicate holds.

        Its lax mode takes a list for its elements, and would do so again inside the predicate.
        """
        path = _path_of(f'$ ? (@.type() != "array" && {predicate})')
        found = func.jsonb_path_exists(self._value(), path, _jsonb(_json({"wanted": wanted})))
        return func.coalesce(found, false())

    def _any_element(self, each: NamedFromClause, condition: Condition) -> Condition:
        return and_(self._is_listable(), exists(select(1).select_from(each).where(condition)))

    def _elements(self) -> NamedFromClause:
        """The elements of a list, or the one value that is there."""
        return (
            func.json_each(self._document, self._path())
            .table_valued("type", "value", joins_implicitly=True)
            .alias()
        )


def _jsonb(text: str) -> ColumnElement[Any]:
    return cast(literal(text, Text), JSONB)  # a bare text would be sent as a JSON string


def _path_of(text: str) -> ColumnElement[Any]:
    return cast(literal(text, Text), JSONPATH)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
