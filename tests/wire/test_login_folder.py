"""The folder with logins that other programs read, and what is left of it: nothing."""

import base64
import json
import stat
from pathlib import Path

import anyio
import pytest

from launch_async.domain.errors import Unavailable
from launch_async.domain.image import ImageRef
from launch_async.domain.secret import Secret
from launch_async.ports.images import RegistryLogin
from launch_async.wire.docker_config import (
    IDENTITY_TOKEN_USER,
    docker_config_folder,
    engine_auth,
    remove_left_folders,
)

pytestmark = pytest.mark.anyio


class Known:
    """Logins by repository."""

    def __init__(self, logins: dict[str, RegistryLogin]) -> None:
        self._logins = logins

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        return self._logins.get(image.name)


def login(username: str, password: str) -> RegistryLogin:
    return RegistryLogin(username=username, password=Secret(password))


APP = ImageRef.parse("registry.example.com:5000/team/app:1")
BASE = ImageRef.parse("python:3.11")
OPEN = ImageRef.parse("mirror.example.com/base:1")
KNOWN = Known({APP.name: login("agent", "pä:ss"), BASE.name: login(IDENTITY_TOKEN_USER, "refresh")})


def auths_in(folder: Path) -> dict[str, dict[str, str]]:
    return json.loads((folder / "config.json").read_bytes())["auths"]


async def test_the_folder_has_each_registrys_login_and_goes_with_the_block(tmp_path):
    root = tmp_path / "logins"
    async with docker_config_folder(root, KNOWN, [APP, BASE, OPEN]) as folder:
        assert auths_in(folder) == {
            "registry.example.com:5000": {
                "auth": base64.b64encode("agent:pä:ss".encode()).decode()
            },
            "https://index.docker.io/v1/": {"identitytoken": "refresh"},
        }
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600
    assert list(root.iterdir()) == []


async def test_a_cancelled_block_leaves_no_folder(tmp_path):
    with anyio.CancelScope() as scope:
        async with docker_config_folder(tmp_path, KNOWN, [APP]) as folder:
            assert auths_in(folder)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert list(tmp_path.iterdir()) == []


async def test_nothing_is_written_when_a_login_cannot_be_had(tmp_path):
    class Dead:
        async def login(self, image: ImageRef) -> RegistryLogin | None:
            raise Unavailable("the cloud does not answer")

    with pytest.raises(Unavailable):
        async with docker_config_folder(tmp_path, Dead(), [APP]):
            pass
    assert list(tmp_path.iterdir()) == []


async def test_two_logins_for_one_host_give_the_first_images(tmp_path):
    other = ImageRef.parse("registry.example.com:5000/other/app")
    known = Known({APP.name: login("agent", "one"), other.name: login("agent", "two")})
    async with docker_config_folder(tmp_path, known, [other, APP]) as folder:
        (entry,) = auths_in(folder).values()
    assert base64.b64decode(entry["auth"]) == b"agent:two"


async def test_the_users_settings_and_plugins_hold_but_not_their_logins(tmp_path):
    like, root = tmp_path / "docker", tmp_path / "logins"
    (like / "cli-plugins").mkdir(parents=True)
    (like / "cli-plugins" / "docker-buildx").write_text("the plug-in")
    settings = {"currentContext": "far", "credsStore": "desktop", "auths": {"a": {"auth": "eA=="}}}
    (like / "config.json").write_text(json.dumps(settings))
    async with docker_config_folder(root, KNOWN, [APP], like=like) as folder:
        content = json.loads((folder / "config.json").read_bytes())
        assert content.pop("auths").keys() == {"registry.example.com:5000"}
        assert content == {"currentContext": "far"}
        assert (folder / "cli-plugins" / "docker-buildx").read_text() == "the plug-in"
    assert (like / "cli-plugins" / "docker-buildx").exists()


@pytest.mark.parametrize("content", ["{", "[]", None])
async def test_settings_that_cannot_be_read_are_none(tmp_path, content):
    like = tmp_path / "docker"
    like.mkdir()
    if content is not None:
        (like / "config.json").write_text(content)
    async with docker_config_folder(tmp_path / "logins", KNOWN, [APP], like=like) as folder:
        assert json.loads((folder / "config.json").read_bytes()).keys() == {"auths"}


async def test_folders_of_a_killed_life_are_removed_and_nothing_else(tmp_path):
    async with docker_config_folder(tmp_path, KNOWN, [APP]) as folder:
        left = folder.rename(folder.with_name(f"{folder.name}x"))
    (tmp_path / "other").mkdir()
    assert remove_left_folders(tmp_path) == 1
    assert not left.exists()
    assert (tmp_path / "other").exists()
    assert remove_left_folders(tmp_path / "never made") == 0


def test_the_engine_gets_a_password_or_an_identity_token():
    assert engine_auth(login("agent", "one")) == {"username": "agent", "password": "one"}
    assert engine_auth(login(IDENTITY_TOKEN_USER, "refresh")) == {"identitytoken": "refresh"}
