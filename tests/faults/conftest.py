"""Rows of the fault catalogue with real parts: server, agent, processes, engine (docs/faults.md).

One server and one job serve all tests of the folder; queues, proxies and the agent's state folder
are a test's own.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "acceptance"))
sys.path.insert(0, str(TESTS.parent / "benchmarks"))

from agent_harness import Fleet  # noqa: E402
from fault_harness import PLAY, SLOW, Site, write_slow_thing  # noqa: E402
from image_faults import files_of, make_job  # noqa: E402
from programs import ControlPlane, Shell, program_environment  # noqa: E402
from proxy import Proxy  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "site" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.acceptance)


@pytest.fixture(scope="session")
def fault_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """On SQLite: the faults are the agent's to bear, and leases are moved in the file."""
    with ControlPlane.start(tmp_path_factory.mktemp("faults") / "server") as running:
        yield running


@pytest.fixture(scope="session")
def user(fault_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("user")
    env = program_environment(folder / "home", url=fault_plane.url, key=fault_plane.key)
    with ExitStack() as programs:
        yield Fleet(fault_plane, Shell(folder / "work", env=env, programs=programs))


@pytest.fixture(scope="session")
def play_job(user: Fleet) -> str:
    return user.make_code_job("play", PLAY)


@pytest.fixture(scope="session")
def slow_job(user: Fleet, tmp_path_factory: pytest.TempPathFactory) -> str:
    thing = write_slow_thing(tmp_path_factory.mktemp("thing") / "slow_thing")
    return user.make_code_job("slow", SLOW, requirements=f"{thing}\n")


@pytest.fixture(scope="session")
def image_job(user: Fleet, tiny_image: str) -> str:
    return make_job(user, "images", files_of(tiny_image))


@pytest.fixture(scope="session")
def twin_job(user: Fleet, tiny_image: str) -> str:
    """Another job, of the same content."""
    return make_job(user, "images-twin", files_of(tiny_image))


@pytest.fixture
def site(
    tmp_path: Path, fault_plane: ControlPlane, request: pytest.FixtureRequest
) -> Iterator[Site]:
    ask: Callable[[str], str | Path] = request.getfixturevalue
    port = int(fault_plane.url.rsplit(":", 1)[1])
    with ExitStack() as stack:
        api = stack.enter_context(Proxy(("127.0.0.1", port)).running())
        env = program_environment(
            tmp_path / "home", url=f"http://localhost:{api.port}", key=fault_plane.key
        )
        engine = None
        if request.node.get_closest_marker("docker"):
            path = request.getfixturevalue("docker_engine").socket_path
            engine = stack.enter_context(Proxy(path).running())
            env["DOCKER_HOST"] = f"tcp://127.0.0.1:{engine.port}"
        shell = Shell(tmp_path / "work", env=env, programs=stack)
        made = Site(Fleet(fault_plane, shell), folder=tmp_path, api=api, engine=engine, ask=ask)
        stack.callback(made.clean_up)
        yield made
