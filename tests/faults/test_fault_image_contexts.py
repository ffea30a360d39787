"""What jobs bring along: names that mean something to somebody, links out, and gigabytes."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from agent_harness import Fleet
from fault_harness import Life, Site, run
from image_faults import (
    CODE_3,
    LOCAL,
    PART,
    create_job,
    direct,
    launch,
    leftovers,
    remove_images,
    tags_of,
)

from git_servers import HttpsServer, Repository, https_server_aside

pytestmark = pytest.mark.docker

LARGE_MB = 200
GROWTH_MB = 48
NAMES = [
    *("-rf", "--help", "..a", "...", " lead", "a\\b", "$(touch x)", "`id`", "two\nlines", "ü", "*"),
    os.fsdecode(b"caf\xe9"),
    "n" * 250,
]
LINKS = {"passwd": "/etc/passwd", "up": "../../../../etc", "loop": "loop", "gone": "no/where"}


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    with https_server_aside(tmp_path_factory.mktemp("git")) as server:
        yield server


@pytest.fixture(autouse=True)
def swept(site: Site) -> Iterator[None]:
    yield
    remove_images(site)


def test_hostile_names_and_links_reach_the_image_as_they_are_and_nothing_else_does(
    site: Site, user: Fleet, git: HttpsServer, tiny_image: str
):
    repository = Repository(git.root, "hostile")
    folder = repository.work / "deep"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(name[:1])
    for name, target in LINKS.items():
        (folder / name).symlink_to(target)
    (repository.work / "Dockerfile.launch-async").symlink_to("/etc/passwd")
    recipe = f"FROM {tiny_image}\nCOPY . /ctx/\nWORKDIR /ctx\n"
    files = {"Dockerfile.own": recipe, "main.sh": "echo ran\nexit 3\n", "part": PART}
    commit = repository.commit(files)
    trust = {"GIT_SSL_CAINFO": str(git.ca_file)}
    remote = git.remote(repository)
    job = create_job(user, "hostile", "git", remote, "--git-hash", commit, **trust)
    queue = site.queue("local-container")
    with site.agent(queue, env=direct(site) | trust) as life:
        assert CODE_3 in site.end_of(launch(site, queue, "own", job))["message"]
        life.settled()
        [tag] = tags_of(site)
        found = files_in(f"{LOCAL}:{tag}", "/ctx/deep")
        assert {name for name, link in found.items() if link is None} == set(NAMES)
        assert {name: link for name, link in found.items() if link is not None} == LINKS
        assert leftovers(site) == []


def files_in(image: str, folder: str) -> dict[str, str | None]:
    """Names, and targets of links, in a folder of an image."""
    container = run("docker", "create", "--network", "none", image, "true").strip()
    try:
        copy = ["docker", "cp", f"{container}:{folder}", "-"]
        archive = subprocess.run(copy, check=True, capture_output=True).stdout
    finally:
        run("docker", "rm", container)
    with tarfile.open(fileobj=BytesIO(archive), errors="surrogateescape") as opened:
        members = [one for one in opened.getmembers() if "/" in one.name.rstrip("/")]
    return {one.name.partition("/")[2]: one.linkname if one.issym() else None for one in members}


@pytest.fixture
def large_job(user: Fleet, tiny_image: str) -> Iterator[str]:
    recipe = f"FROM {tiny_image}\nCOPY . /code/\nWORKDIR /code\n"
    for path, text in {"Dockerfile.own": recipe, "main.sh": "exit 3\n", "part": PART}.items():
        folder = user.shell.write(f"gigabytes/{path}", text).parent
    with (folder / "large").open("wb") as file:
        file.truncate(LARGE_MB * 10**6)
    yield create_job(user, "large", "code", "./gigabytes")
    shutil.rmtree(folder)


def test_a_large_context_is_never_in_memory(site: Site, large_job: str):
    """200 MB here; benchmarks/image_builds.py sends 1 GB."""
    queue = site.queue("local-container")
    with site.agent(queue, env=direct(site)) as life:
        assert CODE_3 in site.end_of(launch(site, queue, "other"))["message"]
        before = peak_mb(life)
        assert CODE_3 in site.end_of(launch(site, queue, "own", large_job))["message"]
        assert peak_mb(life) - before < GROWTH_MB
        life.settled()
    assert leftovers(site) == []
    shutil.rmtree(site.state_dir / "sources")


def peak_mb(life: Life) -> float:
    status = Path(f"/proc/{life.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024
