"""What every builder of images keeps to: the engine's two, buildx and buildkitd."""

import json
import os
import subprocess
import sys
import time
import uuid

import anyio
import anyio.to_thread
import image_workshops
import msgspec
import pytest
from image_workshops import (
    KnownLogins,
    Workshop,
    docker,
    has_container,
    login_of,
    processes_with,
    sleeping,
    unique_seconds,
    until,
)

from launch_async.adapters.builders.engine_images import EngineImages
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.image import ImageRef
from launch_async.wire.docker import DockerConnection
from registry_servers import Registries

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


async def test_the_image_runs_what_was_built(workshop: Workshop) -> None:
    order = await workshop.build(
        'FROM BASE\nCOPY sub/hello.txt /hello.txt\nCMD ["cat", "/hello.txt"]\n',
        {"sub/hello.txt": "good day"},
    )

    assert await workshop.run(order.image) == "good day"


async def test_people_hear_of_each_step_and_the_log_has_all_that_is_printed(
    workshop: Workshop,
) -> None:
    mark, heard = uuid.uuid4().hex, []
    order = workshop.order(f"FROM BASE\nRUN echo one-{mark}\nRUN seq 300 | sed s/^/{mark}-/\n")

    await workshop.builder.build(order, heard.append)

    assert [text for text in heard if text.startswith("step 2/3: RUN echo one-")]
    printed = order.log.read_text()
    assert all(f"{mark}-{number}\n" in printed for number in range(1, 301))


async def test_the_same_build_again_takes_all_from_the_cache(workshop: Workshop) -> None:
    recipe = f"FROM BASE\nRUN : {uuid.uuid4()} && cat /proc/sys/kernel/random/uuid >/made\n"
    first = await workshop.build(recipe)
    again = await workshop.build(recipe)

    made = await workshop.run(first.image, "cat", "/made")
    assert await workshop.run(again.image, "cat", "/made") == made


async def test_a_changed_file_is_not_taken_from_the_cache(workshop: Workshop) -> None:
    recipe = "FROM BASE\nCOPY file /file\n"
    await workshop.build(recipe, {"file": "old"})
    changed = await workshop.build(recipe, {"file": "new"})

    assert await workshop.run(changed.image, "cat", "/file") == "new"


async def test_a_failed_step_is_named_with_its_code_and_its_last_lines(workshop: Workshop) -> None:
    order = workshop.order("FROM BASE\nRUN true\nRUN seq 1 50; exit 7\nRUN true\n")

    with pytest.raises(ItemError) as raised:
        await workshop.builder.build(order, lambda _: None)

    assert (raised.value.reason, raised.value.stage) == (Reason.BUILD_FAILED, Stage.BUILD)
    first, *rest = str(raised.value).splitlines()
    assert first == "Step 3/4 of the Dockerfile exited with 7: RUN seq 1 50; exit 7"
    assert rest[-20:] == [str(number) for number in range(31, 51)]
    assert "30" not in rest


async def test_an_instruction_that_does_not_exist_is_named(workshop: Workshop) -> None:
    with pytest.raises(ItemError, match="line 2: unknown instruction: FRO") as raised:
        await workshop.build("FROM BASE\nFRO x\n")

    assert raised.value.reason is Reason.BUILD_FAILED


async def test_a_file_that_is_not_in_the_context_is_named(workshop: Workshop) -> None:
    with pytest.raises(ItemError, match=r"Step 2/2 .*COPY nothing /x\n.*nothing.* not"):
        await workshop.build("FROM BASE\nCOPY nothing /x\n")


@pytest.mark.parametrize("path", ["other/Dockerfile", "../outside"])
async def test_a_dockerfile_outside_of_the_context_is_refused(
    workshop: Workshop, path: str
) -> None:
    (workshop.folder / "outside").write_text("FROM scratch\n")

    with pytest.raises(ItemError, match=f"no file {path}"):
        await workshop.build("FROM BASE\n", dockerfile=path)


async def test_a_dockerfile_in_a_folder_of_the_context_is_found(workshop: Workshop) -> None:
    files = {"docker/Train": "FROM BASE\nCOPY file /file\n", "file": "content"}
    order = await workshop.build("nothing", files, dockerfile="docker/Train")

    assert await workshop.run(order.image, "cat", "/file") == "content"


async def test_a_base_that_is_nowhere_is_named(workshop: Workshop, registries: Registries) -> None:
    base = f"{registries.open.host}/no/such:1"

    with pytest.raises(ItemError, match=f"base image {base} cannot be found") as raised:
        await workshop.build(f"FROM {base}\n", bases=(base,))

    assert raised.value.reason is Reason.IMAGE_NOT_FOUND


async def test_a_base_in_a_registry_that_is_away_is_nobodys_fault(workshop: Workshop) -> None:
    base = "127.0.0.1:9/team/base:1"  # nobody listens on the port "discard"

    with pytest.raises(Unavailable, match=f"base image {base} could not be pulled"):
        await workshop.build(f"FROM {base}\n", bases=(base,))


async def test_a_private_base_needs_a_login(
    workshop: Workshop, private_base: str, registries: Registries, logins: KnownLogins
) -> None:
    recipe = f"FROM {private_base}\nRUN echo hello >/file\n"
    with pytest.raises(ItemError, match=f"login for {registries.login.host}") as raised:
        await workshop.build(recipe, bases=(private_base,))
    assert raised.value.reason is Reason.REGISTRY_DENIED

    logins.logins[registries.login.host] = [login_of(registries.login)]
    order = await workshop.build(recipe, bases=(private_base,))

    assert await workshop.run(order.image, "cat", "/file") == "hello\n"


async def test_arguments_labels_target_and_more_names_are_given(workshop: Workshop) -> None:
    more = workshop.image()
    order = await workshop.build(
        "FROM BASE AS first\nARG COLOUR=none\nRUN echo $COLOUR >/colour\n"
        "FROM first AS last\nRUN echo last >/colour\n",
        target="first",
        build_args={"COLOUR": 'blue, "and" = green', "UNUSED": ""},
        labels={"org.example.note": 'one, two = "three"'},
        more_images=(more,),
    )

    for image in (order.image, more):
        assert await workshop.run(image, "cat", "/colour") == 'blue, "and" = green\n'
    facts = json.loads(await docker("inspect", order.image))[0]
    assert facts["Config"]["Labels"]["org.example.note"] == 'one, two = "three"'


async def test_the_platform_is_the_one_asked_for(workshop: Workshop) -> None:
    order = workshop.order("FROM scratch\nCOPY file /file\n", {"file": ""}, platform="linux/arm64")
    await workshop.builder.build(order, lambda _: None)
    if workshop.pushes:
        await docker("pull", "--quiet", "--platform=linux/arm64", order.image)

    assert await docker("inspect", "--format={{.Os}}/{{.Architecture}}", order.image) == (
        "linux/arm64\n"
    )


async def test_mounts_can_be_used_where_the_builder_says_so(workshop: Workshop) -> None:
    recipe = "FROM BASE\nRUN --mount=type=cache,target=/kept true\n"
    if workshop.builder.has_mounts:
        await workshop.build(recipe)
    else:
        with pytest.raises(ItemError, match="requires BuildKit"):
            await workshop.build(recipe)

    assert workshop.builder.has_mounts is (workshop.kind != "classic")


async def test_a_line_of_megabytes_is_shown_shortened(workshop: Workshop) -> None:
    line = "head -c 3000000 /dev/zero | tr '\\0' x"
    order = workshop.order(f"FROM BASE\nRUN {line}; echo; echo the end; exit 1\n")

    with pytest.raises(ItemError) as raised:
        await workshop.builder.build(order, lambda _: None)

    assert len(str(raised.value)) < 2000
    # BuildKit itself clips what a step prints too fast.
    whole = 3_000_000 if workshop.kind == "classic" else 100_000
    assert order.log.stat().st_size > whole


async def test_a_cancelled_build_ends_within_a_second_with_what_it_runs(
    workshop: Workshop, private_base: str, registries: Registries, logins: KnownLogins
) -> None:
    logins.logins[registries.login.host] = [login_of(registries.login)]
    seconds = unique_seconds()
    order = workshop.order(f"FROM {private_base}\nRUN sleep {seconds}\n", bases=(private_base,))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(workshop.builder.build, order, lambda _: None)
        await until(lambda: sleeping(seconds), within_seconds=20)
        cancelled_at = time.monotonic()
        tasks.cancel_scope.cancel()
    await until(lambda: not sleeping(seconds), within_seconds=5)

    assert time.monotonic() - cancelled_at < 1
    assert not list(workshop.logins_folder.glob("*"))
    await until(lambda: not has_container(seconds), within_seconds=5)
    assert not await workshop.has(order.image)


async def test_a_build_is_cancelled_while_its_context_is_sent(workshop: Workshop) -> None:
    order = workshop.order("FROM BASE\nCOPY . /all\n", {"huge": ""})
    os.truncate(order.context / "huge", 100 * 2**30)  # takes no room here

    began = time.monotonic()
    with anyio.move_on_after(0.7) as patience:
        await workshop.builder.build(order, lambda _: None)

    assert patience.cancelled_caught
    assert time.monotonic() - began < 1.7
    assert not processes_with(str(order.context))


async def test_builds_run_at_once(workshop: Workshop) -> None:
    naps = [unique_seconds() for _ in range(3)]

    async with anyio.create_task_group() as tasks:
        for seconds in naps:
            order = workshop.order(f"FROM BASE\nRUN sleep {seconds}\n")
            tasks.start_soon(workshop.builder.build, order, lambda _: None)
        await until(lambda: all(sleeping(seconds) for seconds in naps), within_seconds=30)
        tasks.cancel_scope.cancel()


async def test_a_full_disk_fails_the_build_with_a_reason(workshop: Workshop) -> None:
    order = workshop.order(f"FROM BASE\nRUN : {uuid.uuid4()} && seq 100000 && sleep 30\n")
    order.log.symlink_to("/dev/full")

    with anyio.fail_after(15), pytest.raises(ItemError, match=r"No space left.*Free some room"):
        await workshop.builder.build(order, lambda _: None)


async def test_logins_are_nowhere_but_where_they_are_used(
    workshop: Workshop,
    private_base: str,
    registries: Registries,
    logins: KnownLogins,
    connection: DockerConnection,
) -> None:
    login = login_of(registries.login)
    logins.logins[registries.login.host] = [login]
    image = f"{registries.login.host}/{workshop.image().rpartition('/')[2]}"
    order = workshop.order(
        f"FROM {private_base}\nRUN env; sleep 1; echo {uuid.uuid4()}\n",
        image=image,
        push=True,
        bases=(private_base,),
    )
    seen: set[str] = set()

    async def look() -> None:
        while True:
            seen.update(await anyio.to_thread.run_sync(processes_with, image))
            await anyio.sleep(0.1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await workshop.builder.build(order, lambda _: None)
        tasks.cancel_scope.cancel()

    if workshop.pushes:
        await EngineImages(connection).pull(ImageRef.parse(image), login, platform=None)
    password = login.password.reveal()
    assert bool(seen) is (workshop.kind in {"buildx", "buildkit"})
    for words in (*seen, order.log.read_text(), await docker("history", "--no-trunc", image)):
        assert password not in words
    assert not list(workshop.logins_folder.glob("*"))


async def test_a_killed_agent_leaves_no_half_image_and_the_next_one_builds_it(
    workshop: Workshop,
) -> None:
    seconds = f"3.{unique_seconds().replace('.', '')}"
    order = workshop.order(f"FROM BASE\nRUN sleep {seconds} && echo whole >/file\n")
    agent = await anyio.open_process(
        [sys.executable, image_workshops.__file__, workshop.kind, str(workshop.folder)],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    async with agent:
        assert agent.stdin is not None
        await agent.stdin.send(msgspec.json.encode(order, enc_hook=str))
        await agent.stdin.aclose()
        await until(lambda: sleeping(seconds), within_seconds=20)
        agent.kill()
        await agent.wait()

    assert not await workshop.has(order.image)
    await workshop.builder.build(order, lambda _: None)
    assert await workshop.run(order.image, "cat", "/file") == "whole\n"
    await until(lambda: not processes_with(order.image), within_seconds=20)
