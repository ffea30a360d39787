"""What is written down about a run in its record folder, and what it means.

```
order.json    by the agent, before anything starts: who asked (no secrets)
shim.lock     locked from before the shim is spawned until it has ended
shim.json     by the shim, first thing: from here on the job may have run
started.json  by the shim: the job's pid and start time
ended.json    by the shim: exit code or signal
output.log    the job's stdout and stderr
```
"""

import fcntl
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from launch_async.domain.ids import ItemId, RunId
from launch_async.domain.run import Origin, Trace
from launch_async.kit.files import write_atomically
from launch_async.kit.names import plain_name
from launch_async.kit.procs import boot_id, is_same_process, start_time_ticks

T = TypeVar("T", bound=msgspec.Struct)

_FACTS = ("order.json", "shim.json", "started.json", "ended.json", "output.log", "shim.log")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked for the run."""

    identity: str
    item_id: ItemId
    run_id: RunId
    queue: str
    origin: Origin | None = None
    """None in records of earlier versions."""


class Shim(msgspec.Struct, frozen=True, kw_only=True):
    """The process that stands between the agent and the job."""

    shim_pid: int
    shim_ticks: int
    boot_id: str

    @property
    def alive(self) -> bool:
        """Whether it still runs, in this boot of the machine."""
        return is_same_process(self.shim_pid, self.shim_ticks, self.boot_id)


class Started(Shim, frozen=True, kw_only=True):
    """The job runs, or ran."""

    job_pid: int
    job_ticks: int
    started_at: float

    @property
    def job_alive(self) -> bool:
        """Whether the job itself still runs, in this boot of the machine."""
        return is_same_process(self.job_pid, self.job_ticks, self.boot_id)

    @property
    def group_may_live(self) -> bool:
        """Whether the job's group can only be the job's own.

        The kernel gives a pid to nobody else while a group bears its number, so a stranger under
        the job's pid means that the group is gone.
        """
        owner_ticks = start_time_ticks(self.job_pid)
        return self.boot_id == boot_id() and owner_ticks in {None, self.job_ticks}


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How the job ended."""

    exit_code: int | None
    signal: int | None
    error: str
    ended_at: float


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that the folder says at one moment."""

    order: Order | None
    locked: bool
    shim: Shim | None
    started: Started | None
    ended: Ended | None

    @property
    def never_ran(self) -> bool:
        """Certainly: no shim holds the lock, and none has ever come as far as its first words."""
        return not self.locked and self.shim is None

    @property
    def trace(self) -> Trace:
        """What there is of the run; one whose end nobody has seen has ended when nothing lives."""
        if self.never_ran:
            return Trace.PREPARED
        job_lives = self.started is not None and self.started.job_alive
        if self.locked or (self.ended is None and job_lives):
            return Trace.ALIVE
        return Trace.ENDED


class Record:
    """One run's folder. Its functions read and write files and so belong in a worker thread."""

    def __init__(self, runs: Path, run_id: str) -> None:
        self.folder = runs / plain_name(run_id)
        self.output = self.folder / "output.log"

    def read(self, item_id: ItemId | None = None) -> Facts:
        """What is known now; with `item_id`, nothing if the record is another item's by now."""
        locked = self._locked()  # before the files: a shim that ends in between is not overlooked
        shim = _read(self.folder / "shim.json", Shim)
        started = _read(self.folder / "started.json", Started)
        ended = _read(self.folder / "ended.json", Ended)
        # Last: if it is still this item's, then so was all that was read before.
        order = _read(self.folder / "order.json", Order)
        if item_id is not None and (order is None or order.item_id != item_id):
            return Facts(order=None, locked=False, shim=None, started=None, ended=None)
        return Facts(order=order, locked=locked, shim=shim, started=started, ended=ended)

    @contextmanager
    def lock(self) -> Generator[int | None, None, None]:
        """The locked descriptor, to hand on to a shim; None when somebody else has it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        descriptor = os.open(self.folder / "shim.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)  # a shim's copy of it keeps the lock

    def write_order(self, order: Order) -> None:
        """Write down who asked, durably, before anything starts."""
        write_atomically(self.folder / "order.json", msgspec.json.encode(order))

    def forget(self) -> None:
        """Drop the facts of an earlier item of the same run; its code folder stays."""
        for name in _FACTS:
            (self.folder / name).unlink(missing_ok=True)

    def delete(self) -> None:
        """Drop everything, the run's code as well."""
        with suppress(FileNotFoundError):
            # Aside first: a crash half-way must not leave a record that looks whole.
            aside = self.folder.with_name(f".{self.folder.name}.gone")
            shutil.rmtree(aside, ignore_errors=True)
            self.folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def _locked(self) -> bool:
        try:
            descriptor = os.open(self.folder / "shim.lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def orders(runs: Path) -> Iterator[tuple[Record, Order]]:
    """Every run that has a record below `runs`, oldest first."""
    if not runs.is_dir():
        return
    found = [path for path in runs.glob("*/order.json") if not path.parent.name.startswith(".")]
    for path in sorted(found, key=_age):
        order = _read(path, Order)
        if order is not None:
            yield Record(runs, order.run_id), order


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
