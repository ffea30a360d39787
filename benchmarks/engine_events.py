"""What the Docker engine itself says of containers and images, as it happens."""

import json
import subprocess
import threading
from collections.abc import Mapping
from typing import Self

import msgspec


class ContainerEvent(msgspec.Struct, frozen=True):
    """One line of `docker events`."""

    action: str
    """`create`, `start`, `die`, `destroy`, …"""
    facts: Mapping[str, str]
    """Labels, image, name, and the exit code of what died."""
    seconds: float
    """Unix time by the engine's clock, which is this machine's."""


class EngineEvents:
    """The event stream of all that pass the filters, for the length of the block."""

    def __init__(self, *filters: str, kind: str = "container") -> None:
        self._filters = (f"type={kind}", *filters)
        self._seen: list[ContainerEvent] = []
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        filters = [word for text in self._filters for word in ("--filter", text)]
        self._stream = subprocess.Popen(
            ["docker", "events", *filters, "--format", "{{json .}}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.kill()
        self._stream.wait()
        self._reader.join(10)
        if self._stream.stdout is not None:
            self._stream.stdout.close()

    @property
    def seen(self) -> tuple[ContainerEvent, ...]:
        return tuple(self._seen)

    def _read(self) -> None:
        assert self._stream.stdout is not None
        for line in self._stream.stdout:
            told = json.loads(line)
            seconds = told["timeNano"] / 1e9
            event = ContainerEvent(told["Action"], told["Actor"]["Attributes"], seconds)
            self._seen.append(event)
