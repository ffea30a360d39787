"""How our scalars are written and read."""

from datetime import UTC, datetime
from typing import Any

from ariadne import ScalarType, SchemaBindable
from graphql import GraphQLError

from launch_async.server.json_text import read_json

MAX_INT64 = 2**63 - 1

json_string = ScalarType("JSONString")
int64 = ScalarType("Int64")
date_time = ScalarType("DateTime")

BINDABLES: list[SchemaBindable] = [json_string, int64, date_time]


@json_string.value_parser
def parse_json_string(value: Any) -> str:
    """Take text that is JSON; anything else would surface much later, far from its sender."""
    if not isinstance(value, str):
        raise GraphQLError(f"a JSONString is a string that holds JSON, not {type(value).__name__}")
    try:
        read_json(value)
    except ValueError as error:
        raise GraphQLError(f"a JSONString does not hold JSON: {error}") from error
    return value


@int64.value_parser
def parse_int64(value: Any) -> int:
    """Take a whole number, also as digits in a string."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise GraphQLError(f"an Int64 is a whole number, not {value!r}")
    try:
        number = int(value)  # a ValueError for thousands of digits too
    except ValueError as error:
        raise GraphQLError(f"an Int64 is a whole number, not {value!r}") from error
    if not -MAX_INT64 - 1 <= number <= MAX_INT64:
        raise GraphQLError(f"{number} does not fit into 64 bits")
    return number


@date_time.serializer
def serialize_date_time(value: datetime) -> str:
    """Write whole seconds in UTC, as W&B does."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
