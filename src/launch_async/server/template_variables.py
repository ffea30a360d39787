"""Template variables: `{{name}}` in a queue's config, typed and bounded by a small JSON Schema.

A placeholder that is a whole string becomes the typed value; inside a longer string it is text.
A placeholder without a variable of its name is left alone: it may be somebody else's syntax.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from launch_async.server.errors import ApiError

NAME = re.compile(r"[A-Za-z_][\w.-]{0,127}", re.ASCII)
PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][\w.-]*)\s*\}\}", re.ASCII)
TYPES = ("string", "integer", "number", "boolean")
ALIASES = {"float": "number", "int": "integer", "bool": "boolean"}  # the words of W&B's page
KEYWORDS = frozenset({"type", "default", "enum", "minimum", "maximum", "title", "description"})


class Missing(msgspec.Struct, frozen=True):
    """Stands for "no value", as null is a value."""


MISSING = Missing()


class TemplateVariable(msgspec.Struct, frozen=True, kw_only=True):
    """One variable of a queue, with the bounds that every value must keep."""

    name: str
    type: str
    default: Any = MISSING
    enum: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None

    def value(self, given: Any) -> Any:
        """Return `given` in this variable's type, or raise an ApiError that names the variable.

        W&B's command line casts integers and numbers only, so text is read for the other types too.
        """
        value = _cast(self.type, given)
        if isinstance(value, Missing):
            raise _wrong(self.name, f"{given!r} is not of type {self.type}")
        if self.enum is not None and value not in self.enum:
            choices = ", ".join(str(choice) for choice in self.enum)
            raise _wrong(self.name, f"{given!r} is not one of {choices}")
        if self.type in {"integer", "number"}:
            if self.minimum is not None and value < self.minimum:
                raise _wrong(self.name, f"{given!r} is less than {_text(self.minimum)}")
            if self.maximum is not None and value > self.maximum:
                raise _wrong(self.name, f"{given!r} is more than {_text(self.maximum)}")
        return value


def parse_variables(document: Mapping[str, Any]) -> dict[str, TemplateVariable]:
    """Check `{"name": {"schema": {...}}}` and return the variables; ApiError names a bad one."""
    return {name: _variable(name, body) for name, body in document.items()}


def schema_warnings(document: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return what is legal but probably not meant: unknown keywords, unused variables."""
    used = placeholders(config)
    warnings = [
        f"template variable {n!r} is not used in the config" for n in document.keys() - used
    ]
    for name, body in document.items():
        unknown = sorted(set(body["schema"]) - KEYWORDS)
        if unknown:
            warnings.append(f"template variable {name!r}: {', '.join(unknown)} is not enforced")
    return sorted(warnings)


def placeholders(value: Any) -> set[str]:
    """Return the names of all placeholders in a document's strings."""
    found: set[str] = set()

    def note(text: str) -> str:
        found.update(PLACEHOLDER.findall(text))
        return text

    _each_string(value, note)
    return found


def substitute(
    document: dict[str, Any],
    variables: Mapping[str, TemplateVariable],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Return `document` with every placeholder of a known variable filled in.

    Raises an ApiError for a value without a variable, a value out of bounds, and for a placeholder
    that is left without value and default.
    """
    for name in given:
        if name not in variables:
            known = ", ".join(sorted(variables)) or "none"
            raise _wrong(name, f"the queue has no such variable; it has: {known}")
    values = {name: variables[name].value(value) for name, value in given.items()}

    def fill_part(match: re.Match[str]) -> str:
        variable = variables.get(match.group(1))
        return match.group(0) if variable is None else _text(_resolve(variable, values))

    def fill(text: str) -> Any:
        whole = PLACEHOLDER.fullmatch(text.strip())
        if whole is not None and whole.group(1) in variables:
            return _resolve(variables[whole.group(1)], values)
        return PLACEHOLDER.sub(fill_part, text)

    filled = _each_string(document, fill)
    if not isinstance(filled, dict):
        raise TypeError("an object became something else")
    return filled


def _resolve(variable: TemplateVariable, values: Mapping[str, Any]) -> Any:
    if variable.name in values:
        return values[variable.name]
    if isinstance(variable.default, Missing):
        raise _wrong(
            variable.name,
            f"it has no default and no value was given; add --set-var {variable.name}=VALUE",
        )
    return variable.default


def _variable(name: str, body: Any) -> TemplateVariable:
    if NAME.fullmatch(name) is None:
        raise _wrong(name, "a name is letters, digits and _ . -, and begins with a letter or _")
    schema = body.get("schema") if isinstance(body, Mapping) else None
    if not isinstance(schema, Mapping):
        raise _wrong(name, 'it needs a JSON Schema object under the key "schema"')
    kind = ALIASES.get(str(schema.get("type")), schema.get("type"))
    if kind not in TYPES:
        raise _wrong(name, f"type {schema.get('type')!r} is not one of {', '.join(TYPES)}")
    enum = schema.get("enum")
    if enum is not None and (not isinstance(enum, list) or not enum):
        raise _wrong(name, "enum must be a list with at least one value")
    variable = TemplateVariable(
        name=name,
        type=str(kind),
        enum=None if enum is None else tuple(enum),
        minimum=_bound(name, schema, "minimum"),
        maximum=_bound(name, schema, "maximum"),
    )
    if enum is not None:
        free = msgspec.structs.replace(variable, enum=None)
        variable = msgspec.structs.replace(variable, enum=tuple(free.value(each) for each in enum))
    if schema.get("default") is None:
        return variable
    default = variable.value(schema["default"])
    return msgspec.structs.replace(variable, default=default)


def _bound(name: str, schema: Mapping[str, Any], key: str) -> float | None:
    bound = schema.get(key)
    if bound is None:
        return None
    if isinstance(bound, bool) or not isinstance(bound, int | float):
        raise _wrong(name, f"{key} must be a number")
    return bound


def _cast(kind: str, given: Any) -> Any:
    if kind == "string":
        return given if isinstance(given, str) else MISSING
    if kind == "boolean":
        return _boolean(given)
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        return MISSING
    try:
        whole_text = isinstance(given, str) and kind == "integer"
        number = int(given) if whole_text or isinstance(given, int) else float(given)
        if kind == "integer":
            return int(number) if number == int(number) else MISSING
        return number if math.isfinite(number) else MISSING
    except (ValueError, OverflowError):
        return MISSING


def _boolean(given: Any) -> Any:
    if isinstance(given, bool):
        return given
    return {"true": True, "false": False}.get(str(given).lower(), MISSING)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _each_string(value: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each_string(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_each_string(inner, change) for inner in value]
    return value


def _wrong(name: str, why: str) -> ApiError:
    return ApiError(f"template variable {name!r}: {why}")
