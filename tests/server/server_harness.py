"""What tests of the server share: a server that runs, HTTP to it, and the real client."""

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from anyio.from_thread import BlockingPortal
from sqlalchemy import text
from yarl import URL

from database_copies import Copies
from databases import Postgres
from launch_async.server.access import Role, Viewer
from launch_async.server.app import listening
from launch_async.server.blobs import Blobs
from launch_async.server.context import Request
from launch_async.server.graphql import GraphQL
from launch_async.server.services import Services, open_services
from launch_async.server.settings import Settings
from launch_async.server.store import Store
from launch_async.server.urls import Urls, UrlSigner
from launch_async.server.users import create_api_key, create_user

USERNAME = "tester"
CLIENT_SECONDS = 60


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server that listens, and the key of its one user."""

    url: str
    key: str
    user_id: int
    services: Services

    def request(self, **changes: Any) -> Request:
        """Return what a resolver would be given for a request of our user."""
        viewer = Viewer(
            user_id=self.user_id,
            username=USERNAME,
            email=None,
            name=USERNAME,
            admin=True,
            roles={USERNAME: Role.ADMIN},
        )
        services = self.services
        urls = Urls(self.url, services.signer)
        whole = Request(
            viewer=viewer,
            store=services.store,
            blobs=services.blobs,
            urls=urls,
            settings=services.settings,
        )
        return msgspec.structs.replace(whole, **changes)

    async def rows(self, sql: str, **parameters: Any) -> list[Any]:
        """Return what a query finds in the server's database."""
        async with self.services.store.read() as connection:
            return list((await connection.execute(text(sql), parameters)).all())


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A data folder and a database with one user in it, made once and copied for each server."""

    folder: Path
    key: str
    user_id: int
    graphql: GraphQL
    copies: Copies | None
    """Of PostgreSQL's database; None: the database is SQLite's, in the folder."""

    @asynccontextmanager
    async def copied(self, data_dir: Path, **settings: Any) -> AsyncGenerator[Settings]:
        """Lend a copy that a server, or one after the other, may run on while the block lasts."""
        shutil.copytree(self.folder, data_dir)
        chosen = Settings(data_dir=data_dir, port=0, **settings)
        if self.copies is None:
            yield chosen
            return
        async with self.copies.lent() as url:
            yield msgspec.structs.replace(chosen, database_url=url)


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
                user_id = await create_user(connection, USERNAME, email="t@example.com", admin=True)
                key = await create_api_key(connection, user_id, "tests")
        finally:
            await services.close()
        copies = None
        if postgres is not None and url is not None:
            copies = await stack.enter_async_context(Copies.open(postgres, url))
        yield Template(folder=folder, key=key, user_id=user_id, graphql=graphql, copies=copies)


@asynccontextmanager
async def running_server(
    data_dir: Path, template: Template, **settings: Any
) -> AsyncGenerator[Server]:
    """Run a server with one user on a free port of the loopback."""
    async with template.copied(data_dir, **settings) as chosen, served(chosen, template) as server:
        yield server


@asynccontextmanager
async def served(settings: Settings, template: Template) -> AsyncGenerator[Server]:
    """Run a server on a copy of the template."""
    services = Services(  # as open_services does, but the template was migrated once for all
        settings=settings,
        store=Store.connect(settings.database()),
        blobs=Blobs.open(settings.blobs()),
        signer=UrlSigner(
            (settings.data_dir / "secret").read_bytes(),
            lifetime_seconds=settings.url_lifetime_seconds,
        ),
    )
    try:
        async with listening(services, settings, graphql=template.graphql) as url:
            yield Server(url=url, key=template.key, user_id=template.user_id, services=services)
    finally:
        await services.close()


class Reply(msgspec.Struct, frozen=True):
    """An HTTP answer, read to its end."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Http(msgspec.Struct, frozen=True):
    """Requests to one server with its key."""

    session: aiohttp.ClientSession
    server: Server

    async def send(self, method: str, path: str, **options: Any) -> Reply:
        """Send to a path of the server, or to an absolute address that it handed out."""
        url = path if path.startswith("http") else self.server.url + path
        async with self.session.request(method, URL(url, encoded=True), **options) as response:
            return Reply(response.status, await response.read(), response.headers)

    async def ask(self, query: str, key: str | None = None, **variables: Any) -> Reply:
        """POST a GraphQL document as the client does."""
        credentials = base64.b64encode(f"api:{key or self.server.key}".encode()).decode()
        body = {"query": query, "variables": variables, "operationName": ""}
        headers = {"Authorization": f"Basic {credentials}"}
        return await self.send("POST", "/graphql", json=body, headers=headers)

    async def data(self, query: str, **variables: Any) -> Any:
        """POST a GraphQL document and return its data; any error fails the test."""
        reply = await self.ask(query, **variables)
        answer = reply.json()
        assert reply.status == 200, answer
        return answer["data"]

    async def stream(self, run: str, body: Any, project: str = "proj") -> Reply:
        """POST to the file_stream of a run."""
        headers = {"Authorization": f"Bearer {self.server.key}"}
        path = f"/files/{USERNAME}/{project}/{run}/file_stream"
        return await self.send("POST", path, json=body, headers=headers)


class LiveServer(msgspec.Struct, frozen=True):
    """A server in a thread of its own, for tests of programs that block."""

    server: Server
    portal: BlockingPortal

    def rows(self, sql: str, **parameters: Any) -> list[Any]:
        """Return what a query finds in the server's database."""

        async def read() -> list[Any]:
            return await self.server.rows(sql, **parameters)

        return self.portal.call(read)

    def call(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Run a coroutine function in the server's loop."""
        return self.portal.call(function, *arguments)


class WandbClient:
    """Runs the unmodified wandb client as a user would, in a home of its own."""

    def __init__(self, home: Path, server: Server) -> None:
        self.home = home
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "WANDB_DIR": str(home),
            "WANDB_CACHE_DIR": str(home / "cache"),
            "WANDB_DATA_DIR": str(home / "data"),
            "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": server.key,
            "WANDB_SILENT": "false",
        }

    def command(self, script: str, name: str = "train") -> list[str]:
        """Return the command that runs a script, written to a file as a user's would be."""
        path = self.home / f"{name}.py"
        path.write_text(script)
        return [sys.executable, str(path)]

    def python(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end."""
        return self.run(self.command(script), **environment)

    def wandb(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the wandb command to its end."""
        return self.run(self.cli(*words), **environment)

    def cli(self, *words: str) -> list[str]:
        """Return the command that runs wandb with these words."""
        return [sys.executable, "-m", "wandb", *words]

    def run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command; its output is in stdout, both streams together."""
        return self.wait(self.start(command, **environment))

    def start(self, command: list[str], **environment: str) -> subprocess.Popen[str]:
        """Start a command, so that others can run beside it; `wait` ends it in any case."""
        return subprocess.Popen(
            command,
            env=self.environment | environment,
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

    def together(self, *commands: list[str]) -> list[subprocess.CompletedProcess[str]]:
        """Run commands side by side, as most of a client's time goes into its start."""
        return [self.wait(each) for each in [self.start(command) for command in commands]]
