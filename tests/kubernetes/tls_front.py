"""TLS before a server of this machine, with a certificate that only its own file vouches for."""

import ssl
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.abc
from anyio.from_thread import start_blocking_portal
from anyio.streams.tls import TLSListener
from relay import relay


class TlsFront:
    """Where it listens; `serves` is the address of what it stands before, once that is known."""

    def __init__(self, url: str, certificate: Path) -> None:
        self.url = url
        self.certificate = certificate
        self.serves = ""

    async def pass_on(self, client: anyio.abc.AnyByteStream) -> None:
        await relay(client, self.serves)


@contextmanager
def tls_front(folder: Path, host: str) -> Generator[TlsFront]:
    """On a free port of `host`, while the block runs."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_front(folder, host)) as front,
    ):
        yield front


@asynccontextmanager
async def _front(folder: Path, host: str) -> AsyncGenerator[TlsFront]:
    folder.mkdir()
    certificate, key = folder / "ca.pem", folder / "key.pem"
    command: list[str | Path] = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "2", "-subj", "/CN=own-ca", "-keyout", key, "-out", certificate),
        *("-addext", f"subjectAltName=IP:{host}"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    plain = await anyio.create_tcp_listener(local_host=host)
    port = plain.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no database's
    front = TlsFront(f"https://{host}:{port}", certificate)
    # A client that does not trust it hangs up, which is what the tests want.
    listener = TLSListener(plain, tls, standard_compatible=False)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, front.pass_on)
        yield front
        tasks.cancel_scope.cancel()
