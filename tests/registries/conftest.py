"""Sessions for registries, and certificates of a CA that is this test run's own."""

import ssl
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest

from launch_async.adapters.registries.http import registry_session

NAMES = ("registry-1.docker.io", "auth.docker.io", "tests.azurecr.io")
"""Beside 127.0.0.1, what its certificate is for."""


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate, which is its own CA, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = ",".join(["IP:127.0.0.1", *(f"DNS:{name}" for name in NAMES)])
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2"),
            *("-subj", "/CN=registry tests", "-addext", f"subjectAltName={names}"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture(scope="session")
def ca_file(certificate: tuple[Path, Path]) -> Path:
    return certificate[0]


@pytest.fixture(scope="session")
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
async def session(anyio_backend: str, ca_file: Path) -> AsyncGenerator[aiohttp.ClientSession]:
    async with registry_session(ca_file) as opened:
        yield opened
