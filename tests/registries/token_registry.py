"""A real registry that takes tokens alone, and the server that signs them for it.

docker-registry  -- 401, Bearer realm=… -->  client  -- Basic -->  Signer  -- JWT -->  client
"""

import base64
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import jwt
from aiohttp import web
from scripted_registry import Site, scripted

from registry_servers import Registry

SERVICE = "token registry"
ISSUER = "launch-async tests"
USERNAME, PASSWORD = "agent", "planted-signer-51b7"
CONFIG = """
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "{host}", secret: none}}
auth:
  token: {{realm: "{realm}", service: {service}, issuer: {issuer}, rootcertbundle: {certificate}}}
"""


class Signer:
    """Hands out tokens that the registry checks against the certificate."""

    def __init__(self, certificate: Path, key: Path) -> None:
        pem = certificate.read_text()
        self._chain = [base64.b64encode(ssl.PEM_cert_to_DER_cert(pem)).decode()]
        self._key = key.read_text()
        self.lifetime_seconds = 300
        self.may_pull = {"team/app"}

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        sent = request.headers.get("Authorization")
        if sent != aiohttp.encode_basic_auth(USERNAME, PASSWORD):
            return web.json_response({"errors": [{"code": "UNAUTHORIZED"}]}, status=401)
        kind, name, actions = request.query["scope"].split(":")
        granted = actions.split(",") if name in self.may_pull else []
        return web.json_response({
            "token": self.sign([{"type": kind, "name": name, "actions": granted}]),
            "expires_in": 300,
        })  # fmt: skip

    def sign(self, access: list[dict[str, object]]) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": USERNAME,
            "aud": SERVICE,
            "nbf": now - 200,
            "exp": now + self.lifetime_seconds,
            "access": access,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"x5c": self._chain})


@asynccontextmanager
async def token_registry(
    folder: Path, certificate: Path, key: Path
) -> AsyncGenerator[tuple[Registry, Signer, Site]]:
    """Lend the registry, what signs for it, and the server that this is on."""
    program = shutil.which("docker-registry")
    assert program is not None
    signer = Signer(certificate, key)
    async with scripted() as site:
        site.on("GET", "/token", signer)
        registry = Registry(f"127.0.0.1:{_free_port()}")
        config = folder / "config.yml"
        config.write_text(
            CONFIG.format(
                folder=folder, host=registry.host, realm=f"{site.url}/token", service=SERVICE,
                issuer=ISSUER, certificate=certificate,
            )
        )  # fmt: skip
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
        try:
            await _until_it_answers(registry, process, folder / "log")
            yield registry, signer, site
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def _until_it_answers(registry: Registry, process: subprocess.Popen, log: Path) -> None:
    async with aiohttp.ClientSession() as session:
        with anyio.fail_after(30):
            while process.poll() is None:
                try:
                    async with session.get(f"http://{registry.host}/v2/") as answer:
                        assert answer.status == 401
                        return
                except aiohttp.ClientConnectionError:
                    await anyio.sleep(0.05)
    raise AssertionError(log.read_text())
