"""Lines out of a stream of bytes that is fed piece by piece, with bounded memory."""

import re
from collections.abc import Iterator

MAX_LINE_BYTES = 4096
"""Of a longer line only the start is kept."""
_MAX_SHOWN = 500
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Lines:
    """Cuts at newlines; of each line its start is given, without colours."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, piece: bytes) -> Iterator[str]:
        """The lines that end in `piece`; all of them must be taken."""
        *ended, rest = piece.split(b"\n")
        for part in ended:
            self._keep(part)
            yield self._line()
        self._keep(rest)

    def end(self) -> Iterator[str]:
        """The last line, if it has no newline."""
        if self._kept:
            yield self._line()

    def _keep(self, part: bytes) -> None:
        self._kept += part[: MAX_LINE_BYTES - len(self._kept)]

    def _line(self) -> str:
        line = _COLOURS.sub("", self._kept.decode("utf-8", errors="replace"))
        self._kept.clear()
        return line


def shown(line: str) -> str:
    """As a terminal shows it: a carriage return starts the line anew, as progress bars mean it."""
    return line.rstrip("\r").rpartition("\r")[2][:_MAX_SHOWN]
