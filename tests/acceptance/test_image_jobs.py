"""From any job to a finished run in a container, with the real engine, registries and git."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import pytest
from agent_harness import ENDED, Fleet, RunningAgent
from image_cases import CASES, OWN, TRAIN, Case
from programs import ControlPlane, Shell, program_environment

from databases import Postgres
from git_servers import (
    SSHD,
    SSHD_REMEDY,
    HttpsServer,
    Repository,
    SshServer,
    https_server_aside,
    ssh_server_aside,
)
from registry_servers import Registries, Registry

pytestmark = [pytest.mark.acceptance, pytest.mark.docker, pytest.mark.any_database]

CONFIG = """
queues: [{{name: containers, max_jobs: 4}}]
max_jobs: -1
builder: {{base-image: "{base}"}}
agent:
  state_dir: {state_dir}
  admin: 127.0.0.1:0
  poll: 0.5
  heartbeat: 1
  registries: [{{host: "{host}", username: {username}, password_env: REGISTRY_PASSWORD}}]
  git: {{ssh_key_file: "{ssh.key_file}", known_hosts_file: "{ssh.known_hosts_file}"}}
"""
PART = uuid4().hex[:8]
"""Makes what is built here new, whatever the engine has."""


class Site:
    """A server, an agent, two git servers and two registries."""

    def __init__(
        self,
        fleet: Fleet,
        agent: RunningAgent,
        *,
        https: HttpsServer,
        ssh: SshServer,
        registries: Registries,
        base: str,
    ) -> None:
        self.fleet = fleet
        self.agent = agent
        self.https = https
        self.ssh = ssh
        self.registries = registries
        self.base = base
        self.jobs: dict[str, str] = {}

    def job(self, case: Case) -> str:
        """The case's job, made once with the real CLI; its reference."""
        if case.name not in self.jobs:
            self._make(case)
            self.jobs[case.name] = f"{self.fleet.entity}/jobs/{case.name}:latest"
        return self.jobs[case.name]

    def _make(self, case: Case) -> None:
        named = ["--project", "jobs", "--entity", self.fleet.entity, "--name", case.name]
        entry = ["--entry-point", case.entry_point, "--runtime", "3.11"]
        extra = [word.format(base=self.base) for word in case.create]
        create = ["wandb", "job", "create", *named]
        files = {path: text.replace("{base}", self.base) for path, text in case.files.items()}
        for path in case.files:  # else jobs of equal content, of earlier tests too, share an image
            files[f"{Path(path).parent}/README"] = f"{PART} {case.name}"
        match case.kind:
            case "code":
                for path, text in files.items():
                    self.fleet.shell.write(f"{case.name}/{path}", text)
                self.fleet.shell.run(*create, *entry, *extra, "code", f"./{case.name}")
            case "git":
                server = self.ssh if case.over == "ssh" else self.https
                repository = Repository(server.root, case.name)
                at = ["--git-hash", repository.commit(files)]
                source = ["git", server.remote(repository)]
                self.fleet.shell.run(*create, *entry, *extra, *at, *source, **self._users_ssh())
            case "image":
                login = case.name == "image-login"
                image = self.push(self.registries.login if login else self.registries.open)
                self.fleet.shell.run(*create, "image", image)

    def _users_ssh(self) -> dict[str, str]:
        """The user's way to the server, which the agent has none of."""
        work = self.fleet.shell.folder
        for name, path in (("key", self.ssh.key_file), ("known", self.ssh.known_hosts_file)):
            shutil.copy(path, work / name)
        return {"GIT_SSH_COMMAND": f"ssh -i {work}/key -o UserKnownHostsFile={work}/known"}

    def push(self, registry: Registry) -> str:
        """An image that runs the script, in the registry and not on the engine."""
        name = f"{registry.host}/cases/{PART}:1"
        folder = self.fleet.shell.folder / f"image-{uuid4().hex[:8]}"
        folder.mkdir()
        (folder / "train.py").write_text(TRAIN)
        text = OWN.replace("{base}", self.base) % "image" + f"LABEL a={uuid4().hex}\n"
        (folder / "Dockerfile").write_text(text + 'ENTRYPOINT ["python", "/app/train.py"]\n')
        docker("build", "-q", "-t", name, str(folder))
        config = folder / "docker-config"
        if registry.username:
            config.mkdir()
            login = ["--config", str(config), "login", "-u", registry.username, "--password-stdin"]
            docker(*login, registry.host, typed=registry.password or "")
        docker("--config", str(config), "push", name)
        docker("rmi", name)
        return name

    def launch(self, case: Case) -> str:
        """`wandb launch` of the case; the item."""
        before = set(self.fleet.items("containers"))
        words = ["--job", self.job(case), "--queue", "containers", *case.launch]
        config = ["--config", json.dumps(case.config)] if case.config else []
        target = ["--entity", self.fleet.entity, "--project", "target"]
        self.fleet.shell.run("wandb", "launch", *words, *config, *target)
        (item,) = set(self.fleet.items("containers")) - before
        return item

    def finished(self, item: str) -> list[str]:
        """What the item's run printed, once it ended well."""
        found = self.fleet.wait_for_item("containers", item, ENDED, within_seconds=300)
        assert found["state"] == "FINISHED", found
        run = self.fleet.run(found["associatedRunId"], "target")
        assert run is not None
        assert run["state"] == "finished"
        assert json.loads(run["summaryMetrics"])["lr_used"] == 0.1
        return [edge["node"]["line"].strip() for edge in run["logLines"]["edges"]]

    def builds(self) -> int:
        """Builds that this agent did so far, as its log tells."""
        return self.agent.program.output.count('"event": "image build started"')


def docker(*words: str, typed: str = "") -> str:
    done = subprocess.run(
        ["docker", *words],
        input=typed,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    database: Postgres | None,
    registries: Registries,
    wandb_image: str,
    miss: Callable[[str], NoReturn],
) -> Iterator[Site]:
    if SSHD is None:
        miss(f"no sshd: {SSHD_REMEDY}")
    folder = tmp_path_factory.mktemp("images")
    with (
        ControlPlane.start(folder / "server", database) as control_plane,
        https_server_aside(folder / "https") as https,
        ssh_server_aside(folder / "ssh") as ssh,
        ExitStack() as programs,
    ):
        env = program_environment(folder / "home", url=control_plane.url, key=control_plane.key)
        env |= {"GIT_SSL_CAINFO": str(https.ca_file)}
        env |= {"REGISTRY_PASSWORD": registries.login.password or ""}
        fleet = Fleet(control_plane, Shell(folder / "work", env=env, programs=programs))
        fleet.make_queue("containers", "local-container")
        config = CONFIG.format(
            base=wandb_image,
            state_dir=folder / "state",
            host=registries.login.host,
            username=registries.login.username,
            ssh=ssh,
        )
        with fleet.agent(config) as agent:
            yield Site(fleet, agent, https=https, ssh=ssh, registries=registries, base=wandb_image)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_job_becomes_a_finished_run_and_its_second_launch_builds_nothing(site: Site, case: Case):
    before = site.builds()
    assert case.prints in site.finished(site.launch(case))
    assert site.builds() - before == case.builds
    assert case.prints in site.finished(site.launch(case))
    assert site.builds() - before == case.builds
