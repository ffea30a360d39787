"""What an agent says of its configuration: its identity, and the rest as people may see it."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from launch_async.server.errors import ApiError
from launch_async.server.run_specs import read_object

IDENTITY: Final = "identity"
MAX_IDENTITY: Final = 128
MASK: Final = "***"
SECRET_NAME: Final = re.compile(
    r"secret|passw|token|credential|(api|private|access|account)[-_]?key", re.IGNORECASE
)
LOGIN_IN_ADDRESS: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")


class AgentConfig(msgspec.Struct, frozen=True):
    """A configuration that was read."""

    identity: str | None
    """Kept by our agent over its starts; W&B's has none and is a new agent each time."""
    shown: str | None
    """JSON object without secrets."""


def read_config(text: str | None) -> AgentConfig:
    """Read an agent's configuration; whatever may be a secret in it is not kept.

    Raises an ApiError for one that is no object, or whose identity is none.
    """
    if text is None or text.strip() == "null":
        return AgentConfig(identity=None, shown=None)
    document = read_object(text, "agentConfig")
    identity = document.get(IDENTITY)
    if identity is not None and not (
        isinstance(identity, str) and 1 <= len(identity) <= MAX_IDENTITY and identity.isprintable()
    ):
        raise ApiError(f"agentConfig.identity must be text of 1 to {MAX_IDENTITY} characters")
    return AgentConfig(identity=identity, shown=msgspec.json.encode(masked(document)).decode())


def masked(value: Any) -> Any:
    """Return a document without what its keys call a secret, and addresses without their logins."""
    if isinstance(value, Mapping):
        return {
            key: MASK if inner and SECRET_NAME.search(str(key)) else masked(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    if isinstance(value, str):
        return LOGIN_IN_ADDRESS.sub(MASK, value)
    return value
