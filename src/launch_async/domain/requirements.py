"""What a job's code says that it needs: the first of three files that says anything.

`requirements.txt`, then `pyproject.toml` with `[project].dependencies`, then
`requirements.frozen.txt` (launch-features.md, B7).
"""

import codecs
import posixpath
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from launch_async.domain.errors import ItemError, Reason, Stage

MAX_BYTES = 4 << 20
"""Of one list. What is longer is no list of requirements."""

_NESTED = re.compile(r"(?:-r|-c|--requirement|--constraint)(?:\s+|=|(?<=-[rc]))(\S+)")
_EDITABLE = re.compile(r"(?:-e|--editable)(?:\s+|=)")
_PLACE = re.compile(r"(?:-f|--find-links|-i|--index-url|--extra-index-url)(?:\s+|=)")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),  # `pip freeze > file` of an older PowerShell
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """What pip is to install."""

    lines: tuple[str, ...] = ()
    """Normalised: no comments, one space, files that are referred to read in."""
    file: Path | None = None
    """The file to hand to pip; None when there is only a list of lines (or nothing)."""
    frozen: bool = False
    """A list of all that was installed elsewhere: some of it may not be had here."""
    texts: Mapping[str, str] = {}
    """`file` and the files that it refers to: path within the code -> text."""
    missing: tuple[str, ...] = ()
    """Files that it refers to and that the code does not hold."""

    @property
    def editable(self) -> bool:
        """Whether something is installed as a link into the code, which no other run may share."""
        return any(_EDITABLE.match(line) for line in self.lines)

    @property
    def local(self) -> bool:
        """Whether something comes from a path, so that equal lines need not mean equal contents."""
        return any(is_local(line) for line in self.lines)

    @property
    def any_local(self) -> bool:
        """Whether packages are looked for in a folder of the code, so that any may come from it."""
        return any(is_local(line) and _PLACE.match(line) for line in self.lines)


def find_requirements(code: Path) -> Requirements:
    """What the code in this folder needs; blocks, for a worker thread. No link out of it counts.

    Raises:
        ItemError: one of the files cannot be read.
    """
    root = code.resolve()
    if _is_within(root, root / "requirements.txt"):
        return _listed(root, "requirements.txt", frozen=False)
    if _is_within(root, root / "pyproject.toml"):
        lines = _project_dependencies(root / "pyproject.toml")
        if lines:
            return Requirements(lines=lines)
    if _is_within(root, root / "requirements.frozen.txt"):
        return _listed(root, "requirements.frozen.txt", frozen=True)
    return Requirements()


def is_local(line: str) -> bool:
    """Whether a line of a list names a path instead of something that an index has."""
    target, place = _EDITABLE.sub("", line, count=1), _PLACE.match(line)
    if place is not None:
        target = line[place.end() :]
    elif target.startswith("-"):
        return False  # an option, or another file of which each line is looked at
    name, at, url = target.partition("@")
    if at and "/" not in name:  # `name @ url`
        return url.strip().startswith("file:")
    if "://" in target:
        return target.startswith(("file:", "git+file:"))
    word = target.split(";")[0].split()[0] if target.split(";")[0].split() else ""
    path = word.split("[")[0]
    return (
        place is not None
        or path.startswith((".", "file:"))
        or "/" in path
        or path.endswith(_ARCHIVES)
    )


def without_local(text: str) -> str:
    """A list's lines that an index can serve; options and other files stay."""
    return "".join(f"{line}\n" for line in _plain_lines(text) if not is_local(line))


def _listed(root: Path, name: str, *, frozen: bool) -> Requirements:
    texts: dict[str, str] = {}
    missing: list[str] = []
    lines = tuple(_lines(root, name, texts, missing))
    return Requirements(
        lines=lines, file=root / name, frozen=frozen, texts=texts, missing=tuple(missing)
    )


def _lines(root: Path, name: str, texts: dict[str, str], missing: list[str]) -> Iterator[str]:
    texts[name] = _read(root / name)
    for line in _plain_lines(texts[name]):
        yield line
        nested = _NESTED.fullmatch(line)
        if nested is None or "://" in nested[1]:
            continue
        other = posixpath.normpath(posixpath.join(posixpath.dirname(name), nested[1]))
        if other in texts:
            continue
        if other.startswith(("..", "/")) or not _is_within(root, root / other):
            missing.append(nested[1])
        else:
            yield from _lines(root, other, texts, missing)


def _plain_lines(text: str) -> Iterable[str]:
    for raw in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = " ".join(_COMMENT.sub("", raw).split())
        if line:
            yield line


def _is_within(root: Path, path: Path) -> bool:
    try:
        return path.is_file() and path.resolve().is_relative_to(root)
    except (OSError, ValueError, RuntimeError):  # too long a name, a zero in it, a loop of links
        return False


def _read(path: Path) -> str:
    raw = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    if raw is None:
        raise _unreadable(path, f"it is longer than {MAX_BYTES >> 20} MiB")
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    return raw.decode(encoding, errors="replace")


def _project_dependencies(path: Path) -> tuple[str, ...]:
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error
    project = facts.get("project")
    dependencies = project.get("dependencies", []) if isinstance(project, dict) else []
    if not isinstance(dependencies, list):
        return ()
    return tuple(" ".join(str(line).split()) for line in dependencies)


def _unreadable(path: Path, why: str) -> ItemError:
    return ItemError(
        f"The job's {path.name} cannot be read: {why}.",
        reason=Reason.BUILD_FAILED,
        stage=Stage.BUILD,
    )
