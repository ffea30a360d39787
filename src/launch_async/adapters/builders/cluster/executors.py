"""What makes an image within a Job's pod, seen from the Job."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from launch_async.adapters.builders.steps import Steps
from launch_async.ports.images import ImageBuild, Say

CONTAINER = "build"
CONTEXT_FOLDER = "/context"
CONTEXT_FILE = "context.tar.gz"
CONTEXT = f"{CONTEXT_FOLDER}/{CONTEXT_FILE}"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What an executor wants of the pod; it may have more volumes and mounts besides."""

    container: Mapping[str, Any]
    volumes: tuple[Mapping[str, Any], ...] = ()


class Executor(Protocol):
    """Makes the image of a context that is a compressed tar, and pushes it."""

    @property
    def name(self) -> str:
        """As `ImageBuilder.name`."""
        ...

    @property
    def title(self) -> str:
        """For people."""
        ...

    @property
    def has_mounts(self) -> bool:
        """As `ImageBuilder.has_mounts`."""
        ...

    @property
    def logins_folder(self) -> str:
        """Where in the container it looks for a Docker `config.json`."""
        ...

    @property
    def not_begun_code(self) -> int | None:
        """The exit code by which it says that it could not begin, whatever the image is."""
        ...

    def part(self, build: ImageBuild, dockerfile: Path, context: str) -> Part:
        """Its container; `dockerfile` is the file on this machine. Blocks.

        `context` is `Contexts.address`; what is mounted is at `CONTEXT`.
        """
        ...

    def steps(self, say: Say) -> Steps:
        """Reads what it prints."""
        ...
