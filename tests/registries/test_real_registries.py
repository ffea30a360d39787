"""The client against distribution's own registry: open, with a password, with signed tokens."""

import shutil
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import NoReturn

import pytest
from known_logins import Logins
from scripted_registry import Site
from token_registry import PASSWORD, USERNAME, Signer, token_registry

from launch_async.adapters.registries.client import OciRegistry
from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.image import ImageRef
from registry_servers import REMEDY, Registries, Registry, push_image

pytestmark = pytest.mark.anyio


def login_for(registry: Registry) -> Logins:
    return Logins(registry.username, registry.password or "")


@pytest.mark.parametrize("kind", ["open", "login"])
async def test_an_image_is_found_by_tag_and_by_digest(session, registries: Registries, kind: str):
    place: Registry = getattr(registries, kind)
    digest = await push_image(place, "client/nested/app", "v1")
    registry = OciRegistry(session, login_for(place))
    tagged = place.image("client/nested/app", "v1")
    assert await registry.find(tagged) == digest
    assert await registry.find(ImageRef.parse(f"{tagged.name}@{digest}")) == digest
    assert await registry.find(place.image("client/nested/app", "v2")) is None
    assert await registry.find(place.image("client/nothing", "v1")) is None
    assert await registry.find(ImageRef.parse(f"{tagged.name}@sha256:{'0' * 64}")) is None


async def test_a_tag_that_moved_is_seen_at_once(session, registries: Registries):
    registry = OciRegistry(session, Logins())
    image = registries.open.image("client/moving", "v1")
    for note in ("one", "two"):
        digest = await push_image(registries.open, "client/moving", "v1", note=note)
        assert await registry.find(image) == digest


@pytest.mark.parametrize("username", [None, "launch_async"])
async def test_no_login_and_a_wrong_one_are_refused(
    session, registries: Registries, username: str | None
):
    with pytest.raises(ItemError, match=registries.login.host) as caught:
        await OciRegistry(session, Logins(username)).find(registries.login.image("client/app"))
    assert caught.value.reason is Reason.REGISTRY_DENIED


@pytest.fixture
async def signed(
    anyio_backend: str,
    tmp_path: Path,
    certificate: tuple[Path, Path],
    miss: Callable[[str], NoReturn],
) -> AsyncGenerator[tuple[Registry, Signer, Site]]:
    if shutil.which("docker-registry") is None:
        miss(f"no docker-registry here: {REMEDY}")
    async with token_registry(tmp_path, *certificate) as lent:
        yield lent


async def push_signed(registry: Registry, signer: Signer, repository: str) -> str:
    access = [{"type": "repository", "name": repository, "actions": ["pull", "push"]}]
    headers = {"Authorization": f"Bearer {signer.sign(access)}"}
    return await push_image(registry, repository, "v1", headers=headers)


async def test_a_signed_token_opens_its_repository_and_no_other(session, signed):
    place, signer, site = signed
    digest = await push_signed(place, signer, "team/app")
    await push_signed(place, signer, "team/secret")
    registry = OciRegistry(session, Logins(USERNAME, PASSWORD))
    for _ in range(2):
        assert await registry.find(place.image("team/app", "v1")) == digest
    assert site.asked == ["GET /token"]
    assert await registry.find(place.image("team/app", "v2")) is None
    with pytest.raises(ItemError, match="team/secret"):
        await registry.find(place.image("team/secret", "v1"))


async def test_a_token_that_ran_out_early_is_replaced(session, signed):
    place, signer, site = signed
    digest = await push_signed(place, signer, "team/app")
    registry = OciRegistry(session, Logins(USERNAME, PASSWORD))
    signer.lifetime_seconds = -100  # it says 300 s to the client, whatever it signs
    with pytest.raises(ItemError):
        await registry.find(place.image("team/app", "v1"))
    signer.lifetime_seconds = 300
    assert await registry.find(place.image("team/app", "v1")) == digest
    assert site.asked == ["GET /token"] * 2


async def test_a_signer_that_refuses_the_password_is_named(session, signed):
    place, signer, site = signed
    await push_signed(place, signer, "team/app")
    with pytest.raises(ItemError, match=site.host):
        await OciRegistry(session, Logins(USERNAME)).find(place.image("team/app", "v1"))
