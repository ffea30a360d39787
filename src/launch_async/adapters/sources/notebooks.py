"""Notebooks as scripts: their code cells, without what only IPython understands.

W&B's agent leaves out lines that begin with `!` (launch-features.md J16). Here all of IPython's own
syntax becomes a comment: left in, it would end the script.
"""

import re
import stat
from pathlib import Path
from typing import Any

import msgspec

from launch_async.domain.errors import ItemError, Reason

MAX_BYTES = 256 << 20

_PYTHON_CELLS = frozenset({"time", "timeit", "capture", "prun", "python", "python3"})
_CELL_MAGIC = re.compile(r"\s*%%(\w+)")
_LINE_MAGIC = re.compile(
    r"\s*(?:[!%?]|[\w.]+\?{1,2}\s*$|[A-Za-z_][\w.]*(?:\s*,\s*[A-Za-z_][\w.]*)*\s*=\s*[!%])"
)
_TOKEN = re.compile(
    r"""\#.* | \"{3} | '{3} | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | [(\[{] | [)\]}]""",
    re.VERBOSE,
)


def script_of(notebook: str) -> str:
    """Where the notebook's script is: beside it."""
    return f"{notebook.removesuffix('.ipynb')}.py"


def convert(folder: Path, notebook: str) -> None:
    """Write the notebook's script beside it; one that is there is replaced. Blocks.

    Raises:
        ItemError: there is no such notebook in the folder, or it is none.
    """
    path, script = folder / notebook, folder / script_of(notebook)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise _broken(notebook, "is a link that leads out of the job's code")
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
            raise _broken(notebook, "is no file, or too large")
        text = script_from(path.read_bytes())
    except FileNotFoundError as error:
        raise _broken(notebook, "is not in the job's code") from error
    except ValueError as error:
        raise _broken(notebook, f"cannot be read ({error})") from error
    if script.is_dir():
        raise _broken(notebook, f"has a folder in the place of its script, {script.name}")
    script.unlink(missing_ok=True)
    script.write_text(text, encoding="utf-8")


def script_from(content: bytes) -> str:
    """The code cells of a notebook, of format 3 or 4, as one script.

    Raises:
        ValueError: this is no notebook.
    """
    try:
        notebook = msgspec.json.decode(content)
        cells = [_code(cell) for cell in _cells(notebook)]
    except (msgspec.DecodeError, RecursionError, TypeError, KeyError, AttributeError) as error:
        msg = f"no notebook: {error}"
        raise ValueError(msg) from error
    parts = [_plain(cell) for cell in cells if cell is not None and cell.strip()]
    return "\n\n\n".join(["# The notebook's code cells, in order.", *parts]) + "\n"


def _cells(notebook: Any) -> list[Any]:
    if "worksheets" in notebook:
        return [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]
    return list(notebook["cells"])


def _code(cell: Any) -> str | None:
    if cell["cell_type"] != "code":
        return None
    source = cell["source"] if "source" in cell else cell["input"]
    return source if isinstance(source, str) else "".join(source)


def _plain(cell: str) -> str:
    """The cell with IPython's lines commented out; each leaves a `pass`: blocks stay whole."""
    lines = cell.rstrip().split("\n")
    magic = _CELL_MAGIC.match(lines[0])
    if magic is not None and magic[1] not in _PYTHON_CELLS:
        return "\n".join(f"# {line}" for line in lines)
    place, plain, goes_on = _Place(), list[str](), False
    for line in lines:
        if goes_on or (place.is_statement and _LINE_MAGIC.match(line)):
            plain.append(f"# {line}" if goes_on else _commented(line))
            goes_on = line.rstrip().endswith("\\")
        else:
            place.pass_over(line)
            plain.append(line)
    return "\n".join(plain)


def _commented(line: str) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return f"{indent}pass  # {line.strip()}"


class _Place:
    """Where in Python's syntax a line begins: a `%` within brackets or a text is no magic."""

    def __init__(self) -> None:
        self._depth = 0
        self._quotes = ""
        self._continued = False

    @property
    def is_statement(self) -> bool:
        return not (self._depth or self._quotes or self._continued)

    def pass_over(self, line: str) -> None:
        """Go on behind this line."""
        rest, comment = line, False
        while rest and not comment:
            if self._quotes:
                _, closed, rest = rest.partition(self._quotes)
                self._quotes = "" if closed else self._quotes
                continue
            token = _TOKEN.search(rest)
            if token is None:
                break
            rest = rest[token.end() :]
            comment = self._take(token[0])
        self._continued = not self._quotes and not comment and line.endswith("\\")

    def _take(self, found: str) -> bool:
        """Whether the rest of the line is a comment."""
        if found in {'"""', "'''"}:
            self._quotes = found
        elif found in "([{":
            self._depth += 1
        elif found in ")]}":
            self._depth = max(0, self._depth - 1)
        return found.startswith("#")


def _broken(notebook: str, why: str) -> ItemError:
    return ItemError(
        f"the job's notebook {notebook} {why}; create the job again", reason=Reason.JOB_INVALID
    )
