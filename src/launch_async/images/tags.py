"""Tags that name what is in an image: equal content has an equal tag, and nothing else has."""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

PREFIX = "la-"
_HEX_DIGITS = 40
"""160 bits: two contents with one tag are not to be expected, ever."""
_VERSION = 1
"""Raised when an image of the same facts would be made in another way."""


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that can change an image."""

    context: str
    """Digest of the staged context."""
    dockerfile: str
    bases: Sequence[tuple[str, str | None]]
    """What the Dockerfile builds upon, and the digest of each; None: nobody knows it."""
    platform: str | None
    target: str | None
    build_args: Mapping[str, str]
    has_mounts: bool


def tag_of(facts: ImageFacts) -> str:
    """The tag of the image that these facts make."""
    encoded = msgspec.json.encode([_VERSION, facts], order="sorted")
    return PREFIX + hashlib.sha256(encoded).hexdigest()[:_HEX_DIGITS]


def wandb_tag(*, job: str, dockerfile: str) -> str:
    """The tag that W&B's agent gives: 8 hex digits over the job's name with its version and the
    Dockerfile (launch-features.md B8). For people and scripts that look for it; never looked up.
    """
    return hashlib.sha256(f"{job}{dockerfile}".encode()).hexdigest()[:8]
