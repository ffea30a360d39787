"""Statements that come often: compiled once, then run on the driver's own connection.

    LAST: Final = often(select(t.c.id).where(t.c.name == bindparam("name")))
    row = (await connection.execute(LAST, {"name": name})).one_or_none()

SQLAlchemy's way to a statement's result costs several times what a small statement does. Where
there is no driver's connection at hand, the same statement goes SQLAlchemy's way.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Dialect, Executable
from sqlalchemy.engine import IteratorResult, Result
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.types import TypeEngine

from launch_async.server.store.texts import storable

OFTEN: Final = "launch_async_often"
ALONE: Final = "launch_async_alone"

S = TypeVar("S", bound=Executable)
Convert = Callable[[Any], Any]
Bind = tuple[str, Any, Convert | None]
"""A parameter: its name, its value when none is given, and how a value becomes the driver's."""


def often(statement: S, *, alone: bool = False) -> S:
    """Mark a statement that is a constant of a module: it is kept compiled for ever.

    It is given one set of parameters, and tells its rows, never how many it changed. `alone`: it
    needs no transaction around it: a read that locks nothing, or the one write that is done, if it
    does no harm to do it twice.
    """
    return statement.execution_options(**{OFTEN: True, ALONE: alone})


class Prepared:
    """A statement in a driver's words."""

    def __init__(self, statement: Any, dialect: Dialect, names: Sequence[str]) -> None:
        """`names`: the parameters that it is given; an INSERT or UPDATE sets no other columns."""
        compiled = statement.compile(
            dialect=dialect,
            column_keys=list(names) or None,
            compile_kwargs={"render_postcompile": True},
        )
        self.sql = str(compiled)
        self.alone: bool = statement.get_execution_options()[ALONE]
        self._binds: list[Bind] = []
        for name in compiled.positiontup:
            bind = compiled.binds[name]
            convert = bind.type.dialect_impl(dialect).bind_processor(dialect)
            self._binds.append((bind.key, bind.effective_value, convert))
        columns = getattr(statement, "exported_columns", ())
        self._metadata = SimpleResultMetaData([column.key for column in columns])
        self._converts = [_reader(column.type, dialect) for column in columns]
        self._plain = not any(self._converts)

    def bind(self, parameters: Mapping[str, Any]) -> list[Any]:
        """Return the values in the order in which the statement names them."""
        values = []
        for name, value, convert in self._binds:
            given = parameters.get(name, value)
            sent = given if convert is None else convert(given)
            values.append(storable(sent) if isinstance(sent, str) else sent)
        return values

    def result(self, rows: Iterable[Sequence[Any]]) -> Result[Any]:
        """Return the driver's rows as SQLAlchemy would."""
        read = map(tuple, rows) if self._plain else map(self._read, rows)
        return IteratorResult(self._metadata, read)

    def _read(self, row: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(
            value if convert is None else convert(value)
            for convert, value in zip(self._converts, row, strict=True)
        )


class Statements:
    """The prepared statements of one database."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._known: dict[tuple[Any, tuple[str, ...]], Prepared] = {}

    def find(self, statement: Any, parameters: Any) -> Prepared | None:
        """Return the statement prepared for parameters of these names; None: it is not `often`."""
        if isinstance(parameters, list):  # many sets of them
            return None
        key = statement, tuple(parameters or ())
        known = self._known.get(key)
        if known is None and statement.get_execution_options().get(OFTEN):
            known = self._known[key] = Prepared(statement, self.dialect, key[1])
        return known


def _reader(type_: TypeEngine[Any], dialect: Dialect) -> Convert | None:
    return type_.dialect_impl(dialect).result_processor(dialect, None)
