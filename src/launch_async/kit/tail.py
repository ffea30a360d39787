"""The last lines of a file or of a stream of bytes, with bounded memory."""

import errno
import os
from collections import deque
from pathlib import Path

MAX_BYTES = 256 * 1024
"""Never more than this of the end is looked at: enough for an error report."""
MAX_LINE_CHARACTERS = 4096


def last_lines(path: Path, *, lines: int, max_bytes: int = MAX_BYTES) -> tuple[str, ...]:
    """The last `lines` lines of a file, oldest first; () when there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            end = file.read(max_bytes)
    except FileNotFoundError:
        return ()
    return split_tail(end, lines=lines, whole=size <= max_bytes)


def read_on(path: Path, position: int, *, max_bytes: int = 64 * 1024) -> tuple[bytes, int]:
    """The next piece of a file from `position`, and the position after it; b"" at its end.

    Holes, in which a log's older part was given up, are passed over. A file that is shorter than
    `position` was begun anew and is read from its start.
    """
    try:
        with path.open("rb", buffering=0) as file:
            if position > file.seek(0, os.SEEK_END):
                position = 0
            start = file.seek(position, os.SEEK_DATA)
            piece = file.read(max_bytes)
    except FileNotFoundError:
        return b"", position
    except OSError as error:
        if error.errno == errno.ENXIO:  # no data after this position
            return b"", position
        raise
    return piece, start + len(piece)


def split_tail(end: bytes, *, lines: int, whole: bool) -> tuple[str, ...]:
    """The last `lines` lines of `end`; its first piece is dropped as cut off unless `whole`.

    A carriage return starts its line anew, as a progress bar means it to.
    """
    pieces = end.decode("utf-8", errors="replace").split("\n")
    if pieces and not pieces[-1]:
        pieces.pop()
    if not whole and len(pieces) > 1:
        del pieces[0]
    return tuple(_shortened(piece) for piece in pieces[-lines:]) if lines > 0 else ()


def _shortened(line: str) -> str:
    shown = line.rstrip("\r").rpartition("\r")[2]
    if len(shown) <= MAX_LINE_CHARACTERS:
        return shown
    return f"{shown[:MAX_LINE_CHARACTERS]}… ({len(shown) - MAX_LINE_CHARACTERS} more characters)"


class ByteTail:
    """Keeps the last bytes of a stream that is fed to it piece by piece."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._cut = False

    def feed(self, piece: bytes) -> None:
        """Append `piece`, forgetting what is too old."""
        if len(piece) > self._max_bytes:
            piece, self._cut = piece[-self._max_bytes :], True
        self._pieces.append(piece)
        self._size += len(piece)
        while self._size > self._max_bytes:
            self._size -= len(self._pieces.popleft())
            self._cut = True

    def lines(self, count: int) -> tuple[str, ...]:
        """The last `count` lines, oldest first."""
        return split_tail(b"".join(self._pieces), lines=count, whole=not self._cut)
