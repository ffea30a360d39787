"""Reads Dockerfiles: which instructions there are, and which images they build upon.

As BuildKit reads them: parser directives first, an escape character that joins lines, comments also
between joined lines, and heredocs, whose lines are no instructions.
"""

import re
from collections.abc import Iterator, Mapping

import msgspec

from launch_async.domain.image import ImageRef

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(\S.*?)\s*")
_WORD = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s"'\\])+""")
_HEREDOC = re.compile(r"\d*<<(-?)([^<]+)")
_WITH_HEREDOCS = frozenset({"RUN", "COPY", "ADD"})
_VARIABLE = re.compile(
    r"\\(?P<literal>.)"
    r"|\$(?P<plain>[A-Za-z_]\w*)"
    r"|\$\{(?P<name>[A-Za-z_]\w*)(?:(?P<rule>:?[-+])(?P<word>[^{}]*))?\}",
    re.ASCII,
)
_FROM_FLAG = re.compile(r"--from=(\S+)")
_MOUNT_FROM = re.compile(r"--mount=\S*?\bfrom=([^\s,]+)")


class Instruction(msgspec.Struct, frozen=True):
    """One instruction, its lines joined."""

    name: str
    """In capitals."""
    rest: str


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile in their order; heredocs are left out."""
    lines = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]
    goes_on = re.compile(rf"(?:^|(?<!{_escape(lines)})){_escape(lines)}[ \t]*$")
    number = 0
    while number < len(lines):
        joined, number = _joined(lines, number, goes_on)
        words = joined.split(None, 1)
        if words:
            name, rest = words[0].upper(), words[1].strip() if len(words) > 1 else ""
            number = _after_heredocs(name, rest, lines, number)
            yield Instruction(name, rest)


def bases(text: str, build_args: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The images that a Dockerfile builds upon or copies from; its own stages are none.

    Names hold the defaults of ARG, or `build_args`. What only the builder can know (a platform's
    ARG), what has no value and what is no image reference is left out.
    """
    given = dict(build_args or {})
    arguments: dict[str, str | None] = {}
    stages: set[str] = set()
    found: dict[str, None] = {}
    begun = False
    for one in instructions(text):
        if one.name == "ARG" and not begun:
            for name, default in _assignments(one.rest):
                arguments[name] = given.get(name, _expand(default, arguments))
        elif one.name == "FROM":
            begun = True
            words = [word for word in one.rest.split() if not word.startswith("--")]
            image = _expand(words[0], arguments) if words else None
            if image is not None and image.lower() not in stages:
                found[image] = None
            if len(words) == 3 and words[1].upper() == "AS":
                stages.add(words[2].lower())
        else:
            found.update((name, None) for name in _copied_from(one) if name.lower() not in stages)
    return tuple(name for name in found if _is_image(name))


def _escape(lines: list[str]) -> str:
    for line in lines:
        directive = _DIRECTIVE.fullmatch(line.strip())
        if directive is None:
            break
        if directive[1].lower() == "escape" and directive[2] == "`":
            return "`"
    return r"\\"


def _joined(lines: list[str], number: int, goes_on: re.Pattern[str]) -> tuple[str, int]:
    """The instruction that begins at this line or after it, and the line after it."""
    parts: list[str] = []
    while number < len(lines):
        line = lines[number]
        number += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        part, is_joined = goes_on.subn("", line)
        parts.append(part)
        if not is_joined:
            break
    return "".join(parts), number


def _after_heredocs(name: str, rest: str, lines: list[str], number: int) -> int:
    """The line after the heredocs that the instruction begins."""
    if name == "ONBUILD":
        name, _, rest = rest.partition(" ")
    if name.upper() not in _WITH_HEREDOCS:
        return number
    for word in _WORD.findall(rest):
        begun = _HEREDOC.fullmatch(word)
        if begun is None:
            continue
        end = re.sub(r"[\"'\\]", "", begun[2])
        at = number
        while at < len(lines) and (lines[at].lstrip("\t") if begun[1] else lines[at]) != end:
            at += 1
        if at < len(lines):  # else it is the shell's own, of a time before heredocs
            number = at + 1
    return number


def _assignments(rest: str) -> Iterator[tuple[str, str | None]]:
    for word in _WORD.findall(rest):
        name, is_set, value = word.partition("=")
        yield name, value if is_set else None


def _expand(text: str | None, arguments: Mapping[str, str | None]) -> str | None:
    """The text with its variables filled in and without quotes; None when one has no value."""
    if text is None:
        return None
    unknown: list[str] = []

    def fill(found: re.Match[str]) -> str:
        if found["literal"]:
            return found["literal"]
        name, rule, word = found["plain"] or found["name"], found["rule"], found["word"]
        value = arguments.get(name)
        is_set = bool(value) if rule and rule.startswith(":") else value is not None
        if rule and rule.endswith("+"):
            return word if is_set else ""
        if rule and not is_set:
            return word
        if value is None:
            unknown.append(name)
        return value or ""

    plain = re.sub(r"[\"']", "", text)
    for _ in range(2):  # a default may name another one: ${A:-${B}}
        plain = _VARIABLE.sub(fill, plain)
    return None if unknown or "$" in plain else plain


def _copied_from(one: Instruction) -> Iterator[str]:
    if one.name == "COPY":
        flags = _FROM_FLAG.findall(one.rest)
    elif one.name == "RUN":
        flags = _MOUNT_FROM.findall(one.rest)
    else:
        flags = []
    for name in flags:
        if not name.isdecimal():  # a stage's number
            yield name


def _is_image(name: str) -> bool:
    try:
        ImageRef.parse(name)
    except ValueError:
        return False
    return name != "scratch"
