"""Names of things: their types, how new ones are made, and names derived from them."""

import secrets
import string
from typing import NewType

import msgspec

ItemId = NewType("ItemId", str)
RunId = NewType("RunId", str)
AgentId = NewType("AgentId", str)

RUN_ID_LENGTH = 8  # as the wandb client makes them
_ALPHABET = string.ascii_lowercase + string.digits


class QueueRef(msgspec.Struct, frozen=True):
    """A queue as the API names it: its owner entity, its (hidden) project and its name."""

    entity: str
    project: str
    name: str

    def __str__(self) -> str:
        return f"{self.entity}/{self.name}"


class RunRef(msgspec.Struct, frozen=True):
    """A run as W&B tracks it."""

    entity: str
    project: str
    run_id: RunId

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.run_id}"


def new_run_id() -> RunId:
    """A fresh run id: eight lower-case letters and digits, like the wandb client's."""
    return RunId("".join(secrets.choice(_ALPHABET) for _ in range(RUN_ID_LENGTH)))
