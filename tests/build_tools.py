"""The programs and the daemon that builders need, from scripts/buildx and scripts/buildkit."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "launch-async-ci"
BUILDX_REMEDY = "get it with scripts/buildx"
BUILDKIT_REMEDY = "start one with `make buildkit-up` (root)"


class Buildkit(msgspec.Struct, frozen=True):
    """A buildkitd on this machine, and the folder of its programs."""

    address: str
    programs: Path

    @property
    def buildctl(self) -> str:
        return str(self.programs / "buildctl")


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """What takes long and leaves its result in a cache is not done by two processes at once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_buildx() -> Path | None:
    """Return the folder to give Docker as DOCKER_CONFIG, so that it has buildx."""
    usual = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    for folder in (usual, CACHE / "buildx"):
        environment = {**os.environ, "DOCKER_CONFIG": str(folder)}
        command = ["docker", "buildx", "version"]
        if (
            subprocess.run(command, env=environment, capture_output=True, check=False).returncode
            == 0
        ):
            return folder
    return None


def find_buildkit() -> Buildkit | None:
    """Return the daemon that tests may use, if it answers."""
    address = _said("status")
    programs = address and _said("programs")
    return Buildkit(address, Path(programs)) if address and programs else None


def _said(verb: str) -> str:
    command = [ROOT / "scripts/buildkit", verb]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
