"""`.dockerignore`: which files of a folder do not belong to a build context.

Docker's rules, as BuildKit and the docker command apply them: patterns are relative to the
context's root, `*` stays within a name, `**` is any number of folders, `!` takes back what an
earlier pattern left out, the last match wins, and what holds for a folder holds for all in it.
"""

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence

import msgspec
import re2

from launch_async.domain.errors import ItemError, Reason, Stage

MAX_PATTERNS = 1000

_MAX_FOLDERS = 1000
_SPECIAL = frozenset(".+()|{}$^*?[]\\")


class _Pattern(msgspec.Struct, frozen=True):
    found_in: Callable[[str], object]
    takes_back: bool


class Ignore:
    """The patterns of one `.dockerignore`, compiled: for a walk over a context, folders first.

    A look takes time that is linear in the path's length, whatever the patterns are.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises ItemError, which names it, when a pattern is none."""
        if len(patterns) > MAX_PATTERNS:
            raise _refused(f"it has more than {MAX_PATTERNS} patterns")
        self._patterns = [_compile(pattern) for pattern in patterns]
        self._folders: dict[str, tuple[bool, ...]] = {}

    def includes(self, path: str) -> bool:
        """Whether the path, relative and with `/`, belongs to the context."""
        ignored, _ = self._look(path)
        return not ignored

    def _look(self, path: str) -> tuple[bool, tuple[bool, ...]]:
        above = self._of_folder(posixpath.dirname(path))
        name = path.encode(errors="replace").decode()
        ignored, matches = False, list(above)
        for number, pattern in enumerate(self._patterns):
            if not matches[number] and pattern.takes_back == ignored:
                matches[number] = pattern.found_in(name) is not None
            if matches[number]:
                ignored = not pattern.takes_back
        return ignored, tuple(matches)

    def _of_folder(self, folder: str) -> tuple[bool, ...]:
        if not folder:
            return (False,) * len(self._patterns)
        if folder not in self._folders:
            if len(self._folders) >= _MAX_FOLDERS:
                self._folders.clear()
            _, self._folders[folder] = self._look(folder)
        return self._folders[folder]


def parse_ignore(text: str) -> tuple[str, ...]:
    """The patterns of a `.dockerignore`, cleaned."""
    patterns: list[str] = []
    for line in text.removeprefix("\ufeff").split("\n"):
        pattern = line.strip()
        if not pattern or line.startswith("#"):
            continue
        mark = "!" if pattern.startswith("!") else ""
        pattern = pattern.removeprefix("!").strip()
        patterns.append(mark + (_clean(pattern) if pattern else ""))
    return tuple(patterns)


def _clean(pattern: str) -> str:
    cleaned = posixpath.normpath(pattern)
    return cleaned.lstrip("/") or "/"


def _compile(pattern: str) -> _Pattern:
    takes_back = pattern.startswith("!")
    glob = pattern.removeprefix("!")
    if not glob or re.search(r"(?<!\\)(?:\\\\)*\\$", glob):
        raise _refused(f"{pattern!r} is no pattern")
    options = re2.Options()
    options.log_errors = False
    try:
        return _Pattern(re2.compile(_regex(glob), options).search, takes_back)
    except re2.error as error:
        raise _refused(f"{pattern!r} is no pattern") from error


def _regex(glob: str) -> str:
    """`**` at the start alone is "ends with", at the end alone "begins with", as Docker has it."""
    if glob.startswith("**") and _is_plain(glob[2:]):
        rest = glob[2:]
        either = f"|^{_escaped(rest[1:])}" if rest.startswith("/") else ""
        return f"(?:{_escaped(rest)}{either})$"
    if glob.endswith("**") and _is_plain(glob[:-2]):
        return f"^{_escaped(glob[:-2])}"
    return f"^{''.join(_tokens(glob))}$"


def _is_plain(part: str) -> bool:
    return not any(character in part for character in "*?[]\\")


def _escaped(part: str) -> str:
    return "".join(f"\\{one}" if one in _SPECIAL else one for one in part)


def _tokens(glob: str) -> Iterator[str]:
    at = 0
    while at < len(glob):
        one = glob[at]
        at += 1
        if glob.startswith("**", at - 1):
            at += 1
            at += glob.startswith("/", at)
            yield "(?:.*/)?" if at < len(glob) else ".*"
        elif one == "*":
            yield "[^/]*"
        elif one == "?":
            yield "[^/]"
        elif one == "\\":
            yield _escaped(glob[at])
            at += 1
        elif one == "[":
            end = _class_end(glob, at)
            yield glob[at - 1 : end]
            at = end
        else:
            yield _escaped(one)


def _class_end(glob: str, at: int) -> int:
    """Where the class that began before `at` ends; re2 knows its ranges, `^` and escapes."""
    while at < len(glob) and glob[at] != "]":
        at += 2 if glob[at] == "\\" else 1
    return at + 1


def _refused(what: str) -> ItemError:
    return ItemError(
        f"The job's .dockerignore cannot be used: {what}.",
        reason=Reason.JOB_INVALID,
        stage=Stage.BUILD,
    )
