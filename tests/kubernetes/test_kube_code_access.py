"""What a pod that fetches code is given: what opens this one door, and only in the run's Secret."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from cluster_tools import Cluster
from kube_backend import KubernetesBackend

from launch_async import __version__
from launch_async.adapters.runners.kubernetes.injection import CodeFetch
from launch_async.compose.fetching import (
    ACCESS_VARIABLE,
    ORDER_VARIABLE,
    CodeContainers,
    fetch_code,
)
from launch_async.domain.errors import ConfigError, ItemError, Reason
from launch_async.domain.git import GitLogin, GitSettings
from launch_async.domain.job import ArtifactSource, GitSource
from launch_async.domain.secret import Secret
from launch_async.images.starting import START, starting, write_start
from launch_async.ports.runner import FetchedCode, ImageWork
from launch_async.testing import Play, order_for
from launch_async.testing.backends import end_of

COMMIT = "0123456789" * 4
HTTPS = GitSource(remote="https://git.example/team/code.git", commit=COMMIT)
SSH = GitSource(remote="git@git.example:team/code.git", commit=COMMIT)


def logins(tmp_path: Path) -> GitSettings:
    """Two servers' logins, and keys for ssh."""
    for name in ("one", "other", "key", "hosts", "ca"):
        (tmp_path / name).write_text(f"s3cret-{name}")
    return GitSettings(
        credentials=(
            GitLogin(host="git.example", username="me", password_file=str(tmp_path / "one")),
            GitLogin(host="other.example", username="me", password_file=str(tmp_path / "other")),
        ),
        ssh_key_file=str(tmp_path / "key"),
        known_hosts_file=str(tmp_path / "hosts"),
        ca_file=str(tmp_path / "ca"),
    )


async def fetch_of(source: Any, git: GitSettings, **environ: str) -> CodeFetch:
    containers = CodeContainers("", git, environ)
    return await containers.fetch_of(FetchedCode(source=source, installs=True, working_dir="sub"))


def access(fetch: CodeFetch) -> dict[str, str]:
    [(name, secret)] = fetch.secrets.items()
    assert name == ACCESS_VARIABLE
    return json.loads(secret.reveal())


@pytest.mark.anyio
async def test_a_pod_gets_the_login_of_the_one_server_that_it_asks(tmp_path: Path):
    fetch = await fetch_of(HTTPS, logins(tmp_path))
    assert access(fetch) == {"git_login": "me:s3cret-one", "git_ca": "s3cret-ca"}
    order = json.loads(fetch.environment[ORDER_VARIABLE])
    assert order["source"]["remote"] == HTTPS.remote
    assert order["installs"] is True
    assert "s3cret" not in repr(fetch)
    assert fetch.image == f"launch-async/agent:{__version__}"
    assert fetch.working_directory == "/mnt/wandb/sub"


@pytest.mark.anyio
async def test_a_login_of_the_job_itself_goes_first_and_is_a_secret_too(tmp_path: Path):
    source = msgspec.structs.replace(HTTPS, login=Secret("you:s3cret-own"))
    fetch = await fetch_of(source, logins(tmp_path))
    assert access(fetch)["git_login"] == "you:s3cret-own"
    assert "s3cret" not in fetch.environment[ORDER_VARIABLE]


@pytest.mark.anyio
async def test_over_ssh_it_gets_key_and_hosts_and_nothing_else(tmp_path: Path):
    fetch = await fetch_of(SSH, logins(tmp_path))
    assert access(fetch) == {"ssh_key": "s3cret-key", "known_hosts": "s3cret-hosts"}


@pytest.mark.anyio
@pytest.mark.parametrize("missing", ["ssh_key_file", "known_hosts_file"])
async def test_without_them_the_setting_is_named(missing: str, tmp_path: Path):
    git = msgspec.structs.replace(logins(tmp_path), **{missing: ""})
    with pytest.raises(ItemError, match=rf"agent\.git\.{missing}") as wrong:
        await fetch_of(SSH, git)
    assert wrong.value.reason is Reason.SOURCE_UNAVAILABLE


@pytest.mark.anyio
async def test_artifacts_need_the_runs_key_alone_and_the_apis_own_authority(tmp_path: Path):
    source = ArtifactSource(artifact_id="a", job_artifact_id="j")
    assert access(await fetch_of(source, logins(tmp_path))) == {}
    ca = tmp_path / "api.pem"
    ca.write_text("authority")
    assert access(await fetch_of(source, GitSettings(), SSL_CERT_FILE=str(ca))) == {
        "api_ca": "authority"
    }
    ca.write_text("x" * (1 << 17))  # as large as the system's own, which the image has
    assert access(await fetch_of(source, GitSettings(), SSL_CERT_FILE=str(ca))) == {}


@pytest.mark.anyio
async def test_files_that_are_too_large_for_a_variable_are_named(tmp_path: Path):
    git = logins(tmp_path)
    (tmp_path / "ca").write_text("x" * (1 << 17))
    with pytest.raises(ItemError, match=r"agent\.git\.ca_file has more than"):
        await fetch_of(HTTPS, git)


@pytest.mark.anyio
@pytest.mark.parametrize("environ", [{}, {ORDER_VARIABLE: "{"}])
async def test_the_command_alone_has_nothing_to_fetch(environ: dict[str, str], tmp_path: Path):
    with pytest.raises(ConfigError, match=ORDER_VARIABLE):
        await fetch_code(tmp_path, environ)


def test_what_is_installed_is_known_when_the_code_is_there(tmp_path: Path):
    (tmp_path / "requirements.txt").write_text("no-such-package-of-ours @ file:///nowhere\n")
    write_start(tmp_path)
    program = ("sh", "-c", "echo the program")
    started = starting(program)
    assert started[-3:] == program
    assert started[2].endswith(START)
    command = [sys.executable, "-I", tmp_path / START, *program]
    failed = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert failed.returncode == 1
    assert "could not be installed" in failed.stderr
    (tmp_path / "requirements.txt").unlink()
    write_start(tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout == "the program\n"


@pytest.mark.anyio
async def test_a_fetch_that_fails_fails_the_run_and_says_why(
    cluster: Cluster, proxy: Any, agent_image: str, namespace: str, tmp_path: Path
) -> None:
    backend = KubernetesBackend(cluster, proxy, agent_image, namespace, tmp_path)
    fetch = FetchedCode(source=ArtifactSource(artifact_id="a"))
    order = order_for(backend, Play(), environment={"WANDB_BASE_URL": "http://127.0.0.1:9"})
    work = ImageWork(image=agent_image, entrypoint=("true",), fetch=fetch)
    order = msgspec.structs.replace(order, work=work)
    async with backend.life(code=CodeContainers(agent_image, GitSettings(), {})) as runner:
        handle = await runner.launch(order)
        with anyio.fail_after(60):
            end = await end_of(runner, handle)
        assert not end.clean
        assert "launch-fetch" in end.detail
        assert "API key" in " ".join(await runner.log_tail(handle, lines=20))
        await runner.remove(handle)
