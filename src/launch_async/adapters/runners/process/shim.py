"""Stands between the agent and one job: starts it, outlives the agent, writes down how it ended.

Run as a file, `python -I -S shim.py <record folder>`, in a session of its own; standard library
only, since the job's machine setup need not hold this package. Order (argv, cwd, environment with
its secrets) comes as JSON on stdin and is never written anywhere.

```
stdin -> order | shim.json -> job in its own session -> started.json -> "ok" on stdout
               | job ends -> ended.json -> the rest of its group is killed -> orphans -> exit
```

The agent hands over a locked descriptor (flock) that stays open here for the shim's whole life, and
that the job does not inherit: locked means that the shim lives, or is about to.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
ORPHAN_GRACE_SECONDS = 10.0
LOG_LOOK_SECONDS = 2.0
PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01
NOT_FOUND_EXIT_CODE = 127  # as shells say "no such program"


def main(record: Path) -> None:
    """Run the one job of this record folder to its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A handler, not SIG_IGN: an exec resets handlers, but hands SIG_IGN on to the job.
        signal.signal(number, _stay)
    order = _order()
    if order is None or (record / "shim.json").exists():
        return  # the agent died half-way (nothing has run), or a run of this record has been
    os.umask(0o077)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    me = {"shim_pid": os.getpid(), "shim_ticks": _ticks(os.getpid()), "boot_id": boot}
    _write(record / "shim.json", me)
    _become_subreaper()
    try:
        job = _start(order, record / "output.log")
    except OSError as error:
        text = f"{error.filename or order['argv'][0]}: {error.strerror}"
        ended = {"exit_code": NOT_FOUND_EXIT_CODE, "signal": None, "error": text}
        _write(record / "ended.json", {**ended, "ended_at": time.time()})
        _tell_agent()
        return
    _watch_size(record / "output.log", int(order["log_bytes"]))
    try:
        _tend(record, me, job.pid)
    finally:
        _end_orphans()


def _stay(_number: int, _frame: object) -> None:
    """The shim ends when its job does; signals for the job go to the job's group."""


def _tend(record: Path, me: dict[str, Any], job: int) -> None:
    """Write down the start, wait, write down the end; what cannot be written down must not run."""
    try:
        started = {**me, "job_pid": job, "job_ticks": _ticks(job), "started_at": time.time()}
        _write(record / "started.json", started)
        _tell_agent()
        _wait_until_dead(job)
    finally:
        # Not reaped yet, so its pid, which names its group too, cannot belong to anybody else.
        with suppress(ProcessLookupError):
            os.killpg(job, signal.SIGKILL)
    signal.raise_signal(signal.SIGALRM)  # one last look at the log's size
    code = os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])
    ended = {"exit_code": code if code >= 0 else None, "signal": -code if code < 0 else None}
    _write(record / "ended.json", {**ended, "error": "", "ended_at": time.time()})


def _watch_size(log: Path, limit: int) -> None:
    """Keep the log's disk use near its limit, by a look every few seconds.

    The job writes straight into its file and goes on when this process is killed, which a pipe
    would not survive. So what is old is given back by making a hole at the file's start.
    """

    def look(_number: int, _frame: object) -> None:
        with suppress(OSError):
            _trim(log, limit)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOG_LOOK_SECONDS, LOG_LOOK_SECONDS)


def _trim(log: Path, limit: int) -> None:
    with log.open("r+b") as file:
        facts = os.fstat(file.fileno())
        if facts.st_blocks * 512 <= limit:
            return
        old = facts.st_size - limit // 2
        old -= old % facts.st_blksize  # of a block that is cut in two, one half would read as zeros
        libc = ctypes.CDLL(None)
        libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
        if libc.fallocate(file.fileno(), PUNCH_HOLE_KEEP_SIZE, 0, old) != 0:
            file.truncate(0)  # no holes on this file system: the job goes on at the start


def _order() -> dict[str, Any] | None:
    text = sys.stdin.buffer.read()
    try:
        order: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - descriptors are the subject
        os.dup2(nothing.fileno(), 0)
    return order


def _start(order: dict[str, Any], log: Path) -> subprocess.Popen[bytes]:
    """The caller must keep what this gives: a forgotten Popen reaps its child by itself."""
    with log.open("ab") as output:
        # Its own session: a signal to the job's group reaches all of it and not the shim.
        return subprocess.Popen(
            order["argv"],
            cwd=order["cwd"],
            env=order["environment"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o022,
        )


def _tell_agent() -> None:
    with suppress(OSError):  # the agent may be gone: nobody to tell
        os.write(1, b"ok")
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 1)


def _wait_until_dead(job: int) -> None:
    """Wait for the job without reaping it; orphans that end meanwhile are reaped."""
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        if ended is None or ended.si_pid == job:
            return
        os.waitpid(ended.si_pid, 0)


def _end_orphans() -> None:
    """Give what left the job's group (wandb's uploader) some time, then kill it."""
    deadline = time.monotonic() + ORPHAN_GRACE_SECONDS
    with suppress(ChildProcessError):  # no children: the usual case, at once
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
        while True:
            # A dying orphan's own children become ours and are found by the next turn.
            for pid in _children():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    return [int(pid) for pid in text.split()]


def _become_subreaper() -> None:
    with suppress(OSError, AttributeError):  # best effort: without it orphans go to init
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _ticks(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return int(stat[stat.rindex(")") + 2 :].split()[19])


def _write(path: Path, facts: dict[str, Any]) -> None:
    """All or nothing, also when the machine stops: write aside, sync, rename, sync the folder."""
    aside = path.with_suffix(".tmp")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(facts, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
