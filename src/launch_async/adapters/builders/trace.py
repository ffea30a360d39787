"""BuildKit's progress as the engine's API sends it, made into the text of `--progress=plain`.

With `version=2` each message `moby.buildkit.trace` carries a protobuf `StatusResponse`; of it are
read [source: moby/buildkit, api/services/control/control.proto]:

```
StatusResponse  1 vertexes   3 logs
Vertex          1 digest     3 name   4 cached   5 started   6 completed   7 error
VertexLog       1 vertex     2 timestamp   4 msg
Timestamp       1 seconds    2 nanoseconds
```
"""

from collections.abc import Iterator
from typing import TypeAlias

_Message: TypeAlias = dict[int, list[bytes | int]]


class Trace:
    """Turns one build's messages into text, numbering its vertices as they start."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._started: dict[bytes, float] = {}
        self._ended: dict[bytes, float] = {}
        """When what has ended had started: a vertex may start again."""
        self._in_line: bytes | None = None
        """Whose last line still lacks its end."""

    def text(self, status: bytes) -> bytes:
        """What a `StatusResponse` adds.

        Raises:
            ValueError: it is no such message.
        """
        fields = _decode(status)
        pieces = [piece for vertex in _messages(fields, 1) for piece in self._vertex(vertex)]
        pieces += [piece for log in _messages(fields, 3) for piece in self._log(log)]
        return b"".join(pieces)

    def _vertex(self, vertex: _Message) -> Iterator[bytes]:
        digest, error, cached = _bytes(vertex, 1), _bytes(vertex, 7), 4 in vertex
        started = _time(vertex, 5)
        if not (started or error or cached) or self._ended.get(digest) == started:
            return  # only planned, or known to the end
        if self._started.get(digest) != started:
            self._started[digest] = started
            number = self._numbers.setdefault(digest, len(self._numbers) + 1)
            name = _bytes(vertex, 3).replace(b"\n", b" ")
            yield self._line(b"#%d %s" % (number, name))
        if not (6 in vertex or error or cached):
            return
        self._ended[digest] = started
        end = b"DONE %.1fs" % (_time(vertex, 6) - started)
        if error:
            end = b"ERROR: " + error.replace(b"\n", b" ")
        elif cached:
            end = b"CACHED"
        yield self._line(b"#%d %s" % (self._numbers[digest], end))

    def _line(self, line: bytes) -> bytes:
        before = b"" if self._in_line is None else b"\n"
        self._in_line = None
        return b"%s%s\n" % (before, line)

    def _log(self, log: _Message) -> Iterator[bytes]:
        digest = _bytes(log, 1)
        number = self._numbers.get(digest, 0)
        at = max(0.0, _time(log, 2) - self._started.get(digest, 0.0)) if number else 0.0
        if self._in_line not in (None, digest):
            self._in_line = None
            yield b"\n"
        for part in _bytes(log, 4).splitlines(keepends=True):
            if self._in_line is None:
                yield b"#%d %.3f " % (number, at)
            yield part
            self._in_line = None if part.endswith(b"\n") else digest


def _messages(fields: _Message, number: int) -> Iterator[_Message]:
    return (_decode(value) for value in fields.get(number, ()) if isinstance(value, bytes))


def _bytes(fields: _Message, number: int) -> bytes:
    value = fields.get(number, [b""])[-1]
    return value if isinstance(value, bytes) else b""


def _time(fields: _Message, number: int) -> float:
    """Seconds of a Timestamp; 0 when there is none."""
    stamp = _decode(_bytes(fields, number))
    seconds, nanoseconds = stamp.get(1, [0])[-1], stamp.get(2, [0])[-1]
    return int(seconds) + int(nanoseconds) / 1e9


def _decode(message: bytes) -> _Message:
    """Fields by number, nested messages still as bytes."""
    fields: _Message = {}
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        value: bytes | int
        match key & 7:
            case 0:
                value, position = _varint(message, position)
            case 2:
                length, position = _varint(message, position)
                value, position = message[position : position + length], position + length
            case 1 | 5 as kind:
                length = 8 if kind == 1 else 4
                value, position = message[position : position + length], position + length
            case kind:
                msg = f"no protobuf: wire type {kind}"
                raise ValueError(msg)
        fields.setdefault(key >> 3, []).append(value)
    if position > len(message):
        msg = "no protobuf: it is cut off"
        raise ValueError(msg)
    return fields


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message):
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position
    msg = "no protobuf: it is cut off"
    raise ValueError(msg)
