"""Text in tables: as long, and in the same order, on every database."""

from typing import Any

from sqlalchemy import ColumnElement, Dialect, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from launch_async.server.errors import ApiError

SHOWN = 40


class Bounded(TypeDecorator[str]):
    """Text of at most so many characters. SQLite would keep more; PostgreSQL would refuse it."""

    impl = String
    cache_ok = True

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Refuse text that is too long to be kept, with a 400."""
        del dialect
        if value is not None and len(value) > self.most:
            raise ApiError(
                f"{value[:SHOWN]!r}... has {len(value)} characters; at most {self.most} fit there"
            )
        return value

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Text that is looked for may be longer: it is not found."""
        del op, value
        return String()


class in_order(FunctionElement[str]):  # noqa: N801 - used like a function
    """Text to ORDER BY: by code points, as SQLite does, whatever a PostgreSQL's own rules are."""

    inherit_cache = True

    def __init__(self, column: ColumnElement[str]) -> None:
        super().__init__(column)


@compiles(in_order)
def _as_it_is(element: in_order, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(in_order, "postgresql")
def _by_code_points(element: in_order, compiler: SQLCompiler, **options: Any) -> str:
    return f'{compiler.process(element.clauses, **options)} COLLATE "C"'
