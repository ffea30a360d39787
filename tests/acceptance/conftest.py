"""Black-box tests: our programs and the unmodified wandb client, each a process of its own.

A test that takes these fixtures should be marked `acceptance`, and `docker` where containers run.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from programs import ControlPlane, Shell, program_environment

from databases import Postgres


@pytest.fixture(scope="session")
def made_environments(common_folder: Path) -> Callable[[Path], Path]:
    """Makes a state folder for an agent to which environments are not the point.

    All such agents share theirs: the first that needs one makes it, as one folder's lives do.
    """
    shared = common_folder / "environments"
    shared.mkdir(mode=0o700, exist_ok=True)

    def made(state_dir: Path) -> Path:
        state_dir.mkdir(mode=0o700, parents=True)
        (state_dir / "envs").symlink_to(shared)
        return state_dir

    return made


@pytest.fixture
def control_plane(tmp_path: Path, database: Postgres | None) -> Iterator[ControlPlane]:
    """A server of this test's own, with an empty folder and an empty database."""
    with ControlPlane.start(tmp_path / "server", database) as running:
        yield running


@pytest.fixture
def wandb_env(tmp_path: Path) -> Callable[[str, str], dict[str, str]]:
    """Makes the environment of a user who works against a server: `wandb_env(url, key)`."""

    def made(url: str, key: str) -> dict[str, str]:
        return program_environment(tmp_path / "home", url=url, key=key)

    return made


@pytest.fixture
def shell(
    tmp_path: Path,
    control_plane: ControlPlane,
    wandb_env: Callable[[str, str], dict[str, str]],
) -> Iterator[Shell]:
    """A user of `control_plane` at work: `shell.run("wandb", "status")`."""
    with ExitStack() as programs:
        env = wandb_env(control_plane.url, control_plane.key)
        yield Shell(tmp_path / "work", env=env, programs=programs)
