"""A buildkitd reached over TLS, its cache in a registry, and what it cannot do."""

import subprocess
import time
import uuid
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec
import pytest
from image_workshops import KnownLogins, Workshop

from build_tools import Buildkit
from launch_async.adapters.builders.buildkit import BuildkitBuilder, BuildkitServer
from launch_async.adapters.builders.buildx import BuildxBuilder
from launch_async.domain.errors import ItemError, Unavailable
from launch_async.wire.docker import DockerConnection

pytestmark = [pytest.mark.anyio, pytest.mark.docker]
on_buildkit = pytest.mark.parametrize("workshop", ["buildkit"], indirect=True)


class Authority:
    """A CA of this test run's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificate = folder / "ca.pem"
        self._openssl("req", "-x509", "-nodes", "-subj", "/CN=tests", *self._new_key("ca"))

    def sign(self, name: str, *extensions: str) -> tuple[Path, Path]:
        """A certificate and its key."""
        added = [word for extension in extensions for word in ("-addext", extension)]
        by = ("-CA", str(self.certificate), "-CAkey", str(self._folder / "ca.key"))
        signed = ("req", "-x509", "-nodes", "-subj", f"/CN={name}", *by)
        self._openssl(*signed, *self._new_key(name), *added)
        return self._folder / f"{name}.pem", self._folder / f"{name}.key"

    def _new_key(self, name: str) -> tuple[str, ...]:
        key, certificate = self._folder / f"{name}.key", self._folder / f"{name}.pem"
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2")
        return (*kind, "-keyout", str(key), "-out", str(certificate))

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def secured(
    buildkit: Buildkit, tmp_path_factory: pytest.TempPathFactory
) -> Generator[BuildkitServer]:
    """Another daemon, with an empty cache, that wants to see certificates of our CA."""
    folder = tmp_path_factory.mktemp("buildkitd")
    authority = Authority(folder)
    certificate, key = authority.sign("server", "subjectAltName=DNS:builder.test")
    own, own_key = authority.sign("client")
    log = folder / "log"
    with log.open("wb") as words:
        daemon = subprocess.Popen(
            [
                *(buildkit.programs / "buildkitd", "--config", "/dev/null"),
                *("--addr", "tcp://127.0.0.1:0", "--root", folder / "root"),
                *("--tlscacert", authority.certificate, "--tlscert", certificate, "--tlskey", key),
                *("--containerd-worker=false", "--oci-worker-net=host"),
            ],
            stdout=words,
            stderr=words,
        )
    try:
        yield BuildkitServer(
            address=f"tcp://127.0.0.1:{_port(daemon, log)}",
            ca=authority.certificate,
            certificate=own,
            key=own_key,
            server_name="builder.test",
        )
    finally:
        daemon.terminate()
        daemon.wait(20)


def _port(daemon: subprocess.Popen, log: Path) -> str:
    """The port that it says it listens on."""
    until = time.monotonic() + 30
    while time.monotonic() < until and daemon.poll() is None:
        for line in log.read_text().splitlines():
            if "running server on" in line:
                return line.rpartition(":")[2].rstrip('"')
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.fixture
def secured_builder(
    secured: BuildkitServer, buildkit: Buildkit, tmp_path: Path
) -> Callable[..., BuildkitBuilder]:
    """Makes a builder on it; what is given is not as it should be."""

    def make(**given) -> BuildkitBuilder:
        server = msgspec.structs.replace(secured, **given)
        logins = tmp_path / "logins"
        return BuildkitBuilder(server, KnownLogins(), folder=logins, program=buildkit.buildctl)

    return make


@on_buildkit
async def test_a_server_is_reached_over_tls(
    workshop: Workshop, secured_builder: Callable[..., BuildkitBuilder]
) -> None:
    builder = secured_builder()
    order = workshop.order("FROM BASE\nRUN echo safe >/file\n")

    await builder.check()
    await builder.build(order, lambda _: None)

    assert await workshop.run(order.image, "cat", "/file") == "safe\n"


@pytest.mark.parametrize(
    "given",
    [
        {"ca": None},
        {"certificate": None, "key": None},
        {"server_name": "another.test"},
        {"ca": Path("/no/such/ca.pem")},
        {"address": "tcp://127.0.0.1:9"},
    ],
    ids=["another authority", "no certificate", "another name", "no file", "nobody"],
)
async def test_a_server_that_cannot_be_trusted_or_reached_is_an_outage(
    secured_builder: Callable[..., BuildkitBuilder], given: dict
) -> None:
    with pytest.raises(Unavailable, match=r"The buildkitd at tcp://.* cannot be used: .*\w.*Check"):
        await secured_builder(**given).check()


@on_buildkit
async def test_a_build_on_a_server_that_is_away_is_an_outage(
    workshop: Workshop, secured_builder: Callable[..., BuildkitBuilder]
) -> None:
    builder = secured_builder(address="tcp://127.0.0.1:9")

    with pytest.raises(Unavailable, match="buildkitd does not answer"):
        await builder.build(workshop.order("FROM BASE\n"), lambda _: None)


@on_buildkit
async def test_a_new_server_takes_layers_from_the_cache_in_the_registry(
    workshop: Workshop, buildkit: Buildkit, secured: BuildkitServer, tmp_path: Path
) -> None:
    recipe = (
        f"FROM BASE AS first\nRUN : {uuid.uuid4()} && cat /proc/sys/kernel/random/uuid >/made\n"
        "FROM BASE\nCOPY --from=first /made /made\n"
    )
    made = []
    for server in (BuildkitServer(address=buildkit.address), secured):
        builder = BuildkitBuilder(
            server,
            KnownLogins(),
            folder=tmp_path / "logins",
            cache=f"{workshop.registry.host}/team/cache",
            program=buildkit.buildctl,
        )
        order = workshop.order(recipe)
        await builder.build(order, lambda _: None)
        made.append(await workshop.run(order.image, "cat", "/made"))

    assert made[0] == made[1]


@on_buildkit
async def test_a_cache_that_cannot_be_reached_does_not_fail_the_build(
    workshop: Workshop, buildkit: Buildkit, tmp_path: Path
) -> None:
    builder = BuildkitBuilder(
        BuildkitServer(address=buildkit.address),
        KnownLogins(),
        folder=tmp_path / "logins",
        cache="127.0.0.1:9/team/cache",
        program=buildkit.buildctl,
    )
    await builder.build(workshop.order("FROM BASE\nRUN true\n"), lambda _: None)

    with pytest.raises(ItemError, match="Step 2/2 of the Dockerfile exited with 3"):
        await builder.build(workshop.order("FROM BASE\nRUN exit 3\n"), lambda _: None)


@on_buildkit
async def test_without_a_registry_there_is_no_place_for_an_image(workshop: Workshop) -> None:
    with pytest.raises(ItemError, match=r"keeps no images.*`builder\.destination`"):
        await workshop.build("FROM BASE\n", push=False)


@on_buildkit
async def test_only_the_registry_knows_what_a_base_is(workshop: Workshop) -> None:
    assert await workshop.builder.base_digest(workshop.base, platform=None) is None


async def test_programs_that_are_missing_are_named(
    connection: DockerConnection, tmp_path: Path
) -> None:
    nowhere = BuildkitServer(address="tcp://127.0.0.1:9")
    builders = (
        (BuildkitBuilder(nowhere, KnownLogins(), folder=tmp_path, program="no-buildctl"), "no-b"),
        (BuildxBuilder(connection, KnownLogins(), folder=tmp_path, program="no-docker"), "no-d"),
    )
    for builder, name in builders:
        with pytest.raises(Unavailable, match=f"^{name}.* is not installed where the agent runs"):
            await builder.check()


async def test_a_docker_without_buildx_is_told_what_it_lacks(
    connection: DockerConnection, tmp_path: Path
) -> None:
    script = tmp_path / "docker"
    script.write_text("#!/bin/sh\necho \"docker: 'buildx' is not a docker command.\" >&2\nexit 1\n")
    script.chmod(0o755)
    builder = BuildxBuilder(connection, KnownLogins(), folder=tmp_path, program=str(script))

    with pytest.raises(Unavailable, match=r"is not a docker command.*install Docker's buildx"):
        await builder.check()
