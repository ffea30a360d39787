"""What a job's code says that it needs: the first of three files that is there.

`requirements.txt`, then `pyproject.toml`, then `requirements.frozen.txt` (launch-features.md, B7).
"""

import re
import tomllib
from pathlib import Path

import msgspec

from launch_async.domain.errors import ItemError, Reason, Stage

_NESTED = re.compile(r"(?:-r|-c|--requirement|--constraint)(?:\s+|=)(\S+)")
_EDITABLE = re.compile(r"(?:-e|--editable)(?:\s|=)")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_LOCAL = re.compile(r"(?:[./]|file:)|.*@\s*file:")
_MAX_DEPTH = 5


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """What pip is to install."""

    lines: tuple[str, ...] = ()
    """Normalised: no comments, one space, files that are referred to read in."""
    file: Path | None = None
    """The file to hand to pip; None when there is only a list of lines (or nothing)."""
    frozen: bool = False
    """A list of all that was installed elsewhere: some of it may not be had here."""

    @property
    def editable(self) -> bool:
        """Whether something is installed as a link into the code, which no other run may share."""
        return any(_EDITABLE.match(line) for line in self.lines)

    @property
    def local(self) -> bool:
        """Whether something comes from a path, so that equal lines need not mean equal contents."""
        return any(_LOCAL.match(line) for line in self.lines)


def find_requirements(code: Path) -> Requirements:
    """What the code in this folder needs; blocks, for a worker thread.

    Raises:
        ItemError: `pyproject.toml` cannot be read.
    """
    plain = code / "requirements.txt"
    if plain.is_file():
        return Requirements(lines=_lines(plain, code, depth=0), file=plain)
    project = code / "pyproject.toml"
    if project.is_file():
        return Requirements(lines=_project_dependencies(project))
    frozen = code / "requirements.frozen.txt"
    if frozen.is_file():
        return Requirements(lines=_lines(frozen, code, depth=0), file=frozen, frozen=True)
    return Requirements()


def _lines(path: Path, code: Path, *, depth: int) -> tuple[str, ...]:
    text = path.read_text(encoding="utf-8-sig", errors="replace").replace("\\\n", " ")
    lines: list[str] = []
    for raw in text.splitlines():
        line = " ".join(_COMMENT.sub("", raw).split())
        if not line:
            continue
        lines.append(line)
        nested = _NESTED.fullmatch(line)
        if nested is not None and depth < _MAX_DEPTH:
            other = (path.parent / nested[1]).resolve()
            if other.is_relative_to(code.resolve()) and other.is_file():
                lines += _lines(other, code, depth=depth + 1)
    return tuple(lines)


def _project_dependencies(path: Path) -> tuple[str, ...]:
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ItemError(
            f"The job's pyproject.toml cannot be read: {error}.",
            reason=Reason.BUILD_FAILED,
            stage=Stage.BUILD,
        ) from error
    project = facts.get("project")
    dependencies = project.get("dependencies", []) if isinstance(project, dict) else []
    if not isinstance(dependencies, list):
        return ()
    return tuple(" ".join(str(line).split()) for line in dependencies)
