"""Which step a build is at, and what a failed one said, read from what builders print.

```
classic engine      Step 3/7 : RUN make             what the step prints, as it is
BuildKit, plain     #9 [stage-1 3/7] RUN make       #9 0.25 what the step prints
                    #9 ERROR: process "…" did not complete successfully: exit code: 2
```
"""

import re
from collections import deque
from collections.abc import Iterator
from typing import Protocol

import msgspec

from launch_async.adapters.builders.lines import Lines, shown
from launch_async.ports.images import Say

TAIL_LINES = 20
_MAX_SHOWN = 120
_MAX_KEPT = 1000


class Step(msgspec.Struct, frozen=True):
    """One instruction of the Dockerfile, or something that the builder does of itself."""

    place: str | None
    """`3/7`, with its stage's name before it where there are several; None: not of the file."""
    text: str
    """`RUN pip install …`, on one line."""

    @property
    def short(self) -> str:
        """The text, for a line of its own."""
        return _shortened(self.text, _MAX_SHOWN)

    def __str__(self) -> str:
        """For people."""
        return f"step {self.place}: {self.short}" if self.place else self.short


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a build ended."""

    step: Step | None
    """Where; None: at no step, a Dockerfile that cannot be read for one."""
    error: str
    """The builder's own words."""
    tail: tuple[str, ...] = ()
    """The last lines that the step printed."""


class Steps(Protocol):
    """Follows one build's output."""

    def feed(self, piece: bytes) -> None:
        """Read on."""
        ...

    def failure(self, error: str) -> Failure:
        """What is known of the failure that the builder ended with."""
        ...


class ClassicSteps:
    """The classic builder's `stream` messages, each of them fed as it comes; podman's too."""

    _START = re.compile(rb"(?:Step|STEP) (\d+/\d+) ?: (.*)", re.DOTALL)
    _NOISE = (" ---> ", "--> ", "Removing intermediate container ")

    def __init__(self, say: Say) -> None:
        self._say = say
        self._step: Step | None = None
        self._lines = Lines()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    def feed(self, piece: bytes) -> None:
        """Read on."""
        start = self._START.match(piece)
        if start is None:
            self._keep(self._lines.feed(piece))
            return
        self._step = Step(start[1].decode(), _on_one_line(start[2].decode(errors="replace")))
        self._lines = Lines()
        self._tail.clear()
        self._say(str(self._step))

    def failure(self, error: str) -> Failure:
        """At the step that was begun last."""
        self._keep(self._lines.end())
        return Failure(step=self._step, error=error, tail=tuple(self._tail))

    def _keep(self, lines: Iterator[str]) -> None:
        kept = (line for line in lines if line and not line.startswith(self._NOISE))
        self._tail.extend(shown(line) for line in kept)


class LineSteps:
    """What is printed line by line: `_read` gets each line, and keeps what failed."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._lines = Lines()
        self._failed: Failure | None = None
        self._final: str | None = None
        """What the builder said last of why it ended, at no step."""

    def feed(self, piece: bytes) -> None:
        """Read on."""
        for line in self._lines.feed(piece):
            self._read(line)

    def failure(self, error: str) -> Failure:
        """At the step that failed, if any was read to have."""
        for line in self._lines.end():
            self._read(line)
        return self._failed or Failure(step=None, error=self._final or error)

    def _read(self, line: str) -> None:
        raise NotImplementedError


class PlainSteps(LineSteps):
    """BuildKit's plain progress, of whichever program or engine printed it.

    A failure is at the first step that failed; what failed with it was only cancelled.
    """

    _VERTEX = re.compile(r"#(\d+) (.*)", re.DOTALL)
    _NAME = re.compile(r"\[(?P<place>[^\]]*\d+/\d+)\] (?P<text>.*)")
    _PRINTED = re.compile(r"\d+\.\d+ ?(.*)", re.DOTALL)
    _END = re.compile(r"DONE( |$)|CACHED$|CANCELED$|ERROR: ?(?P<error>.*)")
    _FINAL = re.compile(r"(?:ERROR|error): (.*)")
    _OTHERS_FAULT = re.compile(r"^(?:context )?cancell?ed|code = Canceled")

    _CACHE = ("importing cache", "exporting cache")
    """Without it the build only takes longer."""

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._steps: dict[str, Step] = {}
        self._tails: dict[str, deque[str]] = {}

    def _read(self, line: str) -> None:
        found = self._VERTEX.match(line)
        if found is None:
            final = self._FINAL.match(line)
            self._final = final[1] if final else self._final
            return
        number, rest = found[1], found[2]
        printed = self._PRINTED.match(rest)
        if printed is not None:
            tail = self._tails.setdefault(number, deque(maxlen=TAIL_LINES))
            tail.append(shown(printed[1]))
            return
        end = self._END.match(rest)
        if end is not None:
            self._ended(number, end["error"])
        elif number not in self._steps:
            self._begun(number, rest)

    def _begun(self, number: str, name: str) -> None:
        found = self._NAME.fullmatch(name)
        place, text = (found["place"], found["text"]) if found else (None, name)
        step = self._steps[number] = Step(place, _on_one_line(text))
        if step.place or text.startswith(("exporting", "pushing")):
            self._say(str(step))

    def _ended(self, number: str, error: str | None) -> None:
        tail = self._tails.pop(number, ())
        step = self._steps.get(number)
        harmless = step is not None and step.text.startswith(self._CACHE)
        if error and not (self._failed or harmless or self._OTHERS_FAULT.search(error)):
            self._failed = Failure(step=step, error=error, tail=tuple(tail))


def _on_one_line(text: str) -> str:
    return _shortened(" ".join(text.split()), _MAX_KEPT)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
