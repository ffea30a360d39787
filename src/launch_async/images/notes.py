"""What an image does without, noted beside its build's log for later items of the same image.

All of it blocks.
"""

from pathlib import Path

from launch_async.images.dependencies import MAX_MISSING, missing_packages

_PIECE_BYTES = 1 << 20
_LONGEST_LINE = 1 << 16


def write_note(printed: Path, note: Path) -> None:
    """Note the packages that the log says could not be installed; no note: none."""
    missing: dict[str, None] = {}
    rest = ""
    with printed.open(encoding="utf-8", errors="replace") as said:
        while piece := said.read(_PIECE_BYTES):
            lines, newline, rest = (rest + piece).rpartition("\n")
            missing |= dict.fromkeys(missing_packages(lines + newline))
            rest = rest[-_LONGEST_LINE:]
    missing |= dict.fromkeys(missing_packages(rest))
    if missing:
        text = f"packages that could not be installed: {', '.join(list(missing)[:MAX_MISSING])}"
        note.write_text(text, encoding="utf-8")


def noted(note: Path) -> tuple[str, ...]:
    """What was noted, as warnings."""
    try:
        return (note.read_text(encoding="utf-8"),)
    except FileNotFoundError:
        return ()
