"""What only containers promise, and an engine that is away or loses its streams."""

import subprocess
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import msgspec
import pytest
from runner_backends import DockerBackend, make_order

from launch_async.adapters.runners.docker.runner import DockerRunner
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.run import RunHandle, RunState, Trace
from launch_async.ports.runner import ImageWork
from launch_async.testing import SECRET, end_of, printed

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


@pytest.fixture
async def backend(
    tiny_image: str, docker_engine: Any, tmp_path: Path
) -> AsyncGenerator[DockerBackend, None]:
    docker = DockerBackend(tiny_image, docker_engine.socket_path, tmp_path)
    yield docker
    await docker.clean_up()


async def test_a_run_over_its_memory_limit_is_out_of_memory(backend: DockerBackend) -> None:
    script = "exec tail /dev/zero"  # reads a line without end into memory
    order = make_order(backend, script, resource_args={"memory": "16m", "memory-swap": "16m"})
    async with backend.life() as runner:
        end = await end_of(runner, await runner.launch(order))
    assert (end.exit_code, end.reason) == (137, Reason.OUT_OF_MEMORY)


async def test_a_stop_of_ours_is_not_called_a_kill_from_outside(backend: DockerBackend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "echo up; sleep 60"))
        await printed(runner, handle, "up")
        await runner.cancel(handle, within_seconds=5)
        end = await end_of(runner, handle)
    assert end.exit_code == 143
    assert end.detail == ""


async def test_a_program_that_is_missing_is_named_in_the_log(backend: DockerBackend) -> None:
    work = ImageWork(image=backend.image, entrypoint=("no-such-program",))
    async with backend.life() as runner:
        handle = await runner.launch(msgspec.structs.replace(make_order(backend, ""), work=work))
        end = await end_of(runner, handle)
        tail = await runner.log_tail(handle, lines=5)
    assert end.exit_code == 127
    assert any("no-such-program" in line for line in tail)


async def test_a_container_that_cannot_start_is_removed_and_the_engine_quoted(
    backend: DockerBackend,
) -> None:
    too_many = {"ulimit": "nofile=99999999999"}
    order = make_order(backend, "true", resource_args=too_many)
    async with backend.life() as runner:
        with pytest.raises(ItemError, match="rlimit") as failed:
            await runner.launch(order)
        assert await runner.find(backend.identity) == ()
    assert failed.value.reason is Reason.LAUNCH_FAILED
    listed = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"label=launch-async.identity={backend.identity}"],
        check=True,
        capture_output=True,
    )
    assert listed.stdout == b""


async def test_a_container_that_was_only_created_is_started_by_the_next_launch(
    backend: DockerBackend,
) -> None:
    order = make_order(backend, "echo ran")
    labels = {"identity": backend.identity, "item": order.item_id, "run": order.run.run_id}
    argv = ["docker", "create", "--name", f"launch-{order.run.run_id}", "--entrypoint", "echo"]
    for name, value in labels.items():
        argv += ["--label", f"launch-async.{name}={value}"]
    subprocess.run([*argv, backend.image, "ran"], check=True, capture_output=True)
    async with backend.life() as runner:
        (found,) = await runner.find(backend.identity)
        assert found.trace is Trace.PREPARED
        handle = await runner.launch(order)
        assert (await end_of(runner, handle)).clean


async def test_a_foreign_container_in_the_way_is_left_alone(backend: DockerBackend) -> None:
    order = make_order(backend, "true")
    name = f"launch-{order.run.run_id}"
    subprocess.run(["docker", "create", "--name", name, backend.image], check=True)
    try:
        async with backend.life() as runner:
            with pytest.raises(ItemError, match="in the way"):
                await runner.launch(order)
    finally:
        subprocess.run(["docker", "rm", name], check=True)


async def test_secrets_are_in_no_label(backend: DockerBackend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "exit 0"))
        await end_of(runner, handle)
    facts = ["docker", "inspect", "--format", "{{json .Config.Labels}} {{.Name}} {{.Args}}"]
    shown = subprocess.run(
        [*facts, handle.data["container_id"]], check=True, capture_output=True, text=True
    )
    assert SECRET not in shown.stdout


async def test_an_engine_that_is_away_is_unavailable_with_the_remedy(tmp_path: Path) -> None:
    runner = DockerRunner(docker_host=f"unix://{tmp_path}/none.sock")
    try:
        with pytest.raises(Unavailable, match="start Docker, or set DOCKER_HOST"):
            await runner.check()
        with pytest.raises(Unavailable, match="start Docker, or set DOCKER_HOST"):
            await runner.find("me")
    finally:
        await runner.close()


async def test_a_host_of_an_unknown_kind_is_named() -> None:
    with pytest.raises(Unavailable, match="ssh://somewhere is of a kind"):
        await DockerRunner(docker_host="ssh://somewhere").check()


async def test_a_run_that_ends_while_the_engine_is_out_of_reach_is_seen_when_it_is_back(
    backend: DockerBackend,
) -> None:
    async with backend.life(list_seconds=3600) as runner:
        handle = await runner.launch(make_order(backend, "sleep 1; exit 11"))
        with anyio.fail_after(15):
            async with aclosing(runner.watch(handle)) as watch:
                assert (await anext(watch)).state is RunState.RUNNING
                async with backend.cut_off():
                    await anyio.sleep(1.5)
                async for status in watch:
                    last = status
    assert last.end is not None
    assert last.end.exit_code == 11


async def test_a_flood_of_output_is_followed_in_bounded_pieces_and_its_tail_kept(
    backend: DockerBackend,
) -> None:
    script = "head -c 60000000 /dev/zero | tr '\\0' x; echo; echo end"
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, script))
        sizes: list[int] = []
        with anyio.fail_after(60):
            async with aclosing(runner.logs(handle)) as pieces:
                async for piece in pieces:
                    sizes.append(len(piece))  # noqa: PERF401
        assert (await end_of(runner, handle)).clean
        tracemalloc.start()
        tail = await runner.log_tail(handle, lines=500)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert sum(sizes) == 60_000_005
    assert max(sizes) <= 64 * 1024
    assert tail[-1] == "end"
    assert peak < 5_000_000


async def test_a_container_that_somebody_removed_is_no_success(backend: DockerBackend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "sleep 60"))
        async with aclosing(runner.watch(handle)) as watch:
            assert (await anext(watch)).state is RunState.RUNNING
            argv = ["docker", "rm", "-f", handle.data["container_id"]]
            subprocess.run(argv, check=True, capture_output=True)
            with anyio.fail_after(20):
                ends = [status.end async for status in watch if status.end is not None]
    assert not ends[0].clean
    assert ends[0].reason is Reason.VANISHED or ends[0].exit_code == 137


async def test_a_pull_that_hangs_ends_with_the_image_named(backend: DockerBackend) -> None:
    async def hang(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - anyio's
    backend.image = f"127.0.0.1:{port}/hangs:1"
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, hang)
        async with backend.life(pull_timeout_seconds=0.5) as runner:
            with anyio.fail_after(60), pytest.raises(ItemError, match="took longer than") as slow:
                await runner.launch(make_order(backend, "true"))
        tasks.cancel_scope.cancel()
    assert slow.value.reason is Reason.IMAGE_NOT_FOUND


async def test_many_watches_that_begin_at_once_share_lists(backend: DockerBackend) -> None:
    async with backend.life() as first:
        handles = [await first.launch(make_order(backend, "sleep 600")) for _ in range(16)]
    before = backend.wire.requests.copy()
    async with backend.life() as second, anyio.create_task_group() as tasks:
        seen: list[RunState] = []

        async def follow(handle: RunHandle) -> None:
            async with aclosing(second.watch(handle)) as watch:
                seen.append((await anext(watch)).state)

        for handle in handles:
            tasks.start_soon(follow, handle)
    calls = backend.wire.requests - before
    assert seen == [RunState.RUNNING] * 16
    assert calls["inspect"] < 16
