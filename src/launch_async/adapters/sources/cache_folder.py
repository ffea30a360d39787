"""The cache of code on disk. Blocking: for worker threads."""

import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from launch_async.kit.files import write_atomically
from launch_async.kit.keep import Keep, Kept, beyond, size_of

JUST_USED_SECONDS = 600.0
"""Code is left alone for so long after its last use: a launch may yet copy it."""

_BLOCK = 4096
_CODE = "code"
_WHOLE = "whole.json"


class Whole(msgspec.Struct, frozen=True):
    """How much a folder holds, known since it was whole."""

    files: int
    content_bytes: int

    @property
    def disk_bytes(self) -> int:
        """What the disk has for it, at most; asked itself, it does not know yet."""
        return self.content_bytes + self.files * _BLOCK


class CacheFolder:
    """Folders of code by their keys."""

    def __init__(self, root: Path, keep: Keep) -> None:
        self.root = root
        self._keep = keep
        self._life = secrets.token_hex(4)
        self._checked: set[str] = set()

    def clear_leftovers(self) -> None:
        """Remove what earlier lives began or were removing."""
        if not self.root.is_dir():
            return
        for path in self.root.glob(".*"):
            if self._life not in path.name:
                shutil.rmtree(path, ignore_errors=True)

    def find(self, key: str) -> Path | None:
        """The folder with this code, from now on used; None: it is not here, or not whole.

        An earlier life's is counted once: after a power cut files may be there without content.
        """
        folder = self.root / key
        whole = _read(folder)
        if whole is None or (key not in self._checked and _look(folder / _CODE) != whole):
            return None
        self._checked.add(key)
        with suppress(OSError):
            os.utime(folder / _WHOLE)
        return folder / _CODE

    def begin(self, key: str) -> Path:
        """A new empty folder to fetch into."""
        into = self._aside("new", key) / _CODE
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(into.parent, ignore_errors=True)
        into.mkdir(parents=True)
        return into

    def finish(self, key: str) -> Path:
        """What was fetched into `begin`'s folder is whole: keep it."""
        aside, folder = self._aside("new", key), self.root / key
        _make_readable(aside / _CODE)
        write_atomically(aside / _WHOLE, msgspec.json.encode(_look(aside / _CODE)))
        broken = self.set_aside(key)
        aside.rename(folder)
        self._checked.add(key)
        if broken is not None:
            self.delete(broken)
        return folder / _CODE

    def give_up(self, key: str) -> None:
        """Remove what `begin` made, unless it was finished."""
        shutil.rmtree(self._aside("new", key), ignore_errors=True)

    def candidates(self) -> list[Kept]:
        """Folders beyond the limits that were not used just now, the longest unused first."""
        if not self.root.is_dir():
            return []
        now = time.time()
        kept = [_kept(path) for path in self.root.iterdir() if not path.name.startswith(".")]
        return [
            one
            for one in beyond(kept, self._keep, now=now)
            if now - one.last_used > JUST_USED_SECONDS
        ]

    def set_aside(self, key: str) -> Path | None:
        """Take a folder out of use, quickly; None: there is none."""
        self._checked.discard(key)
        aside = self._aside("old", key)
        try:
            (self.root / key).rename(aside)
        except FileNotFoundError:
            return None
        return aside

    def delete(self, aside: Path) -> None:
        """The slow part."""
        shutil.rmtree(aside, ignore_errors=True)

    def _aside(self, kind: str, key: str) -> Path:
        return self.root / f".{kind}-{self._life}-{key}"


def _read(folder: Path) -> Whole | None:
    try:
        return msgspec.json.decode((folder / _WHOLE).read_bytes(), type=Whole)
    except (OSError, msgspec.DecodeError):
        return None


def _kept(folder: Path) -> Kept:
    whole = _read(folder)
    if whole is None:
        return Kept(path=folder, last_used=0.0, size=size_of(folder))
    return Kept(path=folder, last_used=(folder / _WHOLE).stat().st_mtime, size=whole.disk_bytes)


def _look(code: Path) -> Whole:
    files = content = 0
    for here, _, names in os.walk(code):
        for name in names:
            files += 1
            content += Path(here, name).lstat().st_size
    return Whole(files, content)


def _make_readable(code: Path) -> None:
    """Modes as git knows them, whatever the agent's umask: they are those of images made of it."""
    for here, _, names in os.walk(code):
        Path(here).chmod(0o755)
        for name in names:
            path = Path(here, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
