"""Runs programs in folders: an image is a folder's path. All state is files, so restarts find it.

<folder>/<run id>/  origin.json  who asked · begun/ at most one wrapper got so far · pid of the
                    wrapper, which leads the group · log · exit code
"""

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.run import FoundRun, Origin, RunEnd, RunHandle, RunState, RunStatus, Trace
from launch_async.kit.names import plain_name
from launch_async.kit.tail import last_lines, read_on
from launch_async.ports.runner import ImageWork, LaunchOrder

WRAPPER = """trap : TERM; mkdir begun || exit 0; echo $$ >pid.new; mv pid.new pid; folder=$PWD
cd "$0" && "$@" >"$folder/log" 2>&1; echo $? >"$folder/exit.new"; cd "$folder"; mv exit.new exit"""
LOOK_SECONDS = 0.1


class FolderRunner:
    name = "folder"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = anyio.Lock()

    async def check(self) -> None:
        if not os.access(self._folder, os.W_OK):
            raise Unavailable(f"{self._folder} cannot be written to: give it to the agent's user.")

    async def launch(self, order: LaunchOrder) -> RunHandle:
        if not isinstance(order.work, ImageWork) or not Path(order.work.image).is_dir():
            raise ItemError("local-folder needs a folder as its image", reason=Reason.SPEC_INVALID)
        run = self._folder / plain_name(order.run.run_id)
        async with self._lock:  # one agent has this folder, so that its own lock is enough
            if (earlier := _origin(run)) and earlier.item_id != order.item_id:
                if _trace(run) is Trace.ALIVE:
                    msg = f"run {order.run.run_id} still runs for another item: stop it first"
                    raise ItemError(msg, reason=Reason.LAUNCH_FAILED)
                shutil.rmtree(run)
            run.mkdir(mode=0o700, exist_ok=True)
            if not (run / "begun").exists():
                (run / "origin.json").write_bytes(msgspec.json.encode(order.origin))
                await anyio.to_thread.run_sync(_begin, run, order, order.work)
        with anyio.fail_after(10):
            while not (run / "pid").exists():
                await anyio.sleep(LOOK_SECONDS)
        return _handle(order.origin)

    async def watch(self, handle: RunHandle) -> AsyncGenerator[RunStatus, None]:
        if self._trace(handle) is Trace.ALIVE:
            yield RunStatus(state=RunState.RUNNING)
        while self._trace(handle) is Trace.ALIVE:
            await anyio.sleep(LOOK_SECONDS)
        yield RunStatus(state=RunState.ENDED, end=_end(self._run(handle)))

    async def cancel(self, handle: RunHandle, *, within_seconds: float) -> None:
        for number, seconds in ((signal.SIGTERM, within_seconds), (signal.SIGKILL, 10.0)):
            with anyio.move_on_after(seconds):
                if self._trace(handle) is Trace.ALIVE:
                    _signal(self._run(handle), number)
                while self._trace(handle) is Trace.ALIVE:
                    await anyio.sleep(LOOK_SECONDS)

    async def log_tail(self, handle: RunHandle, *, lines: int) -> tuple[str, ...]:
        return last_lines(self._run(handle) / "log", lines=lines)

    async def logs(self, handle: RunHandle) -> AsyncGenerator[bytes, None]:
        alive, position = True, 0
        while alive:
            alive = self._trace(handle) is Trace.ALIVE  # before it is read to its end
            while (read := read_on(self._run(handle) / "log", position))[0]:
                position = read[1]
                yield read[0]
            await anyio.sleep(LOOK_SECONDS if alive else 0)

    async def find(self, identity: str) -> Sequence[FoundRun]:
        runs = [(run, _origin(run)) for run in self._folder.iterdir()]
        return [
            FoundRun(handle=_handle(origin), trace=_trace(run) or Trace.PREPARED, origin=origin)
            for run, origin in runs
            if origin is not None and origin.identity == identity
        ]

    async def remove(self, handle: RunHandle) -> None:
        await self.cancel(handle, within_seconds=0)
        if self._trace(handle) is not None:
            shutil.rmtree(self._run(handle))

    async def serve(self) -> None:
        await anyio.sleep_forever()

    def _run(self, handle: RunHandle) -> Path:
        return self._folder / plain_name(handle.run_id)

    def _trace(self, handle: RunHandle) -> Trace | None:
        origin = _origin(self._run(handle))
        return _trace(self._run(handle)) if origin and origin.item_id == handle.item_id else None


def _begin(run: Path, order: LaunchOrder, work: ImageWork) -> None:
    secrets = {name: secret.reveal() for name, secret in order.secrets.items()}
    environment = {"PATH": os.environ["PATH"], **order.environment, **secrets}
    argv = ["setsid", "--fork", "sh", "-c", WRAPPER, work.image, *work.entrypoint, *order.args]
    subprocess.run(argv, cwd=run, env=environment, stdin=subprocess.DEVNULL, check=True)


def _origin(run: Path) -> Origin | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return msgspec.json.decode((run / "origin.json").read_bytes(), type=Origin)
    return None


def _trace(run: Path) -> Trace | None:
    """None: not begun, or gone."""
    if not (run / "begun").exists():
        return Trace.PREPARED if run.exists() else None
    if (run / "exit").exists():
        return Trace.ENDED
    try:
        stat = Path(f"/proc/{(run / 'pid').read_text().strip()}/stat").read_text()
    except FileNotFoundError:
        return Trace.ENDED if (run / "pid").exists() else Trace.ALIVE
    return Trace.ENDED if stat.rpartition(")")[2].split()[0] in "ZX" else Trace.ALIVE


def _signal(run: Path, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, FileNotFoundError):
        os.killpg(int((run / "pid").read_text()), number)


def _end(run: Path) -> RunEnd:
    try:
        code = int((run / "exit").read_text())
    except FileNotFoundError:
        return RunEnd(exit_code=None, reason=Reason.VANISHED, detail="nobody saw how it ended")
    detail = f"ended by {signal.Signals(code - 128).name}" if code in {137, 143} else ""
    return RunEnd(exit_code=code, detail=detail)


def _handle(origin: Origin) -> RunHandle:
    run_id, item_id = origin.run.run_id, origin.item_id
    return RunHandle(backend=FolderRunner.name, run_id=run_id, item_id=item_id, data={})
