"""Secrets that a build needs, or that lie near it, are looked for wherever they would stay."""

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from agent_harness import Fleet
from fault_harness import Site, run
from image_faults import (
    CODE_3,
    NAPS,
    PART,
    command_lines,
    create_job,
    direct,
    launch,
    leftovers,
    remove_images,
    tagged,
    tags_of,
)
from registry_gate import USERNAME, RegistryGate, registry_gate

from build_tools import find_buildx
from git_servers import HttpsServer, Repository, https_server_aside
from registry_servers import Registries

pytestmark = pytest.mark.docker

REGISTRY, GIT, QUEUE = (f"planted-{name}-{PART}" for name in ("registry", "git", "queue"))
RECIPE = """\
FROM BASE
COPY . /code/
WORKDIR /code
RUN env; sleep 1.NAP
"""


class Vault(NamedTuple):
    """A git server and a registry, each behind a planted password."""

    git: HttpsServer
    gate: RegistryGate
    base: str
    """The tiny image, which only the gate's login gets; the engine has it under no such name."""


@pytest.fixture
def vault(tmp_path: Path, registries: Registries, tiny_image: str) -> Iterator[Vault]:
    repository = f"faults/base-{PART}"
    name = f"{registries.open.host}/{repository}:1"
    run("docker", "tag", tiny_image, name)
    run("docker", "push", "--quiet", name)
    run("docker", "rmi", name)
    with (
        https_server_aside(tmp_path / "https") as git,
        registry_gate(registries.open, REGISTRY) as gate,
    ):
        yield Vault(git, gate, f"{gate.host}/{repository}:1")


@contextmanager
def all_command_lines() -> Iterator[set[str]]:
    """Of all that runs on this machine while the block does."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            seen.update(command_lines())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join(10)


@pytest.mark.parametrize("buildx", ["never", "always"])
def test_no_secret_is_in_an_image_an_argument_a_log_a_label_or_a_bundle(
    site: Site, user: Fleet, vault: Vault, buildx: str, miss
):
    gate = vault.gate
    job = private_job(user, vault, f"private-{buildx}")
    destination = f"{gate.host}/faults/{site.identity}"
    builder = {"destination": destination, "buildx": buildx}
    env = direct(site) | {"GIT_SSL_CAINFO": str(vault.git.ca_file)}
    if buildx == "always":
        env["DOCKER_CONFIG"] = str(find_buildx() or miss("no docker buildx: see scripts/buildx"))
    queue = site.queue("local-container")
    with (
        all_command_lines() as arguments,
        site.events() as events,
        tagged() as images,
        site.agent(queue, section=logins(site, vault), env=env, builder=builder) as life,
    ):
        item = launch(site, queue, "own", job, env={"QUEUE": QUEUE})
        ended = site.end_of(item)
        assert CODE_3 in ended["message"]
        life.settled()
    [tag] = tags_of(site)
    image = f"{destination}:{tag}"
    secrets = spellings(site, vault)
    assert any("sleep" in line for line in arguments)
    seen = {
        "arguments": "\n".join(arguments),
        "output": life.program.output,
        "history": run("docker", "history", "--no-trunc", image),
        "image": run("docker", "image", "inspect", image),
        "message": json.dumps(ended),
        "labels": str([event.facts for event in (*events.seen, *images.seen)]),
    }
    for place, text in seen.items():
        assert secrets_in(text.encode(), secrets) == [], place
    saved = subprocess.run(["docker", "save", image], check=True, capture_output=True).stdout
    assert PART.encode() in saved
    assert secrets_in(saved, secrets) == []
    kept = [path for path in site.state_dir.rglob("*") if path.is_file()]
    assert site.state_dir / "bundles" / item / "build.log" in kept
    for path in kept:
        # The journal keeps what open items ask for, for the agent's user alone.
        spec = {"queue"} if path.name.startswith("journal.sqlite") else set()
        assert set(secrets_in(path.read_bytes(), secrets)) <= spec, path
    assert leftovers(site) == []
    remove_images(site, destination)


def private_job(user: Fleet, vault: Vault, name: str) -> str:
    """A git job; from now on its code wants a login too."""
    recipe = RECIPE.replace("BASE", vault.base).replace("NAP", NAPS["c"].partition(".")[2])
    files = {"main.sh": "echo ran\nexit 3\n", "part": PART + name, "Dockerfile.own": recipe}
    repository = Repository(vault.git.root, name)
    commit = repository.commit(files)
    words = ["git", vault.git.remote(repository), "--git-hash", commit]
    job = create_job(user, name, *words, GIT_SSL_CAINFO=str(vault.git.ca_file))
    vault.git.login = f"{USERNAME}:{GIT}"
    return job


def logins(site: Site, vault: Vault) -> dict[str, Any]:
    """The agent's, with the passwords in files beside its state."""
    code = {"host": f"127.0.0.1:{vault.git.port}", "username": USERNAME}
    images = {"host": vault.gate.host, "username": USERNAME}
    for login, secret in ((code, GIT), (images, REGISTRY)):
        path = site.folder / f"password of {login['host']}"
        path.write_text(secret)
        login["password_file"] = str(path)
    return {"git": {"credentials": [code]}, "registries": [images]}


def spellings(site: Site, vault: Vault) -> dict[str, bytes]:
    """Each secret as it is, and as logins are sent."""
    known = {"key": site.fleet.control_plane.key, "registry": REGISTRY, "git": GIT, "queue": QUEUE}
    spelled = {name: text.encode() for name, text in known.items()}
    for name in ("registry", "git"):
        login = f"{USERNAME}:{known[name]}".encode()
        spelled[f"{name}, sent"] = base64.b64encode(login).rstrip(b"=")
    return spelled


def secrets_in(content: bytes, secrets: dict[str, bytes]) -> list[str]:
    return [name for name, secret in secrets.items() if secret in content]
