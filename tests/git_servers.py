"""Real git servers on the loopback: over https with `git http-backend`, over ssh with `sshd`."""

import base64
import getpass
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio
import msgspec
from aiohttp import web
from anyio.from_thread import start_blocking_portal

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SSHD_REMEDY = "install openssh-server"
SILENCE_SECONDS = 30.0

_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in {"NAME": "T", "EMAIL": "t@example.com"}.items()
    },
}


def run_git(*arguments: str | Path, cwd: Path) -> str:
    """A git command of the test's own."""
    argv = ["git", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main", *arguments]
    done = subprocess.run(argv, cwd=cwd, env=_ENVIRONMENT, check=True, capture_output=True)
    return done.stdout.decode().strip()


class Repository:
    """A repository with a working tree, and its bare copy that is served as NAME.git."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = f"{name}.git"
        self.work = root.parent / f"{root.name}-work" / name
        self.served = root / self.name
        self.work.mkdir(parents=True)
        run_git("init", "--quiet", cwd=self.work)
        run_git("init", "--quiet", "--bare", self.served, cwd=self.work)
        run_git("remote", "add", "origin", self.served, cwd=self.work)

    def commit(self, files: Mapping[str, str | bytes]) -> str:
        """Write the files, commit all that changed, serve it, and give the commit's hash."""
        for name, content in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        run_git("add", "--all", cwd=self.work)
        run_git("commit", "--quiet", "--message", "a change", cwd=self.work)
        return self.push()

    def add_submodule(self, url: str, path: str, *, of: "Repository") -> None:
        """Add the other repository at `path`; `url` is what .gitmodules says."""
        run_git("submodule", "--quiet", "add", of.served, path, cwd=self.work)
        run_git("config", "--file", ".gitmodules", f"submodule.{path}.url", url, cwd=self.work)

    def push(self) -> str:
        """Serve all branches and tags, and give the present commit's hash."""
        run_git("push", "--quiet", "--force", "--all", "origin", cwd=self.work)
        run_git("push", "--quiet", "--force", "--tags", "origin", cwd=self.work)
        run_git("update-server-info", cwd=self.served)
        return run_git("rev-parse", "HEAD", cwd=self.work)


class HttpsServer:
    """Repositories below `root` over https, as long as the test lets it."""

    def __init__(self, root: Path, ca_file: Path) -> None:
        self.root = root
        self.ca_file = ca_file
        self.port = 0
        self.login = ""
        """`USER:PASSWORD` that is asked for; empty: everybody may read."""
        self.status = 0
        """Answer each request with this; 0: properly."""
        self.fails = 0
        """So many requests fail before the first that does not."""
        self.silent = False
        """Take requests and never answer."""
        self.old = False
        """Speak the first protocol, which gives branches and tags only."""
        self.asked = anyio.Event()
        self.requests: list[str] = []
        self.sent_bytes = 0
        self.on_request: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def remote(self, repository: Repository) -> str:
        return f"{self.url}/{repository.name}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path_qs)
        self.on_request()
        self.asked.set()
        if self.silent:
            await anyio.sleep(SILENCE_SECONDS)
        if self.fails or self.status:
            self.fails = max(0, self.fails - 1)
            return web.Response(status=self.status or 503)
        if self.login and not self._knows(request):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'})
        return await self._backend(request)

    def _knows(self, request: web.Request) -> bool:
        login = base64.b64encode(self.login.encode()).decode()
        return request.headers.get("Authorization") == f"Basic {login}"

    async def _backend(self, request: web.Request) -> web.StreamResponse:
        environment = _ENVIRONMENT | {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
        }
        if not self.old:
            environment["GIT_PROTOCOL"] = request.headers.get("Git-Protocol", "")
        done = await anyio.run_process(
            ["git", "http-backend"],
            input=await request.read(),
            env=environment,
            stderr=DEVNULL,
            check=False,  # what it refuses it has told the client
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        lines = (tuple(line.split(": ", 1)) for line in head.decode().split("\r\n"))
        headers = dict(lines)
        self.sent_bytes += len(body)
        status = int(headers.pop("Status", "200 OK").split()[0])
        return web.Response(status=status, headers=headers, body=body)


@asynccontextmanager
async def https_server(folder: Path) -> AsyncGenerator[HttpsServer]:
    """Serve `folder/repositories` with a new self-signed certificate while the block runs."""
    root = folder / "repositories"
    root.mkdir(parents=True)
    certificate, key = folder / "ca.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=git", "-keyout", key, "-out", certificate),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    server = HttpsServer(root, certificate)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    runner = web.ServerRunner(web.Server(server.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


class SshServer(msgspec.Struct, frozen=True, kw_only=True):
    """An sshd that lets this user in with one key."""

    port: int
    user: str
    root: Path
    key_file: Path
    known_hosts_file: Path

    def remote(self, repository: Repository) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}{self.root}/{repository.name}"


def make_ssh_key(path: Path) -> None:
    """A key pair without a passphrase, of which `path` is the private half."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(argv, check=True, stdin=DEVNULL)


@asynccontextmanager
async def ssh_server(folder: Path) -> AsyncGenerator[SshServer]:
    """Serve `folder/repositories` to this user while the block runs."""
    root, keys = folder / "repositories", folder / "the 100% keys"
    root.mkdir(parents=True)
    keys.mkdir()
    for name in ("host", "user"):
        make_ssh_key(keys / name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shutil.copy(keys / "user.pub", folder / "authorized_keys")
    (folder / "sshd_config").write_text(
        f'ListenAddress 127.0.0.1:{port}\nHostKey "{keys}/host"\nPidFile none\n'
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
    )
    host_key = (keys / "host.pub").read_text()
    (keys / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd puts its unprivileged half
    argv = [str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")]
    async with await anyio.open_process(argv, stderr=PIPE, stdout=DEVNULL) as process:
        try:
            with anyio.fail_after(10):
                said = b""
                while b"listening" not in said:
                    said += await process.stderr.receive()
            yield SshServer(
                port=port,
                user=getpass.getuser(),
                root=root,
                key_file=keys / "user",
                known_hosts_file=keys / "known_hosts",
            )
        finally:
            process.terminate()


@contextmanager
def ssh_server_aside(folder: Path) -> Iterator[SshServer]:
    """As `ssh_server`, for tests that block."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(ssh_server(folder)) as server,
    ):
        yield server


@contextmanager
def https_server_aside(folder: Path) -> Iterator[HttpsServer]:
    """As `https_server`, for tests that block: it is served by a thread."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(https_server(folder)) as server,
    ):
        yield server
