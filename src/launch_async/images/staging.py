"""The build context as it is sent, and the digest of all that it holds.

```
scan   code folder - ignored + extra files -> entries, each with its digest   (nothing is copied)
stage  entries -> a folder of hard links, when an image must really be built
```
All of it blocks: call it in a worker thread. `checkpoint` is called for each file, and may raise to
end it early.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import msgspec

from launch_async.domain.errors import ItemError, Reason, Stage

DOCKERFILE = "Dockerfile.launch-async"
"""Where a staged context has its Dockerfile; a name that no job uses."""


class Entry(msgspec.Struct, frozen=True):
    """One file, link or folder of a context."""

    path: str
    """Within the context, with `/`; bytes that are no UTF-8 as `os.fsdecode` has them."""
    kind: str
    """`file`, `program` (executable), `link` or `folder`."""
    content: str
    """SHA-256 of a file; a link's target; nothing of a folder."""
    size: int = 0
    """Bytes of a file."""


class Scanned(msgspec.Struct, frozen=True, kw_only=True):
    """What a context holds."""

    root: Path
    entries: tuple[Entry, ...]
    """By path."""
    extra_files: Mapping[str, str]
    digest: str
    """Equal for equal content, whatever its folder, owners and times."""
    size: int
    """Bytes of all files."""


def nothing() -> None:
    """A checkpoint that never ends anything."""


def scan(
    root: Path,
    *,
    includes: Callable[[str], bool],
    extra_files: Mapping[str, str],
    checkpoint: Callable[[], None] = nothing,
) -> Scanned:
    """Look at all of `root` that `includes` says belongs to the context, and at the extra files.

    Raises:
        ItemError: it holds what cannot be sent, such as a socket.
        OSError: it cannot be read.
    """
    ours = _Ours((*extra_files, DOCKERFILE))
    entries: dict[str, Entry] = {}
    for path, inner in _walk(root):
        checkpoint()
        if includes(inner) and not ours.displace(path, inner):
            entries[inner] = _entry(path, inner)
    for inner, text in extra_files.items():
        content = text.encode()
        entries[inner] = Entry(inner, "file", hashlib.sha256(content).hexdigest(), len(content))
    ordered = tuple(entries[inner] for inner in sorted(entries))
    return Scanned(
        root=root,
        entries=ordered,
        extra_files=extra_files,
        digest=_digest(ordered),
        size=sum(entry.size for entry in ordered),
    )


def stage(
    scanned: Scanned, dockerfile: str, into: Path, *, checkpoint: Callable[[], None] = nothing
) -> None:
    """Make the folder `into`, with the Dockerfile at `DOCKERFILE`; what was there is replaced.

    Modes are those of git, whatever the umask: they become the image's.

    Raises:
        OSError: the disk is full, or a file has gone since the scan.
    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True, mode=0o700)
    for entry in scanned.entries:
        checkpoint()
        target = into / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.path in scanned.extra_files:
            _write(target, scanned.extra_files[entry.path])
        elif entry.kind == "folder":
            target.mkdir(exist_ok=True)
        elif entry.kind == "link":
            target.symlink_to(entry.content)
        else:
            _link(scanned.root / entry.path, target)
    for here, folders, _ in os.walk(into, onerror=_fail):
        for name in folders:
            folder = Path(here, name)
            if not folder.is_symlink():
                folder.chmod(0o755)
    _write(into / DOCKERFILE, dockerfile)


class _Ours:
    """Paths that are ours: nothing of the job may be in their place, or lead elsewhere from it."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._paths = frozenset(paths)
        self._within = tuple(f"{path}/" for path in paths)
        self._above = {str(folder) for path in paths for folder in PurePosixPath(path).parents}

    def displace(self, path: Path, inner: str) -> bool:
        if inner in self._paths or inner.startswith(self._within):
            return True
        return inner in self._above and (path.is_symlink() or not path.is_dir())


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    for folder, subfolders, names in os.walk(root, onerror=_fail):
        here = Path(folder)
        for name in [*subfolders, *names]:
            path = here / name
            yield path, path.relative_to(root).as_posix()


def _entry(path: Path, inner: str) -> Entry:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return Entry(inner, "link", os.readlink(path))  # noqa: PTH115 - Path changes `./a` to `a`
    if stat.S_ISDIR(found.st_mode):
        return Entry(inner, "folder", "")
    if not stat.S_ISREG(found.st_mode):
        msg = f"The job's code holds {inner!r}, which is no file, folder or link: remove it."
        raise ItemError(msg, reason=Reason.JOB_INVALID, stage=Stage.BUILD)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    kind = "program" if found.st_mode & stat.S_IXUSR else "file"
    return Entry(inner, kind, digest, found.st_size)


def _digest(entries: tuple[Entry, ...]) -> str:
    """Over bytes: names need not be text."""
    digest = hashlib.sha256()
    for one in entries:
        facts = (os.fsencode(one.path), one.kind, os.fsencode(one.content))
        digest.update(msgspec.msgpack.encode(facts))
    return digest.hexdigest()


def _write(target: Path, text: str) -> None:
    target.write_text(text, encoding="utf-8")
    target.chmod(0o644)


def _link(source: Path, target: Path) -> None:
    """A hard link, since nobody writes to either; a copy where links cannot be made."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
        shutil.copymode(source, target)


def _fail(error: OSError) -> None:
    raise error
