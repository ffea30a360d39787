"""Logins from `config.json` as Docker, podman and their credential helpers leave them."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from known_logins import PLANTED, everything_said

from launch_async.adapters.registries.docker_config import DockerConfigLogins
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.image import ImageRef
from launch_async.kit.procs import group_members
from launch_async.wire.docker_config import IDENTITY_TOKEN_USER

pytestmark = pytest.mark.anyio

APP = ImageRef.parse("registry.example.com:5000/team/app:1")
HUB = ImageRef.parse("python:3.11")
Logged = Callable[..., DockerConfigLogins]


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    """Make the logins of a configuration, with helpers by name, as shell scripts."""

    def make(content: Any, *, helpers: dict[str, str] | None = None, **more: float):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "config.json").write_text(text)
        for name, script in (helpers or {}).items():
            program = tmp_path / f"docker-credential-{name}"
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        environ = {"DOCKER_CONFIG": str(tmp_path), "PATH": path, "FOLDER": str(tmp_path)}
        return DockerConfigLogins(environ, **more)

    return make


def entry(text: str = f"agent:{PLANTED}") -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


async def found(logins: DockerConfigLogins, image: ImageRef = APP) -> tuple[str, str] | None:
    login = await logins.login(image)
    return None if login is None else (login.username, login.password.reveal())


@pytest.mark.parametrize(
    "key",
    [
        "registry.example.com:5000",
        "https://registry.example.com:5000",
        "https://registry.example.com:5000/v1/",
        "http://registry.example.com:5000/v2/",
        "registry.example.com:5000/",
        "registry.example.com:5000/team",
        "registry.example.com:5000/team/app",
    ],
)
async def test_a_password_is_found_by_its_registry(logged, key):
    assert await found(logged({"auths": {key: entry()}})) == ("agent", PLANTED)


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io"])
async def test_docker_hub_has_several_names(logged, key):
    logins = logged({"auths": {key: entry()}})
    assert await found(logins, HUB) == ("agent", PLANTED)
    assert await found(logins) is None


@pytest.mark.parametrize(
    "key", ["registry.example.com", "example.com:5000", "registry.example.com:5000/team/ap"]
)
async def test_another_registrys_login_is_not_taken(logged, key):
    assert await found(logged({"auths": {key: entry()}})) is None


async def test_the_entry_of_the_repository_says_more_than_that_of_the_host(logged):
    auths = {
        "registry.example.com:5000": entry("all:one"),
        "registry.example.com:5000/team": entry("team:two"),
        "registry.example.com:5000/other": entry("other:three"),
    }
    assert await found(logged({"auths": auths})) == ("team", "two")


async def test_a_password_may_hold_colons_and_any_letter(logged):
    assert await found(logged({"auths": {APP.host: entry("agent:a:ü:")}})) == ("agent", "a:ü:")


async def test_user_and_password_may_stand_in_the_open(logged):
    auths = {APP.host: {"username": "agent", "password": PLANTED}}
    assert await found(logged({"auths": auths})) == ("agent", PLANTED)


async def test_an_identity_token_goes_before_the_password(logged):
    auths = {APP.host: {**entry("agent:"), "identitytoken": "refresh"}}
    assert await found(logged({"auths": auths})) == (IDENTITY_TOKEN_USER, "refresh")


@pytest.mark.parametrize("content", ["{}", '{"auths": null}', {"auths": {APP.host: {}}}])
async def test_no_entry_is_no_login(logged, content):
    assert await found(logged(content)) is None


async def test_no_file_is_no_login(tmp_path):
    assert await found(DockerConfigLogins({"DOCKER_CONFIG": str(tmp_path / "none")})) is None


async def test_a_login_made_meanwhile_is_found(logged):
    logins = logged({"auths": {}})
    assert await found(logins) is None
    logged({"auths": {APP.host: entry()}})
    assert await found(logins) == ("agent", PLANTED)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        f'{{"auths": {{"a": "{PLANTED}"}}}}',
        {"auths": {APP.host: {"auth": "not base64!"}}},
        {"auths": {APP.host: entry(PLANTED)}},
        {"auths": {APP.host: {"registrytoken": PLANTED}}},
    ],
)
async def test_a_broken_file_is_said_and_not_shown(logged, content):
    with pytest.raises(ItemError) as caught:
        await found(logged(content))
    assert caught.value.reason is Reason.REGISTRY_DENIED
    assert APP.host in str(caught.value)
    assert PLANTED not in everything_said(caught.value)


KEEPS = f"""
read host
echo "$* $host" >> "$FOLDER/asked"
echo '{{"ServerURL": "x", "Username": "agent", "Secret": "{PLANTED}"}}'
"""


def asked(logins_folder: Path) -> list[str]:
    return (logins_folder / "asked").read_text().splitlines()


async def test_a_helper_is_asked_on_its_stdin_and_not_at_each_use(logged, tmp_path):
    logins = logged({"credHelpers": {APP.host: "keeps"}}, helpers={"keeps": KEEPS})
    assert await found(logins) == ("agent", PLANTED)
    assert await found(logins) == ("agent", PLANTED)
    assert asked(tmp_path) == [f"get {APP.host}"]
    assert await found(logins, HUB) is None


async def test_a_store_has_all_logins_and_docker_hubs_under_its_old_name(logged, tmp_path):
    logins = logged({"credsStore": "keeps"}, helpers={"keeps": KEEPS})
    assert await found(logins, HUB) == ("agent", PLANTED)
    assert asked(tmp_path) == ["get https://index.docker.io/v1/"]


async def test_a_registrys_own_helper_goes_before_the_store(logged):
    config = {"credHelpers": {APP.host: "keeps"}, "credsStore": "broken"}
    logins = logged(config, helpers={"keeps": KEEPS, "broken": "exit 1"})
    assert await found(logins) == ("agent", PLANTED)


async def test_many_askers_are_one_question_to_a_helper(logged, tmp_path):
    logins = logged({"credsStore": "keeps"}, helpers={"keeps": KEEPS})
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(found, logins)
    assert len(asked(tmp_path)) == 1


async def test_what_a_helper_does_not_know_may_stand_in_the_file(logged):
    script = "echo 'credentials not found in native keychain'; exit 1"
    config = {"credsStore": "empty", "auths": {APP.host: entry()}}
    assert await found(logged(config, helpers={"empty": script})) == ("agent", PLANTED)
    config = {"credsStore": "empty", "auths": {APP.host: {}}}
    assert await found(logged(config, helpers={"empty": script})) is None


async def test_a_helpers_identity_token_is_known_as_such(logged):
    script = """echo '{"ServerURL": "x", "Username": "<token>", "Secret": "refresh"}'"""
    logins = logged({"credsStore": "keeps"}, helpers={"keeps": script})
    assert await found(logins) == (IDENTITY_TOKEN_USER, "refresh")


async def test_a_helper_that_is_not_there_is_named(logged):
    with pytest.raises(ItemError, match="docker-credential-missing cannot be run"):
        await found(logged({"credsStore": "missing"}))


@pytest.mark.parametrize("name", ["../x", "a/b", "-x", "", "a b", "$(x)"])
async def test_a_helper_is_no_path_and_no_command(logged, name):
    config = {"credHelpers": {APP.host: name}, "auths": {APP.host: entry()}}
    if name == "":
        assert await found(logged(config)) == ("agent", PLANTED)
        return
    with pytest.raises(ItemError, match="no name of a helper"):
        await found(logged(config))


@pytest.mark.parametrize(
    "script",
    [
        f"echo {PLANTED}; exit 1",
        f"""echo '{{"Username": "agent", "Secret": "{PLANTED}"'""",
        f"""echo '{{"Username": "agent", "Secret": "{PLANTED}"}}'; exit 3""",
        f"yes {PLANTED}",
        "true",
    ],
)
async def test_a_helper_that_fails_is_named_and_its_words_are_not_shown(logged, script):
    with pytest.raises(ItemError, match="docker-credential-odd") as caught:
        await found(logged({"credsStore": "odd"}, helpers={"odd": script}))
    assert PLANTED not in everything_said(caught.value)


async def test_a_helper_that_hangs_is_ended_with_its_children(logged, tmp_path):
    script = 'echo $$ > "$FOLDER/pid"; sleep 300 & sleep 300'
    logins = logged({"credsStore": "slow"}, helpers={"slow": script}, helper_timeout_seconds=1.0)
    with anyio.fail_after(20), pytest.raises(Unavailable, match="did not answer in 1 s"):
        await found(logins)
    group = int((tmp_path / "pid").read_text())
    with anyio.fail_after(10):
        while group_members(group):
            await anyio.sleep(0.02)
