"""Which of many folders are beyond an age or a size: the longest unused go first."""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept."""

    max_age_seconds: float
    """Since the last use."""
    max_bytes: int


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One folder."""

    path: Path
    last_used: float
    """Unix time in seconds."""
    size: int


def beyond(folders: Iterable[Kept], keep: Keep, *, now: float) -> list[Kept]:
    """What is too old, and of the rest the longest unused until it fits."""
    found: list[Kept] = []
    kept_bytes = 0
    for folder in sorted(folders, key=lambda one: one.last_used, reverse=True):
        kept_bytes += folder.size
        if now - folder.last_used > keep.max_age_seconds or kept_bytes > keep.max_bytes:
            found.append(folder)
    return found[::-1]


def size_of(folder: Path) -> int:
    """Bytes on disk below a folder; what vanishes meanwhile counts nothing."""
    size = 0
    stack = [folder]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(Path(entry.path))
                    else:
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            continue
    return size
