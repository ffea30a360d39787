"""A server that is killed again and again."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

START_SECONDS = 60
ZYGOTE = Path(__file__).with_name("zygote.py")


class Doomed:
    """`launch-async server` on one port, in one life after the other."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, port: int) -> None:
        self._process = process
        self._log = log
        self._listen = f"127.0.0.1:{port}"
        self.url = f"http://{self._listen}"
        self.kills = 0

    @classmethod
    @asynccontextmanager
    async def prepare(cls, log: Path) -> AsyncGenerator["Doomed"]:
        """Import the server; its last life ends with the block."""
        with log.open("wb") as stream:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(ZYGOTE)),
                env={k: v for k, v in os.environ.items() if not k.startswith("LAUNCH_ASYNC_")},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stream,
                start_new_session=True,  # so that one signal reaches the child too
            )
        try:
            yield cls(process, log, _free_port())
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    @property
    def log(self) -> str:
        """What all its lives have logged."""
        return self._log.read_text()

    def start(self, data: Path, database_url: str | None) -> None:
        """Begin a life; without a URL the database is SQLite's, in the folder."""
        database = [] if database_url is None else ["--database-url", database_url]
        self._say(["--data", str(data), "--listen", self._listen, *database])

    async def serves(self) -> None:
        """Wait until it listens."""
        await self._hear("serving on")

    async def kill(self) -> None:
        """End the life; the test fails if it had ended by itself."""
        self._say([])
        ended = await self._hear("ended")
        assert ended == f"ended {-signal.SIGKILL}", f"{ended}\n{self.log}"
        self.kills += 1

    def _say(self, words: list[str]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(words)}\n".encode())

    async def _hear(self, word: str) -> str:
        assert self._process.stdout is not None
        line = ""
        with anyio.fail_after(START_SECONDS):
            while not line.startswith(word):
                line = (await self._process.stdout.readline()).decode()
                assert line, f"it never said {word!r}\n{self.log}"
        return line.strip()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
