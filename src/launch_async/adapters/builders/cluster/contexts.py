"""Where build contexts wait for the pods of their builds, seen from the builder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec


class ContextMount(msgspec.Struct, frozen=True, kw_only=True):
    """A volume with one build's context, and where its container has it."""

    volume: Mapping[str, Any]
    mount: Mapping[str, Any]


class Contexts(Protocol):
    """Each context is a compressed tar, under the name of its Job."""

    def address(self, name: str) -> str:
        """What kaniko calls the place of this context."""
        ...

    def mount(self, name: str) -> ContextMount | None:
        """What the pod needs to have it as a file; None: it is fetched from its address."""
        ...

    async def check(self) -> None:
        """Raises Unavailable when nothing can be written there."""
        ...

    async def write(self, name: str, context: Path) -> None:
        """Put the tar of `context` there, whole or not at all.

        Raises:
            Unavailable: the place does not take it.
            ItemError: the context cannot be read.
        """
        ...

    async def remove(self, name: str) -> None:
        """Whether or not it is there."""
        ...

    async def sweep(self, prefix: str, *, older_than_seconds: float) -> None:
        """Remove what killed lives left, by the beginning of its name, when nobody can read it any
        more."""
        ...
