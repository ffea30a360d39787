"""Which step a build by kaniko is at, and what a failed one said, read from its log.

```
INFO[0001] Building stage 'base' [idx: '1', …]
INFO[0001] Retrieving image manifest python:3.12-slim
INFO[0002] RUN make                    instructions of the stage in their order, all but FROM
what the step prints, as it is
error building image: error building stage: … exit status 2
```
"""

import re
from collections import deque

from launch_async.adapters.builders.lines import shown
from launch_async.adapters.builders.steps import TAIL_LINES, Failure, LineSteps, Step
from launch_async.ports.images import Say

_ENTRY = re.compile(r"(?:DEBU|INFO|WARN|ERRO|FATA)\w*\[\d+\] ?(?P<text>.*)", re.DOTALL)
_STAGE = re.compile(r"Building stage .*\[idx: '(\d+)'")
_BASE = re.compile(r"Retrieving image (?:manifest )?(\S+)")
_INSTRUCTION = re.compile(
    r"(?:ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL"
    r"|STOPSIGNAL|USER|VOLUME|WORKDIR)\b.*",
    re.DOTALL,
)
_PUSH = re.compile(r"Pushing image to \S+:(?![0-9a-f]{64}\b)")
"""Layers for the cache are pushed too, while later steps run; their tags are digests."""
_PUSHING = Step(None, "pushing the image")
"""In the words by which a failed push is known."""
_ERROR = re.compile(
    r"(?:error (?P<push>pushing image|checking push permissions)[^:]*"
    r"|error building image|[Ee]rror): (?P<text>.*)",
    re.DOTALL,
)


class KanikoSteps(LineSteps):
    """A failure is at the step that was begun last."""

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._stage = ""
        self._number = 1
        self._step: Step | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    def _read(self, line: str) -> None:
        entry = _ENTRY.fullmatch(line)
        if entry is not None:
            self._told(entry["text"])
            return
        failed = _ERROR.fullmatch(line)
        if failed is None:
            self._tail.append(shown(line))
            return
        step, tail = self._step, tuple(self._tail)
        if failed["push"]:
            step, tail = _PUSHING, ()
        words = f"push: {failed['text']}" if failed["push"] else failed["text"]
        self._failed = Failure(step=step, error=words, tail=tail)

    def _told(self, text: str) -> None:
        if stage := _STAGE.match(text):
            self._stage = f"stage-{stage[1]} " if stage[1] != "0" else ""
            self._number = 1
        elif base := _BASE.match(text):
            self._begin(Step(None, f"FROM {base[1]}"))
        elif _INSTRUCTION.fullmatch(text):
            self._number += 1  # FROM is the first
            self._begin(Step(f"{self._stage}{self._number}", " ".join(text.split())[:1000]))
        elif _PUSH.match(text):
            self._begin(_PUSHING)

    def _begin(self, step: Step) -> None:
        if step != self._step:
            self._say(str(step))
        self._step = step
        self._tail.clear()
