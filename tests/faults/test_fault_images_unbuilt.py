"""Code that runs in a base image as it is: an agent that builds nothing, from job to run."""

from pathlib import Path

import pytest
from agent_harness import Fleet
from fault_harness import Site, write_slow_thing
from image_faults import PART, direct, launch, make_job

pytestmark = pytest.mark.docker

SCRIPT = """
import os, sys
from slow_thing import WORDS
open("written", "w").close()
print(WORDS, "in", os.getcwd(), sys.argv[1:])
sys.exit(3)
"""


@pytest.fixture(scope="module")
def unbuilt_job(user: Fleet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its requirement is a package in its code, which needs no index."""
    thing = write_slow_thing(tmp_path_factory.mktemp("unbuilt") / "slow_thing")
    packaged = {f"thing/{path.name}": path.read_text() for path in thing.iterdir()}
    files = {"main.py": SCRIPT, "part": PART, "requirements.txt": "./thing\n"} | packaged
    return make_job(user, "unbuilt", files, "--entry-point", "python main.py")


def test_without_builds_requirements_are_installed_when_the_run_starts(
    site: Site, unbuilt_job: str, python_image: str
):
    queue = site.queue("local-container")
    builder = {"type": "noop", "base-image": python_image}
    gate = {"PIP_FAULTS_GATE": "/dev/null"}
    with site.agent(queue, env=direct(site), builder=builder) as life:
        items = [launch(site, queue, "", unbuilt_job, env=gate) for _ in range(2)]
        for item in items:
            ended = site.end_of(item)
            assert "exited with code 3" in ended["message"]
            assert "slow words in /mnt/wandb []" in ended["message"]
        named = site.end_of(launch(site, queue, "own", unbuilt_job))
        assert "builds no images" in named["message"]
        life.settled()
    assert not list(Path(site.state_dir, "builds").glob("staged/*/*"))
    [code] = (site.state_dir / "sources").glob("*/code")
    assert not (code / "written").exists()
