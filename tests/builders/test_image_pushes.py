"""Images on their way to and from registries: refused, denied, hanging, and told where they are."""

import itertools
from collections.abc import Sequence

import anyio
import pytest
from image_workshops import KnownLogins, Workshop, docker, login_of
from sick_registry import HANG, sick_registry

from launch_async.adapters.builders.engine import EngineBuilder
from launch_async.adapters.builders.engine_images import EngineImages
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.image import ImageRef
from launch_async.ports.images import ImageBuild
from launch_async.wire.docker import DockerConnection
from registry_servers import Registries, push_image

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

RECIPE = "FROM BASE\nRUN echo pushed >/file\n"
pushing = pytest.mark.parametrize("workshop", ["classic", "buildkit"], indirect=True)
"""The engine's way, which buildx shares, and buildkitd's."""


def order_to(host: str, workshop: Workshop, **more) -> ImageBuild:
    """An order for an image that goes to the registry at `host`."""
    image = f"{host}/team/{workshop.image().rpartition('/')[2]}"
    return workshop.order(RECIPE, image=image, push=True, **more)


@pushing
@pytest.mark.parametrize("to", ["", "PUT .*/manifests/"])
@pytest.mark.parametrize("statuses", [[503, 503], [429], [500]])
async def test_a_push_is_tried_again_while_its_registry_is_sick(
    workshop: Workshop, registries: Registries, statuses: Sequence[int], to: str
) -> None:
    async with sick_registry(registries.open, statuses, to=to) as sick:
        order = order_to(sick.host, workshop)
        await workshop.builder.build(order, lambda _: None)

    assert sick.refused == len(statuses)
    await docker("pull", order.image.replace(sick.host, registries.open.host))


@pytest.mark.parametrize("workshop", ["classic"], indirect=True)  # buildkitd tries for 20 s
async def test_a_push_to_a_registry_that_stays_sick_is_given_up(
    workshop: Workshop, registries: Registries
) -> None:
    sickness = itertools.repeat(500)
    async with sick_registry(registries.open, sickness, to="PUT .*/manifests/") as sick:
        with anyio.fail_after(60), pytest.raises(Unavailable, match=f"registry {sick.host} did"):
            await workshop.builder.build(order_to(sick.host, workshop), lambda _: None)


@pushing
async def test_a_push_to_a_registry_that_is_away_is_given_up(workshop: Workshop) -> None:
    with anyio.fail_after(60), pytest.raises(Unavailable, match=r"registry 127\.0\.0\.1:9 did"):
        await workshop.builder.build(order_to("127.0.0.1:9", workshop), lambda _: None)


@pushing
async def test_a_push_that_hangs_ends_with_its_caller(
    workshop: Workshop, registries: Registries
) -> None:
    async with sick_registry(registries.open, itertools.repeat(HANG)) as sick:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                order = order_to(sick.host, workshop)
                tasks.start_soon(workshop.builder.build, order, lambda _: None)
                while not sick.refused:
                    await anyio.sleep(0.05)
                tasks.cancel_scope.cancel()


@pushing
@pytest.mark.parametrize("password", [None, "wrong"])
async def test_a_push_without_the_right_login_is_the_items_fault(
    workshop: Workshop, registries: Registries, logins: KnownLogins, password: str | None
) -> None:
    host = registries.login.host
    if password:
        logins.logins[host] = [login_of(registries.login, password)]

    with pytest.raises(ItemError, match=f"registry {host} does not let") as raised:
        await workshop.builder.build(order_to(host, workshop), lambda _: None)

    assert (raised.value.reason, raised.value.stage) == (Reason.REGISTRY_DENIED, Stage.BUILD)
    assert "wrong" not in str(raised.value)


@pushing
async def test_a_login_that_ran_out_during_the_build_is_got_anew(
    workshop: Workshop, registries: Registries, logins: KnownLogins
) -> None:
    good, expired = login_of(registries.login), login_of(registries.login, "expired")
    asked_before_it_is_denied = 2 if workshop.pushes else 1
    logins.logins[registries.login.host] = [*[expired] * asked_before_it_is_denied, good]

    await workshop.builder.build(order_to(registries.login.host, workshop), lambda _: None)


@pushing
async def test_all_names_are_pushed(workshop: Workshop, registries: Registries) -> None:
    more = f"{registries.open.host}/team/{workshop.image().rpartition('/')[2]}"
    order = order_to(registries.open.host, workshop, more_images=(more,))
    await workshop.builder.build(order, lambda _: None)

    for image in (order.image, more):
        await docker("pull", image)


async def test_the_engine_knows_the_digest_of_what_its_registry_has(
    connection: DockerConnection, tiny_image: str, registries: Registries, private_base: str
) -> None:
    images = EngineImages(connection)
    ref = ImageRef.parse(private_base)
    assert await images.find(ref) is None

    await images.pull(ref, login_of(registries.login), platform=None)

    digest = await images.find(ref)
    assert digest is not None
    assert digest.startswith("sha256:")
    by_digest = ImageRef(host=ref.host, repository=ref.repository, digest=digest)
    assert await images.find(by_digest) == digest
    assert await images.find(ImageRef.parse(tiny_image)) not in {None, digest}  # its own id


@pytest.mark.parametrize(
    ("platform", "found"),
    [(None, True), ("linux/amd64", True), ("linux/x86_64", True), ("linux/arm64", False)],
)
async def test_an_image_for_another_platform_does_not_count(
    connection: DockerConnection, tiny_image: str, platform: str | None, found: bool
) -> None:
    images = EngineImages(connection, platform=platform)

    assert (await images.find(ImageRef.parse(tiny_image)) is not None) is found


async def test_a_base_is_known_by_what_the_engine_has(
    connection: DockerConnection, tiny_image: str
) -> None:
    builder = EngineBuilder(connection, KnownLogins())
    here = await EngineImages(connection).find(ImageRef.parse(tiny_image))

    assert await builder.base_digest(tiny_image, platform=None) == here
    assert await builder.base_digest(tiny_image, platform="linux/arm64") is None
    assert await builder.base_digest("no/such:1", platform=None) is None
    assert await builder.base_digest("${BASE}", platform=None) is None


async def test_an_image_that_is_not_there_is_not_found_by_a_pull(
    connection: DockerConnection, registries: Registries
) -> None:
    await push_image(registries.open, "team/there", "v1")

    with pytest.raises(ItemError, match="cannot be found") as raised:
        await EngineImages(connection).pull(
            registries.open.image("team/there", "v2"), None, platform=None
        )

    assert raised.value.reason is Reason.IMAGE_NOT_FOUND
