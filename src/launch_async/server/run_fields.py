"""What runs can be filtered and ordered by, under each name by which clients ask for it."""

from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, case, cast, extract, func, literal
from sqlalchemy import Float as SqlFloat

from launch_async.server.errors import ApiError
from launch_async.server.json_columns import JsonPlace
from launch_async.server.projects import ProjectRow
from launch_async.server.store.tables import JsonDocument
from launch_async.server.store.tables.people import users
from launch_async.server.store.tables.runs import runs

MAX_KEYS = 16
UNASKABLE = frozenset('"\\').union(map(chr, range(32)))  # escaped in JSON; see json_columns
MILLISECONDS_FROM = 100_000_000_000  # as seconds this is the year 5138
DOCUMENTS = {
    "config": "config",
    "summary_metrics": "summary",
    "summaryMetrics": "summary",
    "summary": "summary",
}
TEXTS: dict[str, ColumnElement[Any]] = {
    "name": runs.c.name,
    "display_name": runs.c.display_name,
    "displayName": runs.c.display_name,
    "state": runs.c.state,
    "group": runs.c.group_name,
    "group_name": runs.c.group_name,
    "groupName": runs.c.group_name,
    "job_type": runs.c.job_type,
    "jobType": runs.c.job_type,
    "sweep": runs.c.sweep_name,
    "sweep_name": runs.c.sweep_name,
    "sweepName": runs.c.sweep_name,
    "notes": runs.c.notes,
    "description": runs.c.description,
    "host": runs.c.host,
    "program": runs.c.program,
    "repo": runs.c.repo,
    "commit": runs.c.git_commit,
    "username": users.c.username,
    "user": users.c.username,
}
TIMES: dict[str, ColumnElement[Any]] = {
    "created_at": runs.c.created_at,
    "createdAt": runs.c.created_at,
    "heartbeat_at": runs.c.heartbeat_at,
    "heartbeatAt": runs.c.heartbeat_at,
    "updated_at": runs.c.heartbeat_at,
    "updatedAt": runs.c.heartbeat_at,
    "finished_at": runs.c.finished_at,
    "finishedAt": runs.c.finished_at,
}
NUMBERS: dict[str, ColumnElement[Any]] = {
    "exitcode": cast(runs.c.exit_code, SqlFloat),
    "exit_code": cast(runs.c.exit_code, SqlFloat),
    "historyLineCount": cast(runs.c.history_lines, SqlFloat),
}
DURATIONS = frozenset({"duration", "runtime"})
PLAIN_NAMES = sorted({*TEXTS, *TIMES, *NUMBERS, *DURATIONS, "entity", "project", "tags"})


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kind(Enum):
    """What a column holds, and so what it can be compared with."""

    TEXT = "a text"
    NUMBER = "a number"
    TIME = "a time such as 2026-01-31T12:00:00Z"


COLUMNS = {Kind.TEXT: TEXTS, Kind.TIME: TIMES, Kind.NUMBER: NUMBERS}


class Column(msgspec.Struct, frozen=True):
    """A field that is a column, or computed from columns."""

    kind: Kind
    expression: Any

    def read(self, value: Any) -> Any:
        """Return a value that the column can be compared with; ValueError when it is none."""
        match self.kind, value:
            case Kind.TEXT, str():
                return value
            case Kind.NUMBER, int() | float() if not isinstance(value, bool):
                return float(value)
            case Kind.TIME, str() | int() | float() if not isinstance(value, bool):
                return _moment(value)
            case _:
                raise ValueError(f"it is compared with {self.kind.value}")


class JsonField(msgspec.Struct, frozen=True):
    """A field inside a JSON document, at the first of these places that is there.

    Users write dots for nested keys, and in keys; the key with dots in it comes last.
    """

    places: tuple[JsonPlace, ...]


Field = Column | JsonField


def field_of(name: str, project: ProjectRow, *, sqlite: bool) -> Field:
    """Return the field that clients call `name`; 400 when there is none."""
    plain = _column(name, project, sqlite=sqlite)
    if plain is not None:
        return plain
    if name == "tags":
        return JsonField((JsonPlace(cast(runs.c.tags, JsonDocument), (), sqlite=sqlite),))
    section, _, rest = name.partition(".")
    if section in DOCUMENTS and rest:
        column = DOCUMENTS[section]
        document = runs.c[f"{column}_document"]
        ways = _ways(section, rest)
        return JsonField(tuple(JsonPlace(document, keys, sqlite=sqlite) for keys in ways))
    known = ", ".join(PLAIN_NAMES)
    raise ApiError(
        f"runs have no field {name!r} here; they have {known}, config.KEY and summary_metrics.KEY"
    )


def _column(name: str, project: ProjectRow, *, sqlite: bool) -> Column | None:
    for kind, columns in COLUMNS.items():
        if name in columns:
            return Column(kind, columns[name])
    if name in DURATIONS:
        return Column(Kind.NUMBER, _duration(sqlite=sqlite))
    if name in {"entity", "project"}:
        return Column(Kind.TEXT, literal(project.entity_name if name == "entity" else project.name))
    return None


def sort_keys(field: Field, *, sqlite: bool) -> list[ColumnElement[Any]]:
    """Return what runs are sorted by, never NULL; what is missing comes first."""
    if isinstance(field, JsonField):
        *others, last = field.places
        parts = (JsonPlace.rank, JsonPlace.number, JsonPlace.text)
        return [
            case(*((place.exists(), part(place)) for place in others), else_=part(last))
            if others
            else part(last)
            for part in parts
        ]
    known: Any = field.expression
    nothing: Any = EPOCH
    if field.kind is Kind.NUMBER:
        nothing = 0.0
    if field.kind is Kind.TEXT:
        known, nothing = (known if sqlite else known.collate("C")), ""
    if not getattr(field.expression, "nullable", True):
        return [known]
    return [case((known.is_(None), 0), else_=1), func.coalesce(known, nothing)]


def _ways(section: str, rest: str) -> list[tuple[str, ...]]:
    keys = tuple(rest.split("."))
    if "" in keys or len(keys) > MAX_KEYS:
        raise ApiError(f"{rest!r} is no path of 1 to {MAX_KEYS} keys with dots between them")
    if not UNASKABLE.isdisjoint(rest):
        raise ApiError(
            f"a key with quotes, backslashes or control characters cannot be asked for: {rest!r}"
        )
    if section != "config":
        return [keys] if len(keys) == 1 else [keys, (rest,)]
    # Each entry of a config is {"value": ...}; users leave that out, W&B's page does not.
    if len(keys) == 1:
        return [(*keys, "value")]
    if keys[1] == "value":
        return [keys]
    nested = [(keys[0], "value", *keys[1:])]
    if keys[-1] == "value":
        nested.insert(0, (keys[0], "value", *keys[1:-1]))
    return [*nested, (rest.removesuffix(".value"), "value")]


def _duration(*, sqlite: bool) -> ColumnElement[float]:
    """Seconds from the start to the end, or to the last word so far."""
    end = func.coalesce(runs.c.finished_at, runs.c.heartbeat_at)
    if sqlite:
        days = func.julianday(end) - func.julianday(runs.c.created_at)
        return func.round(days * 86400.0, 3, type_=SqlFloat)
    return cast(extract("epoch", end - runs.c.created_at), SqlFloat)


def _moment(value: str | float) -> datetime:
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        seconds = value / 1000 if abs(value) >= MILLISECONDS_FROM else value
        return EPOCH + timedelta(seconds=seconds)
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{value!r} is no {Kind.TIME.value.removeprefix('a ')}") from error
