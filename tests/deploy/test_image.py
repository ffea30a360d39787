"""The agent's image: what its Dockerfile promises, and that it can be built where there is pip."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from build_tools import one_at_a_time
from launch_async import __version__

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
BUILD_SECONDS = 400.0
IMAGE = "launch-async-test/agent:latest"


def instructions(name: str) -> list[str]:
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    return re.findall(rf"^{name}\s+(.*)$", text, re.MULTILINE)


def test_the_image_is_made_in_two_stages_and_runs_as_nobody_special():
    assert len(instructions("FROM")) == 2
    assert all(base.startswith("python:3.11-slim") for base in instructions("FROM"))
    (user,) = instructions("USER")
    assert int(user) > 0


def test_only_what_the_package_is_made_of_gets_into_the_build():
    kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"]
    assert kept == ["!pyproject.toml", "!README.md", "!LICENSE", "!src"]


def test_the_health_check_asks_the_agent_that_the_image_starts():
    (command,) = instructions("CMD")
    (check,) = instructions("HEALTHCHECK")
    file = json.loads(command)[1]
    words = json.loads(check.partition(" CMD ")[2])
    assert words == ["launch-async", "agent", "-c", file, "status", "--check", "livez"]


def docker(*arguments: str, within_seconds: float = 60.0) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        timeout=within_seconds,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.docker
@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command here")
def test_the_image_is_built_and_its_agent_needs_no_rights(python_image: str):
    assert python_image == "python:3.11-slim"
    with one_at_a_time("agent-image"):  # tests of clusters build it too
        docker("build", "-q", "-f", str(DOCKERFILE), "-t", IMAGE, ".", within_seconds=BUILD_SECONDS)
    run = ["run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"]
    assert __version__ in docker(*run, "--entrypoint", "launch-async", IMAGE, "--version")
    shown = docker(*run, "--entrypoint", "sh", IMAGE, "-c", "id -u; stat -c %U $HOME")
    assert shown.split() == ["10001", "launch"]
    checked = docker(
        *run,
        "-e", "WANDB_API_KEY=" + "k" * 40,
        IMAGE,
        "-q", "q", "-c", "/etc/launch-async/launch-config.yaml", "--check-config",
    )  # fmt: skip
    assert "/var/lib/launch-async/agent" in checked
