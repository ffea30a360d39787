"""Jobs that are not built, from the push to the finished run: their pods fetch the code."""

import base64
import json
import shutil
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import anyio
import anyio.abc
import pytest
import yaml
from anyio.from_thread import start_blocking_portal
from cluster_tools import Cluster, NewNamespace, wait_until
from kube_fleet import KubeFleet, job_args, kube_fleet
from relay import relay

from git_servers import (
    SSHD,
    SSHD_REMEDY,
    HttpsServer,
    Repository,
    SshServer,
    https_server_aside,
    ssh_server_aside,
)

pytestmark = pytest.mark.acceptance

ENDED = {"FINISHED", "FAILED", "STOPPED"}
SCRIPT = """\
import os, wandb
with wandb.init():
    print("ran in", os.getcwd(), "as", os.getuid())
    open("written-by-the-run", "w").close()
    print("as committed")
"""
PASSWORD = "g1t-pa55word-of-the-operator"


@pytest.fixture(scope="module")
def fleet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeFleet]:
    with kube_fleet(tmp_path_factory.mktemp("kube"), cluster) as made:
        yield made


@pytest.fixture
def git(tmp_path: Path) -> Iterator[HttpsServer]:
    with https_server_aside(tmp_path / "https") as server:
        yield server


@pytest.fixture
def ssh(tmp_path: Path, miss: Callable[[str], NoReturn]) -> Iterator[SshServer]:
    if SSHD is None:
        miss(f"no sshd: {SSHD_REMEDY}")
    with ssh_server_aside(tmp_path / "ssh") as server:
        yield server


def unbuilt(
    fleet: KubeFleet, namespace: str, folder: Path, *, image: str, base: str, **agent: Any
) -> str:
    """The configuration of an agent that builds nothing."""
    config = yaml.safe_load(fleet.config(namespace, folder, **agent))
    config["agent"]["kubernetes"]["code_image"] = image
    return yaml.safe_dump(config | {"builder": {"type": "noop", "base-image": base}})


def finished(fleet: KubeFleet, queue: str, item: str) -> list[str]:
    """What the item's run printed."""
    ended = fleet.wait_for_item(queue, item, ENDED, within_seconds=150)
    assert ended["state"] == "FINISHED", ended
    run = fleet.run(ended["associatedRunId"])
    assert run is not None
    assert run["state"] == "finished"
    return [edge["node"]["line"].strip() for edge in run["logLines"]["edges"]]


def said_of(fleet: KubeFleet, namespace: str) -> str:
    """All that the cluster shows of the run, but for its Secrets."""
    jobs = fleet.cluster.get(f"/apis/batch/v1/namespaces/{namespace}/jobs")
    events = fleet.cluster.get(f"/api/v1/namespaces/{namespace}/events")
    return json.dumps([jobs, fleet.cluster.pods(namespace), events])


@asynccontextmanager
async def _forwarding(host: str, url: str) -> AsyncGenerator[str, None]:
    async with (
        await anyio.create_tcp_listener(local_host=host) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, lambda client: relay(client, url))
        own = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - no database's
        yield f"http://{host}:{own}"
        tasks.cancel_scope.cancel()


@contextmanager
def reachable(cluster: Cluster, url: str) -> Generator[str]:
    """The server, under an address that pods with a network of their own reach."""
    assert cluster.host is not None
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_forwarding(cluster.host, url)) as address,
    ):
        yield address


def test_an_artifact_job_runs_unbuilt_where_pods_are_restricted(
    fleet: KubeFleet,
    new_namespace: NewNamespace,
    agent_image: str,
    cluster_wandb_image: str,
    tmp_path: Path,
) -> None:
    namespace = new_namespace(pod_security="restricted")
    job = fleet.make_code_job("unbuilt", SCRIPT, "wandb==0.31.*\n")
    config = unbuilt(
        fleet, namespace, tmp_path / "state", image=agent_image, base=cluster_wandb_image
    )
    with reachable(fleet.cluster, fleet.control_plane.url) as address:
        env = [{"name": "WANDB_BASE_URL", "value": address}, {"name": "HOME", "value": "/tmp"}]  # noqa: S108
        pod = {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 4321},
            "containers": [{"env": env}],
        }
        args = {"metadata": {"namespace": namespace}, "spec": {"template": {"spec": pod}}}
        queue = fleet.make_kube_queue(namespace, args)
        with fleet.agent(config):
            item = fleet.push(queue, job=job)
            printed = finished(fleet, queue, item)
    assert "ran in /mnt/wandb as 4321" in printed
    assert not list((tmp_path / "state" / "sources").glob("*"))
    [pod] = fleet.cluster.pods(namespace)
    log = fleet.cluster.logs(pod["metadata"]["name"], namespace)
    assert "Requirement already satisfied: wandb" in log
    assert fleet.control_plane.key not in said_of(fleet, namespace)


def test_a_private_git_job_runs_unbuilt_with_what_was_not_committed(
    fleet: KubeFleet,
    namespace: str,
    *,
    agent_image: str,
    cluster_wandb_image: str,
    git: HttpsServer,
    tmp_path: Path,
) -> None:
    fleet.shell.env["GIT_SSL_CAINFO"] = str(git.ca_file)
    repository = Repository(git.root, "code")
    repository.commit({"sub/train.py": SCRIPT, "requirements.txt": "wandb==0.31.*\n"})
    fleet.shell.run("git", "clone", "--quiet", git.remote(repository), "checkout")
    fleet.shell.write("checkout/sub/train.py", SCRIPT.replace("as committed", "as changed"))
    fleet.shell.run(
        *("env", "-C", "checkout", "python", "sub/train.py"),
        WANDB_DISABLE_JOB_CREATION="false",
        WANDB_JOB_NAME="changed",
        WANDB_PROJECT="jobs",
    )
    git.login = f"operator:{PASSWORD}"
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    host = urlsplit(git.url).netloc
    login = {"host": host, "username": "operator", "password_file": str(password)}
    config = unbuilt(
        fleet,
        namespace,
        tmp_path / "state",
        image=agent_image,
        base=cluster_wandb_image,
        git={"credentials": [login], "ca_file": str(git.ca_file)},
    )
    queue = fleet.make_kube_queue(namespace, job_args(namespace))
    with fleet.agent(config) as agent:
        item = fleet.push(queue, job=f"{fleet.entity}/jobs/changed:latest")
        printed = finished(fleet, queue, item)
        secrets = f"/api/v1/namespaces/{namespace}/secrets"
        wait_until(lambda: not fleet.cluster.get(secrets)["items"])
        told = agent.program.output
    assert "as changed" in printed
    shown = said_of(fleet, namespace) + told
    for secret in (PASSWORD, base64.b64encode(PASSWORD.encode()).decode()):
        assert secret not in shown


def test_a_git_job_over_ssh_runs_unbuilt_with_the_key_in_its_jobs_secret_alone(
    fleet: KubeFleet,
    namespace: str,
    *,
    agent_image: str,
    cluster_wandb_image: str,
    ssh: SshServer,
    tmp_path: Path,
) -> None:
    repository = Repository(ssh.root, "code")
    script = f"{SCRIPT}    print('knows', *(name for name in os.environ if 'CODE' in name))\n"
    repository.commit({"train.py": script, "requirements.txt": "wandb==0.31.*\n"})
    make = ["wandb", "job", "create", "--project", "jobs", "--entity", fleet.entity]
    make += ["--name", "over-ssh", "--git-hash", "main", "--entry-point", "python train.py"]
    for name, path in (("key", ssh.key_file), ("known", ssh.known_hosts_file)):
        shutil.copy(path, tmp_path / name)  # the user's way there, which the agent has none of
    users_ssh = f"ssh -i {tmp_path}/key -o UserKnownHostsFile={tmp_path}/known"
    fleet.shell.run(*make, "git", ssh.remote(repository), GIT_SSH_COMMAND=users_ssh)
    settings = {"ssh_key_file": ssh.key_file, "known_hosts_file": ssh.known_hosts_file}
    config = unbuilt(
        fleet,
        namespace,
        tmp_path / "state",
        image=agent_image,
        base=cluster_wandb_image,
        git={name: str(path) for name, path in settings.items()},
    )
    key = ssh.key_file.read_text().splitlines()[2]
    queue = fleet.make_kube_queue(namespace, job_args(namespace))
    with fleet.agent(config) as agent:
        item = fleet.push(queue, job=f"{fleet.entity}/jobs/over-ssh:latest")
        secrets = f"/api/v1/namespaces/{namespace}/secrets"
        [secret] = wait_until(
            lambda: fleet.cluster.get(secrets)["items"], what=lambda: agent.program.output
        )
        printed = finished(fleet, queue, item)
        wait_until(lambda: not fleet.cluster.get(secrets)["items"])
        told = agent.program.output
    assert "as committed" in printed
    assert "knows" in printed, "the run itself was given how its code was fetched"
    assert [owner["kind"] for owner in secret["metadata"]["ownerReferences"]] == ["Job"]
    held = [name for name, at in secret["data"].items() if key in base64.b64decode(at).decode()]
    assert held == ["fetch.LAUNCH_ASYNC_CODE_ACCESS"]
    assert key not in said_of(fleet, namespace) + told
