"""Template variables: typed, bounded, filled in; every refusal names its variable."""

from typing import Any

import pytest

from launch_async.server.errors import ApiError
from launch_async.server.template_variables import (
    parse_variables,
    placeholders,
    schema_warnings,
    substitute,
)


def variables(**schemas: dict[str, Any]) -> dict[str, Any]:
    return {name: {"schema": schema} for name, schema in schemas.items()}


def filled(config: dict[str, Any], given: dict[str, Any], **schemas: dict[str, Any]) -> Any:
    return substitute(config, parse_variables(variables(**schemas)), given)


def test_a_whole_placeholder_keeps_its_type_and_a_part_becomes_text() -> None:
    config = {"gpus": "{{ n }}", "env": ["N={{n}}", "B={{b}}", "F={{f}}"], "deep": {"b": "{{b}}"}}
    assert filled(
        config,
        {"n": 4, "b": True, "f": 0.5},
        n={"type": "integer"},
        b={"type": "boolean"},
        f={"type": "number"},
    ) == {"gpus": 4, "env": ["N=4", "B=true", "F=0.5"], "deep": {"b": True}}


def test_a_default_fills_in() -> None:
    assert filled({"a": "{{x}}"}, {}, x={"type": "string", "default": "d"}) == {"a": "d"}


def test_a_placeholder_without_a_variable_is_left_alone() -> None:
    config = {"a": "{{ .Values.x }} ${run_id} {{other}}"}
    assert filled(config, {}, x={"type": "string", "default": "d"}) == config


def test_a_value_is_not_read_again() -> None:
    assert filled(
        {"a": "{{x}}-{{y}}"}, {"x": "{{y}}", "y": "1"}, x={"type": "string"}, y={"type": "string"}
    ) == {"a": "{{y}}-1"}


@pytest.mark.parametrize(
    ("schema", "given", "value"),
    [
        ({"type": "integer"}, "4", 4),
        ({"type": "integer"}, 4.0, 4),
        ({"type": "number"}, 3, 3),
        ({"type": "float"}, "0.25", 0.25),
        ({"type": "boolean"}, "False", False),
        ({"type": "string", "enum": ["a", "b"]}, "b", "b"),
        ({"type": "integer", "minimum": 1, "maximum": 4}, 1, 1),
    ],
)
def test_a_good_value_is_taken(schema: dict[str, Any], given: Any, value: Any) -> None:
    result = filled({"a": "{{x}}"}, {"x": given}, x=schema)["a"]
    assert (result, type(result)) == (value, type(value))


@pytest.mark.parametrize(
    ("schema", "given", "reason"),
    [
        ({"type": "integer"}, "four", "not of type integer"),
        ({"type": "integer"}, 4.5, "not of type integer"),
        ({"type": "integer"}, True, "not of type integer"),
        ({"type": "number"}, "nan", "not of type number"),
        ({"type": "number"}, "inf", "not of type number"),
        ({"type": "string"}, 4, "not of type string"),
        ({"type": "boolean"}, "maybe", "not of type boolean"),
        ({"type": "string", "enum": ["a", "b"]}, "c", "not one of a, b"),
        ({"type": "integer", "minimum": 1}, 0, "less than 1"),
        ({"type": "number", "maximum": 1.5}, 2, "more than 1.5"),
    ],
)
def test_a_bad_value_is_refused_by_name(schema: dict[str, Any], given: Any, reason: str) -> None:
    with pytest.raises(ApiError, match=f"template variable 'size': .*{reason}"):
        filled({"a": "{{size}}"}, {"size": given}, size=schema)


def test_a_value_that_nobody_asked_for_is_refused() -> None:
    with pytest.raises(ApiError, match="variable 'z': the queue has no such variable; it has: x"):
        filled({}, {"z": 1}, x={"type": "string"})


def test_a_missing_value_says_how_to_give_it() -> None:
    with pytest.raises(ApiError, match=r"'x': it has no default .*--set-var x=VALUE"):
        filled({"a": "{{x}}"}, {}, x={"type": "string"})
    assert filled({"a": 1}, {}, x={"type": "string"}) == {"a": 1}, "nobody needs it"


@pytest.mark.parametrize(
    "document",
    [
        {"bad": {}},
        {"bad": {"schema": []}},
        {"bad": {"schema": {"type": "object"}}},
        {"bad": {"schema": {"type": "string", "enum": []}}},
        {"bad": {"schema": {"type": "integer", "enum": ["x"]}}},
        {"bad": {"schema": {"type": "integer", "minimum": "one"}}},
        {"bad": {"schema": {"type": "integer", "maximum": 4, "default": 5}}},
        {"bad name": {"schema": {"type": "string"}}},
    ],
)
def test_a_bad_schema_is_refused_by_name(document: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="template variable 'bad"):
        parse_variables(document)


def test_what_is_not_used_or_not_enforced_is_a_warning() -> None:
    document = variables(x={"type": "string", "pattern": "a+"}, y={"type": "string"})
    assert schema_warnings(document, {"a": "{{x}}"}) == [
        "template variable 'x': pattern is not enforced",
        "template variable 'y' is not used in the config",
    ]
    assert placeholders({"a": ["{{ x }}", {"b": "{{y}}{{z}}"}]}) == {"x", "y", "z"}
