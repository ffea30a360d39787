"""The real wandb clients, old and new, each in its own environment, and a server that takes notes.

A script of `scripts/` does many things in one
process, as a client takes seconds to start, and writes what it saw as JSON for many tests to read.
"""

import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal
from sqlalchemy import text

from client_environments import python_of
from databases import Postgres
from launch_async.server.app import listening
from launch_async.server.context import Request
from launch_async.server.graphql import Answer, GraphQL, GraphQLErrors, Question
from launch_async.server.services import Services, open_services
from launch_async.server.settings import Settings
from launch_async.server.users import create_api_key, create_user

ENTITY = "tester"
CLIENT_SECONDS = 180
SCRIPTS = Path(__file__).parent / "scripts"


class RecordingGraphQL(GraphQL):
    """Answers as ever, and keeps each document that came with the worst status that it had."""

    def __init__(self, graphql: GraphQL) -> None:
        super().__init__(graphql.schema)
        self.asked: dict[str, int] = {}

    async def answer(self, question: Question, request: Request) -> Answer:
        answer = await super().answer(question, request)
        text = question.query
        self.asked[text] = max(answer.status, self.asked.get(text, 0))
        return answer

    def invalid(self) -> dict[str, list[str]]:
        """Return the documents that came and are not valid, with the reasons."""
        found = {}
        for document in self.asked:
            try:
                self.check(document)
            except GraphQLErrors as refused:
                found[document] = [error.message for error in refused.errors]
        return found


class Plane(msgspec.Struct, frozen=True, kw_only=True):
    """A server with one user, and what was asked of it."""

    url: str
    key: str
    services: Services
    graphql: RecordingGraphQL


class LivePlane(msgspec.Struct, frozen=True):
    """A server in a thread of its own, for tests of programs that block."""

    plane: Plane
    portal: BlockingPortal

    @property
    def graphql(self) -> RecordingGraphQL:
        """What was asked of the server."""
        return self.plane.graphql

    def rows(self, sql: str, **parameters: Any) -> list[Any]:
        """Return what a query finds in the server's database."""

        async def read() -> list[Any]:
            async with self.plane.services.store.read() as connection:
                return list((await connection.execute(text(sql), parameters)).all())

        return self.portal.call(read)


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A data folder and a database with one user, made once and copied for each server."""

    folder: Path
    key: str
    graphql: GraphQL
    postgres: Postgres | None
    """None: the database is SQLite's, in the folder."""
    database_url: str | None

    @contextmanager
    def served(self, data_dir: Path) -> Iterator[LivePlane]:
        """Run a server on a copy while the block lasts."""
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(serving(self, data_dir)) as plane,
        ):
            yield LivePlane(plane, portal)


@asynccontextmanager
async def open_template(
    folder: Path, graphql: GraphQL, postgres: Postgres | None
) -> AsyncGenerator[Template]:
    """Make what servers start from."""
    async with AsyncExitStack() as stack:
        url = None
        if postgres is not None:
            url = await stack.enter_async_context(postgres.database())
        services = await open_services(Settings(data_dir=folder, database_url=url))
        try:
            async with services.store.write() as connection:
                user = await create_user(connection, ENTITY, email="t@example.com", admin=True)
                key = await create_api_key(connection, user, "tests")
        finally:
            await services.close()
        yield Template(folder=folder, key=key, graphql=graphql, postgres=postgres, database_url=url)


@asynccontextmanager
async def serving(template: Template, data_dir: Path) -> AsyncGenerator[Plane]:
    """Run a server with one user on a free port of the loopback."""
    async with AsyncExitStack() as stack:
        shutil.copytree(template.folder, data_dir)
        url = None
        if template.postgres is not None:
            copied = template.postgres.database(template.database_url)
            url = await stack.enter_async_context(copied)
        settings = Settings(data_dir=data_dir, port=0, database_url=url, shutdown_seconds=0.1)
        services = await open_services(settings)
        stack.push_async_callback(services.close)
        recording = RecordingGraphQL(template.graphql)
        base = await stack.enter_async_context(listening(services, settings, graphql=recording))
        yield Plane(url=base, key=template.key, services=services, graphql=recording)


class Client:
    """One version of wandb, used as its user would, in a home of its own."""

    def __init__(self, version: str, home: Path, plane: Plane) -> None:
        self.version = version
        self.home = home
        self.python = str(python_of(version))
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "WANDB_DIR": str(home),
            "WANDB_CACHE_DIR": str(home / "cache"),
            "WANDB_CONFIG_DIR": str(home / "config"),
            "WANDB_DATA_DIR": str(home / "data"),
            "WANDB_BASE_URL": plane.url,
            "WANDB_API_KEY": plane.key,
        }

    def script(self, name: str, *words: str) -> list[str]:
        """Return the command that runs one of our scripts."""
        return [self.python, str(SCRIPTS / f"{name}.py"), *words]

    def wandb(self, *words: str) -> list[str]:
        """Return the command that runs wandb with these words."""
        return [self.python, "-m", "wandb", *words]

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a command; `wait` ends it in any case. Both streams are in its stdout."""
        return subprocess.Popen(
            command,
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """Return how a started command ended."""
        with process:
            try:
                output, _ = process.communicate(timeout=CLIENT_SECONDS)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def run(self, command: list[str]) -> str:
        """Run a command to its end, which must be a good one, and return what it printed."""
        done = self.wait(self.start(command))
        assert done.returncode == 0, done.stdout
        return done.stdout

    def facts(self, name: str) -> Any:
        """Run one of our scripts and return what it saw."""
        path = self.home / f"{name}.json"
        printed = self.run(self.script(name, str(path)))
        assert path.exists(), printed
        return msgspec.json.decode(path.read_bytes())
