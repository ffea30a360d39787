"""Paths that a job names, within its code and nowhere else, whatever links it holds."""

from collections.abc import Sequence
from pathlib import Path

from launch_async.domain.errors import ItemError, Reason, Stage

MAX_TEXT_BYTES = 1 << 20
_SCRIPTS = (".py", ".sh")


def folder_within(code: Path, name: str, what: str) -> Path:
    """The folder that `name` is in `code`, without links.

    Raises:
        ItemError: it is not there, or lies outside.
    """
    folder = _resolved(code, code, name)
    if folder is None or not folder.is_dir():
        raise invalid(f"{what} {name!r} is no folder of the job's code.")
    return folder


def file_within(code: Path, beside: Path, name: str) -> Path | None:
    """The file that `name` is, seen from `beside`, without links; None: there is none in `code`."""
    path = _resolved(code, beside, name)
    return path if path is not None and path.is_file() else None


def text_of(path: Path, what: str) -> str:
    """The file's text.

    Raises:
        ItemError: it is too long or no UTF-8.
    """
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise invalid(f"{what} is longer than {MAX_TEXT_BYTES >> 20} MiB.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(f"{what} is no UTF-8 text: {error.reason}.") from error


def entry_file(entrypoint: Sequence[str], code: Path, beside: Path) -> Path | None:
    """The file that an entry point starts: its first script, else its first file of the code."""
    words = [*entrypoint[1:], *entrypoint[:1]]
    found = [path for word in words if (path := file_within(code, beside, word)) is not None]
    scripts = [path for path in found if path.suffix in _SCRIPTS]
    return next(iter(scripts + found), None)


def seen_from(folder: Path, entrypoint: Sequence[str], code: Path, beside: Path) -> tuple[str, ...]:
    """The entry point with its files under `folder` named from there instead of from `beside`."""
    if folder == beside:
        return tuple(entrypoint)
    words: list[str] = []
    for word in entrypoint:
        path = file_within(code, beside, word)
        if path is not None and path.is_relative_to(folder):
            inner = path.relative_to(folder).as_posix()
            # A program without a slash is looked for in PATH.
            words.append(inner if words or "/" in inner else f"./{inner}")
        else:
            words.append(word)
    return tuple(words)


def is_script_alone(entrypoint: Sequence[str]) -> bool:
    """Whether it names a script and nothing that runs it: looked for in PATH, it is nowhere."""
    return len(entrypoint) == 1 and entrypoint[0].endswith(".py") and "/" not in entrypoint[0]


def invalid(text: str) -> ItemError:
    """The error for what its job's author must mend."""
    return ItemError(text, reason=Reason.JOB_INVALID, stage=Stage.BUILD)


def _resolved(code: Path, beside: Path, name: str) -> Path | None:
    """None for what is not in `code`, or is no path at all: a long program text, a zero in it."""
    try:
        path = (beside / name).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None
    return path if path.is_relative_to(code) else None
