"""The build context as it is sent, and the digest of all that it holds.

```
scan   code folder - ignored + extra files -> entries, each with its digest   (nothing is copied)
stage  entries -> a folder of hard links, when an image must really be built
```
All of it blocks: call it in a worker thread.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from launch_async.domain.errors import ItemError, Reason, Stage

DOCKERFILE = "Dockerfile.launch-async"
"""Where a staged context has its Dockerfile; a name that no job uses."""


class Entry(msgspec.Struct, frozen=True):
    """One file, link or folder of a context."""

    path: str
    """Within the context, with `/`."""
    kind: str
    """`file`, `program` (executable), `link` or `folder`."""
    content: str
    """SHA-256 of a file; a link's target; nothing of a folder."""
    size: int = 0
    """Bytes of a file."""


class Scanned(msgspec.Struct, frozen=True):
    """What a context holds."""

    root: Path
    entries: tuple[Entry, ...]
    """By path."""
    extra_files: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Equal for equal content, whatever its folder, owners and times."""
        return hashlib.sha256(msgspec.msgpack.encode(self.entries)).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)


def scan(root: Path, *, includes: Callable[[str], bool], extra_files: Mapping[str, str]) -> Scanned:
    """Look at all of `root` that `includes` says belongs to the context, and at the extra files.

    Raises:
        ItemError: it holds what cannot be sent, such as a socket.
        OSError: it cannot be read.
    """
    entries = {entry.path: entry for entry in _walk(root, includes) if entry.path != DOCKERFILE}
    for path, text in extra_files.items():
        content = text.encode()
        digest = hashlib.sha256(content).hexdigest()
        entries[path] = Entry(path, "file", digest, len(content))
    ordered = tuple(entries[path] for path in sorted(entries))
    return Scanned(root, ordered, extra_files)


def stage(scanned: Scanned, dockerfile: str, into: Path) -> None:
    """Make the folder `into`, with the Dockerfile at `DOCKERFILE`; what was there is replaced.

    Raises:
        OSError: the disk is full, or a file has gone since the scan.
    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True, mode=0o700)
    for entry in scanned.entries:
        target, source = into / entry.path, scanned.root / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.path in scanned.extra_files:
            target.write_text(scanned.extra_files[entry.path], encoding="utf-8")
        elif entry.kind == "folder":
            target.mkdir(exist_ok=True)
        elif entry.kind == "link":
            target.symlink_to(entry.content)
        else:
            _link(source, target)
    (into / DOCKERFILE).write_text(dockerfile, encoding="utf-8")


def _walk(root: Path, includes: Callable[[str], bool]) -> Iterator[Entry]:
    for folder, subfolders, names in os.walk(root, onerror=_fail):
        here = Path(folder)
        for name in [*subfolders, *names]:
            path = here / name
            inner = path.relative_to(root).as_posix()
            if includes(inner):
                yield _entry(path, inner)


def _entry(path: Path, inner: str) -> Entry:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return Entry(inner, "link", path.readlink().as_posix())
    if stat.S_ISDIR(found.st_mode):
        return Entry(inner, "folder", "")
    if not stat.S_ISREG(found.st_mode):
        msg = f"The job's code holds {inner}, which is no file, folder or link: remove it."
        raise ItemError(msg, reason=Reason.JOB_INVALID, stage=Stage.BUILD)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    kind = "program" if found.st_mode & stat.S_IXUSR else "file"
    return Entry(inner, kind, digest, found.st_size)


def _link(source: Path, target: Path) -> None:
    """A hard link, since nobody writes to either; a copy where links cannot be made."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
        shutil.copymode(source, target)


def _fail(error: OSError) -> None:
    raise error
