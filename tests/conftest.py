"""What every test may ask for, and what happens when this machine cannot give it.

A test that needs Docker carries `@pytest.mark.docker`. Without an engine it is skipped, all such
tests in one line that says how to get one; with CI=true it fails, so that no service goes missing
there unseen. The fixtures `tiny_image`, `python_image` and `wandb_image` do the same for the images
that scripts/test-images makes. A test whose fixtures ask for `database` runs on SQLite and again on
PostgreSQL; one for which the database cannot matter is marked `any_database` and runs on SQLite
alone, one marked `postgres` on PostgreSQL alone. The wandb client always runs as a subprocess,
never in pytest's process, where each warning is an error.
"""

import http.client
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import anyio
import pytest

from databases import REMEDY as POSTGRES_REMEDY
from databases import Postgres, find_postgres
from launch_async.adapters.builders.environments import EnvironmentBuilder
from object_stores import REMEDY as OBJECT_STORE_REMEDY
from object_stores import ObjectStore, find_object_store
from registry_servers import REMEDY as REGISTRIES_REMEDY
from registry_servers import Registries, find_registries

CI = os.environ.get("CI") == "true"
ENGINE_REMEDY = "start one with `make docker-up` (root)"
IMAGES_REMEDY = "make it with `make images`"

ENGINE = pytest.StashKey["DockerEngine"]()
POSTGRES = pytest.StashKey[Postgres | None]()


class DockerEngine:
    """What tests need to know of the engine: where it is and which images it holds."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.url = f"unix://{socket_path}"
        self.version: str = self._get("/version")["Version"]

    def has_image(self, tag: str) -> bool:
        images = self._get(f'/images/json?filters={{"reference":["{tag}"]}}')
        return bool(images)

    def _get(self, path: str) -> dict:
        connection = _SocketConnection(self.socket_path)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return json.loads(answer.read())
        finally:
            connection.close()


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def find_engine() -> DockerEngine | None:
    """The engine that DOCKER_HOST names, else one on a usual socket, if it answers."""
    host = os.environ.get("DOCKER_HOST", "")
    if host:
        candidates = [Path(host.removeprefix("unix://"))]
    else:
        candidates = [Path("/var/run/docker.sock"), Path.home() / ".docker/run/docker.sock"]
    for path in candidates:
        try:
            return DockerEngine(path)
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            continue
    return None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=["sqlite", "postgres", "both"],
        default="both",
        help="databases to run the server's tests on (default: both)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ENGINE] = find_engine()
    wanted = config.getoption("--database") != "sqlite"
    config.stash[POSTGRES] = find_postgres() if wanted else None


def pytest_report_header(config: pytest.Config) -> list[str]:
    engine, postgres = config.stash[ENGINE], config.stash[POSTGRES]
    lines = [f"missing: no Docker engine, its tests {_verdict()}; {ENGINE_REMEDY}"]
    if engine is not None:
        lines = [f"docker: {engine.version} on {engine.url}"]
    if config.getoption("--database") != "sqlite" and postgres is None:
        lines.append(f"missing: no PostgreSQL, its tests {_verdict()}; {POSTGRES_REMEDY}")
    return lines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--database")
    names = ["sqlite", "postgres"] if chosen == "both" else [chosen]
    if metafunc.definition.get_closest_marker("any_database"):
        names = names[:1]
    if metafunc.definition.get_closest_marker("postgres"):
        not_chosen = pytest.mark.skip(f"PostgreSQL's alone, and --database is {chosen}")
        names = ["postgres" if chosen != "sqlite" else pytest.param("postgres", marks=not_chosen)]
    metafunc.parametrize("database", names, indirect=True, scope="session")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker") and item.config.stash[ENGINE] is None:
        _miss(f"no Docker engine answers: {ENGINE_REMEDY}")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def miss() -> Callable[[str], NoReturn]:
    """What a fixture calls, with a reason, when this machine cannot give what a test needs."""
    return _miss


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes of a test run: what takes long is made there once."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def base_environment(common_folder: Path) -> Path:
    """The `envs` of an agent that has made its base of environments: unpacking pip takes long."""
    builder = EnvironmentBuilder(common_folder / "base", jobs=None)  # type: ignore[arg-type]
    anyio.run(builder._base, builder._python)  # who comes second waits for it
    return common_folder / "base" / "envs"


@pytest.fixture(scope="session")
def docker_engine(pytestconfig: pytest.Config) -> DockerEngine:
    engine = pytestconfig.stash[ENGINE]
    if engine is None:
        _miss(f"no Docker engine answers: {ENGINE_REMEDY}")
    return engine


@pytest.fixture(scope="session")
def tiny_image(docker_engine: DockerEngine) -> str:
    """One static busybox: sh, echo, sleep and the like, and no more."""
    return _image(docker_engine, "launch-async-test/tiny:latest")


@pytest.fixture(scope="session")
def python_image(docker_engine: DockerEngine) -> str:
    return _image(docker_engine, "python:3.11-slim")


@pytest.fixture(scope="session")
def wandb_image(docker_engine: DockerEngine) -> str:
    """Python with the wandb client installed."""
    return _image(docker_engine, "launch-async-test/wandb:latest")


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Postgres:
    """A PostgreSQL that makes databases for tests."""
    found = pytestconfig.stash[POSTGRES]
    if found is None:
        _miss(f"no PostgreSQL answers: {POSTGRES_REMEDY}")
    return found


@pytest.fixture(scope="session")
def registries() -> Registries:
    """Two image registries, one open and one with a login."""
    found = find_registries()
    if found is None:
        _miss(f"no image registries answer: {REGISTRIES_REMEDY}")
    return found


@pytest.fixture(scope="session")
def object_store() -> ObjectStore:
    """One that speaks S3."""
    found = find_object_store()
    if found is None:
        _miss(f"no object store answers: {OBJECT_STORE_REMEDY}")
    return found


@pytest.fixture(scope="session")
def database(request: pytest.FixtureRequest) -> Postgres | None:
    """What the server under test keeps its data in; None is SQLite."""
    return request.getfixturevalue("postgres") if request.param == "postgres" else None


def _image(engine: DockerEngine, tag: str) -> str:
    if not engine.has_image(tag):
        _miss(f"the engine has no image {tag}: {IMAGES_REMEDY}")
    return tag


def _verdict() -> str:
    return "fail" if CI else "are skipped"


def _miss(reason: str) -> NoReturn:
    """Skips the test; in CI, where every service is owed, fails it."""
    if CI:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
