"""Our programs and W&B's as a user starts them: separate processes, known by what they print.

with ControlPlane.start(folder) as control_plane:
    with Program.start(["wandb", "launch-agent", ...], env=...) as agent:
        agent.wait_for("polling on queues", within_seconds=20)
"""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from databases import Postgres, fresh_database

BIN = Path(sys.executable).parent
START_SECONDS = 30
STOP_SECONDS = 20
COMMAND_SECONDS = 90
SERVING = re.compile(r"serving on (?P<url>\S+), key in (?P<key_file>.+)")


class Program:
    """A process that goes on while the test acts; its output, both streams, is read as it comes."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        self.command = list(command)
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        # A session of its own, so that a kill reaches what the program started.
        self.process = subprocess.Popen(
            self.command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @classmethod
    @contextmanager
    def start(cls, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> Iterator[Self]:
        """Run a command while the block lasts; it is stopped at the end, if need be killed."""
        program = cls(command, env=env, cwd=cwd)
        try:
            yield program
        finally:
            program.end()

    @property
    def output(self) -> str:
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str, *, within_seconds: float = START_SECONDS) -> re.Match[str]:
        """Return the first match of a regular expression in the output, past or to come."""
        found: list[re.Match[str]] = []

        def seen() -> bool:
            if match := re.search(pattern, "".join(self._lines)):
                found.append(match)
            return bool(found) or self._ended

        with self._news:
            self._news.wait_for(seen, timeout=within_seconds)
        assert found, f"{self.command} never printed {pattern!r}; it printed:\n{self.output}"
        return found[0]

    def wait(self, *, within_seconds: float) -> int:
        """Return the exit code; the test fails if the program goes on for longer."""
        try:
            code = self.process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            message = f"{self.command} still runs after {within_seconds} s:\n{self.output}"
            raise AssertionError(message) from None
        self._reader.join(STOP_SECONDS)
        return code

    def interrupt(self) -> None:
        """Ask it to stop, as Ctrl-C and service managers do."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and all that it started in its session, without a last word, as a crash does."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait(STOP_SECONDS)

    def end(self) -> None:
        if self.process.poll() is None:
            self.interrupt()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        self.kill()
        self._reader.join(STOP_SECONDS)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class ControlPlane:
    """`launch-async server` on a free loopback port; `restart` keeps the port and the data."""

    def __init__(
        self, folder: Path, program: Program, *, url: str, key: str, database_url: str | None = None
    ) -> None:
        self.folder = folder
        self.database_url = database_url
        self.program = program
        self.url = url
        self.key = key
        self.entity: str = self.ask("{ viewer { entity } }")["viewer"]["entity"]

    @classmethod
    @contextmanager
    def start(cls, folder: Path, database: Postgres | None = None) -> Iterator[Self]:
        """Serve from a folder, and from a fresh database of PostgreSQL if one is given."""
        with ExitStack() as stack:
            database_url = None
            if database is not None:
                database_url = stack.enter_context(fresh_database(database))
            yield stack.enter_context(cls._serving(folder, database_url))

    @classmethod
    @contextmanager
    def _serving(cls, folder: Path, database_url: str | None) -> Iterator[Self]:
        program, url, key = _serve(folder, port=0, database_url=database_url)
        try:
            control_plane = cls(folder, program, url=url, key=key, database_url=database_url)
        except BaseException:
            program.end()
            raise
        try:
            yield control_plane
        finally:
            control_plane.program.end()

    def restart(self) -> None:
        """Start again after an end or a kill, where clients expect it."""
        self.program.end()
        port = int(self.url.rsplit(":", 1)[1])
        self.program, _, _ = _serve(self.folder, port=port, database_url=self.database_url)

    def ask(self, query: str, **variables: Any) -> Any:
        """Return the data of a GraphQL answer; any error fails the test."""
        request = urllib.request.Request(  # noqa: S310 (our own http address)
            f"{self.url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={
                "Authorization": "Basic " + base64.b64encode(f"api:{self.key}".encode()).decode(),
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
            answer = json.load(reply)
        assert not answer.get("errors"), answer
        return answer["data"]

    def ask_until(
        self,
        query: str,
        *,
        done: Callable[[Any], bool],
        within_seconds: float = 30,
        **variables: Any,
    ) -> Any:
        """Ask again until `done(data)`; the API has no way to be told."""
        begin = time.monotonic()
        while not done(data := self.ask(query, **variables)):
            waited = time.monotonic() - begin
            assert waited < within_seconds, f"not within {within_seconds} s; last answer: {data}"
            time.sleep(pause_seconds(waited))
        return data


class Shell:
    """A user's shell in a folder of its own: commands to their end, and programs that go on."""

    def __init__(self, folder: Path, *, env: dict[str, str], programs: ExitStack) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.env = env
        self._programs = programs

    def run(
        self, *command: str, code: int = 0, within_seconds: float = COMMAND_SECONDS, **env: str
    ) -> str:
        """Run a command to its end and return its output; another exit code fails the test."""
        done = subprocess.run(
            command,
            env=self.env | env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=within_seconds,
            check=False,
        )
        assert done.returncode == code, f"{command} exited with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def start(self, *command: str, **env: str) -> Program:
        """Start a program; it ends with the test at the latest."""
        started = Program.start(command, env=self.env | env, cwd=self.folder)
        return self._programs.enter_context(started)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the user's."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


def pause_seconds(waited: float) -> float:
    """Before another look at what others do: each look costs both sides 5 ms of a CPU or more."""
    return min(0.05 + waited / 20, 0.3)


def program_environment(home: Path, *, url: str, key: str) -> dict[str, str]:
    """Return what a user's shell gives to wandb and launch-async: a home of its own, one server.

    Nothing of the caller's own wandb settings gets through; our environment's programs come first.
    """
    home.mkdir(parents=True, exist_ok=True)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WANDB_", "LAUNCH_ASYNC_")) and name != "NETRC"
    }
    return kept | {
        "HOME": str(home),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": key,
        "WANDB_DIR": str(home),
        "WANDB_CACHE_DIR": str(home / "cache"),
        "WANDB_DATA_DIR": str(home / "data"),
    }


def _serve(folder: Path, *, port: int, database_url: str | None) -> tuple[Program, str, str]:
    listen = f"127.0.0.1:{port}"
    command = [str(BIN / "launch-async"), "server", "--data", str(folder), "--listen", listen]
    folder.mkdir(parents=True, exist_ok=True)
    named = {} if database_url is None else {"LAUNCH_ASYNC_DATABASE_URL": database_url}
    program = Program(command, env=os.environ | named, cwd=folder)
    try:
        serving = program.wait_for(SERVING.pattern)
    except BaseException:
        program.end()
        raise
    # W&B's own agent gives a container the host's network only for an address of this name.
    url = serving["url"].replace("127.0.0.1", "localhost")
    return program, url, Path(serving["key_file"].strip()).read_text().strip()
