"""What every runner promises, asked of each."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from runner_backends import (
    Backend,
    DockerBackend,
    ProcessBackend,
    end_of,
    make_order,
    printed,
    statuses,
)

from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.run import RunHandle, RunState

pytestmark = pytest.mark.anyio

PLAIN = ("asyncio", {"use_uvloop": False})
UVLOOP = ("asyncio", {"use_uvloop": True})


@pytest.fixture(
    params=[
        pytest.param(("process", PLAIN), id="process"),
        pytest.param(("process", UVLOOP), id="process-uvloop"),
        pytest.param(("docker", PLAIN), id="docker", marks=pytest.mark.docker),
    ]
)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def anyio_backend(kind: Any) -> Any:
    return kind[1]


@pytest.fixture
async def backend(kind: Any, request: pytest.FixtureRequest) -> AsyncGenerator[Backend, None]:
    if kind[0] == "process":
        yield ProcessBackend(request.getfixturevalue("tmp_path") / "state")
        return
    docker = DockerBackend(request.getfixturevalue("tiny_image"))
    yield docker
    await docker.clean_up()


async def test_the_backend_can_be_used(backend: Backend) -> None:
    async with backend.life() as runner:
        await runner.check()


async def test_a_watch_says_running_and_then_the_clean_end(backend: Backend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "sleep 0.5; exit 0"))
        seen = await statuses(runner, handle)
    assert [status.state for status in seen] == [RunState.RUNNING, RunState.ENDED]
    assert seen[-1].end is not None
    assert seen[-1].end.clean


async def test_an_exit_code_is_reported(backend: Backend) -> None:
    async with backend.life() as runner:
        end = await end_of(runner, await runner.launch(make_order(backend, "exit 3")))
    assert end.exit_code == 3
    assert end.reason is None


async def test_a_kill_from_outside_is_told_apart_from_a_failure(backend: Backend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "echo up; sleep 60"))
        await printed(runner, handle, "up")
        backend.kill_from_outside(handle)
        end = await end_of(runner, handle)
    assert not end.clean
    assert "SIGKILL" in end.detail
    assert end.signal == 9 or end.exit_code == 137


async def test_a_cancel_ends_a_program_that_ignores_sigterm(backend: Backend) -> None:
    script = "trap '' TERM; echo up; while true; do sleep 1; done"
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, script))
        await printed(runner, handle, "up")
        with anyio.fail_after(15):
            await runner.cancel(handle, within_seconds=1)
            end = await end_of(runner, handle)
    assert not end.clean


async def test_a_cancel_lets_a_program_end_by_itself(backend: Backend) -> None:
    script = "trap 'echo bye; exit 7' TERM; echo up; while true; do sleep 0.1; done"
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, script))
        await printed(runner, handle, "up")
        with anyio.fail_after(15):
            await runner.cancel(handle, within_seconds=10)
            end = await end_of(runner, handle)
        tail = await runner.log_tail(handle, lines=5)
    assert end.exit_code == 7
    assert "bye" in tail


async def test_cancelling_what_has_ended_or_is_gone_is_fine(backend: Backend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "exit 0"))
        await end_of(runner, handle)
        await runner.cancel(handle, within_seconds=1)
        await runner.remove(handle)
        await runner.cancel(handle, within_seconds=1)


async def test_launching_twice_gives_one_run(backend: Backend) -> None:
    order = make_order(backend, "echo ran; sleep 1")
    async with backend.life() as runner:
        handles: list[RunHandle] = []

        async def launch() -> None:
            handles.append(await runner.launch(order))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(launch)
        await end_of(runner, handles[0])
        after = await runner.launch(order)
        tail = await runner.log_tail(after, lines=10)
        found = await runner.find(backend.identity)
    assert handles == [after] * 3
    assert tail == ("ran",)
    assert len(found) == 1


async def test_another_life_finds_a_run_that_runs_and_watches_it_to_its_end(
    backend: Backend,
) -> None:
    async with backend.life() as first:
        launched = await first.launch(make_order(backend, "sleep 1; exit 4"))
    async with backend.life() as second:
        (found,) = await second.find(backend.identity)
        end = await end_of(second, found.handle)
    assert found.handle == launched
    assert end.exit_code == 4


async def test_another_life_learns_how_a_run_ended_meanwhile(backend: Backend) -> None:
    async with backend.life() as first:
        launched = await first.launch(make_order(backend, "exit 5"))
        await end_of(first, launched)
    async with backend.life() as second:
        (found,) = await second.find(backend.identity)
        seen = await statuses(second, found.handle)
    assert [status.state for status in seen] == [RunState.ENDED]
    assert seen[0].end is not None
    assert seen[0].end.exit_code == 5


async def test_runs_of_other_agents_are_not_found(backend: Backend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "exit 0"))
        await end_of(runner, handle)
        assert await runner.find("somebody-else") == ()


async def test_the_log_tail_has_the_last_lines_of_both_streams(backend: Backend) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo line $i; done; sleep 0.2; echo oops >&2"
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, script))
        await end_of(runner, handle)
        assert await runner.log_tail(handle, lines=3) == ("line 8", "line 9", "oops")


async def test_removing_twice_leaves_nothing_to_find(backend: Backend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "exit 0"))
        await end_of(runner, handle)
        await runner.remove(handle)
        await runner.remove(handle)
        assert await runner.find(backend.identity) == ()
        assert await runner.log_tail(handle, lines=3) == ()


async def test_a_run_that_was_removed_by_somebody_has_vanished(backend: Backend) -> None:
    async with backend.life() as runner, backend.life() as other:
        handle = await runner.launch(make_order(backend, "echo up; sleep 60"))
        await other.remove(handle)
        end = await end_of(runner, handle)
    assert end.exit_code is None or not end.clean


async def test_two_watches_both_see_the_end(backend: Backend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "sleep 0.5; exit 6"))
        codes: list[int | None] = []

        async def follow() -> None:
            codes.append((await end_of(runner, handle)).exit_code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            tasks.start_soon(follow)
    assert codes == [6, 6]


async def test_a_watch_that_is_left_leaves_the_run_alone(backend: Backend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "sleep 1; exit 8"))
        async with aclosing(runner.watch(handle)) as watch:
            assert (await anext(watch)).state is RunState.RUNNING
        assert (await end_of(runner, handle)).exit_code == 8


async def test_the_run_sees_its_environment_arguments_and_secrets(backend: Backend) -> None:
    order = make_order(
        backend,
        'echo "$NAME $EXTRA ${#WANDB_API_KEY} $0 $1"',
        args=("first", "second word"),
        environment={"NAME": "given"},
        resource_args={"env": ["EXTRA=more=yes"]},
    )
    async with backend.life() as runner:
        handle = await runner.launch(order)
        await end_of(runner, handle)
        tail = await runner.log_tail(handle, lines=3)
    assert tail == ("given more=yes 18 first second word",)


async def test_the_same_run_for_a_new_item_starts_anew_once_the_old_has_ended(
    backend: Backend,
) -> None:
    async with backend.life() as runner:
        old = await runner.launch(make_order(backend, "sleep 60", run_id="again"))
        anew = make_order(backend, "exit 0", run_id="again", item_id="item-2")
        with pytest.raises(ItemError, match="still runs for another item") as refused:
            await runner.launch(anew)
        assert refused.value.reason is Reason.LAUNCH_FAILED
        await runner.cancel(old, within_seconds=0)
        await end_of(runner, old)
        new = await runner.launch(anew)
        assert (await end_of(runner, new)).clean


async def test_the_handle_of_an_earlier_item_does_no_harm_to_the_same_runs_new_one(
    backend: Backend,
) -> None:
    async with backend.life() as runner:
        old = await runner.launch(make_order(backend, "exit 0", run_id="twice"))
        await end_of(runner, old)
        anew = make_order(backend, "sleep 1; exit 12", run_id="twice", item_id="item-2")
        new = await runner.launch(anew)
        await runner.cancel(old, within_seconds=0)
        await runner.remove(old)
        assert (await end_of(runner, new)).exit_code == 12


@pytest.mark.parametrize(
    ("resource_args", "words"),
    [
        ({"envv": []}, "Did you mean `env`"),
        ({"env": ["HOME"]}, "not shared"),
    ],
)
async def test_wrong_resource_arguments_are_named(
    backend: Backend, resource_args: dict[str, Any], words: str
) -> None:
    async with backend.life() as runner:
        with pytest.raises(ItemError, match=words) as wrong:
            await runner.launch(make_order(backend, "true", resource_args=resource_args))
    assert wrong.value.reason is Reason.RESOURCE_ARGS_INVALID
