"""What every runner promises, asked of one."""

from contextlib import aclosing
from itertools import groupby

import anyio
import msgspec
import pytest

from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.run import RunHandle, RunState, Trace
from launch_async.ports.runner import Runner
from launch_async.testing.backends import (
    SECRET,
    RunnerBackend,
    end_of,
    order_for,
    printed,
    statuses,
)
from launch_async.testing.plays import Play

LONG = Play(prints=("up",), seconds=60)
LOG_SECONDS = 20.0
STOP_SECONDS = 15.0


class RunnerConformance:
    """Inherit as `Test…`, and give a fixture `backend` that is a `RunnerBackend`.

    Runs that a failed check leaves behind are the fixture's to clean up.
    """

    pytestmark = pytest.mark.anyio

    async def test_the_backend_can_be_used(self, backend: RunnerBackend) -> None:
        async with backend.life() as runner:
            await runner.check()

    async def test_a_watch_says_running_and_then_the_clean_end(
        self, backend: RunnerBackend
    ) -> None:
        async with backend.life() as runner:
            seen = await statuses(runner, await _launched(runner, backend, Play(seconds=0.5)))
        begun = [status.state for status in seen if status.state is not RunState.STARTING]
        # Other details of the same state may be told between.
        assert [state for state, _ in groupby(begun)] == [RunState.RUNNING, RunState.ENDED]
        assert [status.end is None for status in seen] == [True] * (len(seen) - 1) + [False]
        assert seen[-1].end is not None
        assert seen[-1].end.clean

    async def test_an_exit_code_is_reported(self, backend: RunnerBackend) -> None:
        async with backend.life() as runner:
            end = await end_of(runner, await _launched(runner, backend, Play(exit_code=3)))
        assert (end.exit_code, end.reason) == (3, None)

    async def test_a_kill_from_outside_is_told_apart_from_a_failure(
        self, backend: RunnerBackend
    ) -> None:
        async with backend.life() as runner:
            handle = await _launched(runner, backend, LONG)
            await printed(runner, handle, "up")
            backend.kill_from_outside(handle)
            end = await end_of(runner, handle)
        assert not end.clean
        assert "SIGKILL" in end.detail
        assert end.signal == 9 or end.exit_code == 137

    async def test_a_cancel_ends_a_program_that_ignores_sigterm(
        self, backend: RunnerBackend
    ) -> None:
        stubborn = Play(prints=("up",), seconds=60, on_term="ignore")
        async with backend.life() as runner:
            handle = await _launched(runner, backend, stubborn)
            await printed(runner, handle, "up")
            with anyio.fail_after(STOP_SECONDS):
                await runner.cancel(handle, within_seconds=1)
                end = await end_of(runner, handle)
        assert not end.clean

    async def test_a_cancel_lets_a_program_end_by_itself(self, backend: RunnerBackend) -> None:
        polite = Play(prints=("up",), seconds=60, on_term="leave")
        async with backend.life() as runner:
            handle = await _launched(runner, backend, polite)
            await printed(runner, handle, "up")
            with anyio.fail_after(STOP_SECONDS):
                await runner.cancel(handle, within_seconds=10)
                end = await end_of(runner, handle)
            tail = await runner.log_tail(handle, lines=5)
        assert end.exit_code == 7
        assert "bye" in tail

    async def test_cancelling_twice_at_once_is_fine(self, backend: RunnerBackend) -> None:
        async with backend.life() as runner:
            handle = await _launched(runner, backend, LONG)
            await printed(runner, handle, "up")

            async def cancel() -> None:
                await runner.cancel(handle, within_seconds=1)

            with anyio.fail_after(STOP_SECONDS):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(cancel)
                    tasks.start_soon(cancel)
                end = await end_of(runner, handle)
        assert not end.clean

    async def test_cancelling_what_has_ended_or_is_gone_is_fine(
        self, backend: RunnerBackend
    ) -> None:
        async with backend.life() as runner:
            handle = await _launched(runner, backend, Play())
            assert (await end_of(runner, handle)).clean
            await runner.cancel(handle, within_seconds=1)
            assert (await end_of(runner, handle)).clean
            await runner.remove(handle)
            await runner.cancel(handle, within_seconds=1)

    async def test_launching_twice_gives_one_run(self, backend: RunnerBackend) -> None:
        order = order_for(backend, Play(prints=("ran",), seconds=1))
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
        self, backend: RunnerBackend
    ) -> None:
        order = order_for(backend, Play(seconds=1, exit_code=4))
        async with backend.life() as first:
            launched = await first.launch(order)
        async with backend.life() as second:
            (found,) = await second.find(backend.identity)
            end = await end_of(second, found.handle)
        assert (found.handle, found.trace) == (launched, Trace.ALIVE)
        assert end.exit_code == 4

    async def test_another_life_learns_how_a_run_ended_meanwhile(
        self, backend: RunnerBackend
    ) -> None:
        async with backend.life() as first:
            await end_of(first, await _launched(first, backend, Play(exit_code=5)))
        async with backend.life() as second:
            (found,) = await second.find(backend.identity)
            seen = await statuses(second, found.handle)
        assert found.trace is Trace.ENDED
        assert [status.state for status in seen] == [RunState.ENDED]
        assert seen[0].end is not None
        assert seen[0].end.exit_code == 5

    async def test_where_a_run_comes_from_is_given_back_whole_and_without_secrets(
        self, backend: RunnerBackend
    ) -> None:
        order = order_for(backend, Play())
        async with backend.life() as first:
            await first.launch(order)
        async with backend.life() as second:
            (found,) = await second.find(backend.identity)
        assert found.origin == order.origin
        assert SECRET not in msgspec.json.encode(found).decode()

    async def test_runs_of_other_agents_are_not_found(self, backend: RunnerBackend) -> None:
        async with backend.life() as runner:
            await end_of(runner, await _launched(runner, backend, Play()))
            assert not await runner.find("somebody-else")

    async def test_the_log_tail_has_the_last_lines_of_both_streams(
        self, backend: RunnerBackend
    ) -> None:
        play = Play(prints=tuple(f"line {n}" for n in range(10)), prints_errors=("oops",))
        async with backend.life() as runner:
            handle = await _launched(runner, backend, play)
            await end_of(runner, handle)
            assert await runner.log_tail(handle, lines=3) == ("line 8", "line 9", "oops")

    async def test_a_log_is_followed_from_its_first_line_to_the_runs_end(
        self, backend: RunnerBackend
    ) -> None:
        play = Play(prints=("first", "second"), seconds=1, on_term="leave", prints_errors=("oops",))
        async with backend.life() as runner:
            handle = await _launched(runner, backend, play)
            text = await _log(runner, handle)
            await end_of(runner, handle)
            again = await _log(runner, handle)
        assert text.split() == [b"first", b"second", b"oops"]
        assert again == text

    async def test_who_stops_reading_a_log_disturbs_nobody(self, backend: RunnerBackend) -> None:
        async with backend.life() as runner:
            play = Play(prints=("up",), seconds=1, exit_code=9)
            handle = await _launched(runner, backend, play)
            with anyio.fail_after(LOG_SECONDS):
                async with aclosing(runner.logs(handle)) as pieces:
                    assert await anext(pieces)
            assert (await end_of(runner, handle)).exit_code == 9

    async def test_removing_twice_leaves_nothing_to_find(self, backend: RunnerBackend) -> None:
        async with backend.life() as runner:
            handle = await _launched(runner, backend, Play(prints=("up",)))
            await end_of(runner, handle)
            await runner.remove(handle)
            await runner.remove(handle)
            assert not await runner.find(backend.identity)
            assert await runner.log_tail(handle, lines=3) == ()
            assert await _log(runner, handle) == b""

    async def test_a_run_that_was_removed_by_somebody_is_no_success(
        self, backend: RunnerBackend
    ) -> None:
        async with backend.life() as runner, backend.life() as other:
            handle = await _launched(runner, backend, LONG)
            await printed(runner, handle, "up")
            await other.remove(handle)
            end = await end_of(runner, handle)
        assert not end.clean

    async def test_two_watches_both_see_the_end(self, backend: RunnerBackend) -> None:
        async with backend.life() as runner:
            handle = await _launched(runner, backend, Play(seconds=0.5, exit_code=6))
            codes: list[int | None] = []

            async def follow() -> None:
                codes.append((await end_of(runner, handle)).exit_code)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                tasks.start_soon(follow)
        assert codes == [6, 6]

    async def test_a_watch_that_is_left_leaves_the_run_alone(self, backend: RunnerBackend) -> None:
        async with backend.life() as runner:
            handle = await _launched(runner, backend, Play(seconds=1, exit_code=8))
            async with aclosing(runner.watch(handle)) as watch:
                assert (await anext(watch)).end is None
            assert (await end_of(runner, handle)).exit_code == 8

    async def test_a_backend_out_of_reach_is_no_verdict_on_the_run(
        self, backend: RunnerBackend
    ) -> None:
        cut_off = backend.cut_off()
        if cut_off is None:
            pytest.skip("this backend cannot be out of reach")
        async with backend.life() as runner:
            handle = await _launched(runner, backend, Play(seconds=1, exit_code=11))
            async with aclosing(runner.watch(handle)) as watch:
                assert (await anext(watch)).end is None
                async with cut_off:
                    await anyio.sleep(1.5)  # the run ends meanwhile
                assert (await end_of(runner, handle)).exit_code == 11
                with anyio.fail_after(LOG_SECONDS):
                    ends = [status.end async for status in watch if status.end is not None]
        assert [end.exit_code for end in ends] == [11]

    async def test_the_run_sees_its_environment_arguments_and_secrets(
        self, backend: RunnerBackend
    ) -> None:
        play = Play(shows=("NAME", "WANDB_API_KEY"), shows_args=True)
        order = order_for(
            backend, play, args=("first", "second word"), environment={"NAME": "given"}
        )
        async with backend.life() as runner:
            handle = await runner.launch(order)
            await end_of(runner, handle)
            tail = await runner.log_tail(handle, lines=3)
        assert tail == ("NAME=given", f"WANDB_API_KEY={SECRET}", "args: first second word")

    async def test_the_same_run_for_a_new_item_starts_anew_once_the_old_has_ended(
        self, backend: RunnerBackend
    ) -> None:
        async with backend.life() as runner:
            old = await _launched(runner, backend, LONG, run_id="again")
            anew = order_for(backend, Play(), run_id="again", item_id="item-2")
            with pytest.raises(ItemError, match="still runs for another item") as refused:
                await runner.launch(anew)
            assert refused.value.reason is Reason.LAUNCH_FAILED
            await runner.cancel(old, within_seconds=0)
            await end_of(runner, old)
            new = await runner.launch(anew)
            assert (await end_of(runner, new)).clean

    async def test_the_handle_of_an_earlier_item_does_no_harm_to_the_same_runs_new_one(
        self, backend: RunnerBackend
    ) -> None:
        async with backend.life() as runner:
            old = await _launched(runner, backend, Play(), run_id="twice")
            await end_of(runner, old)
            play = Play(seconds=1, exit_code=12)
            anew = order_for(backend, play, run_id="twice", item_id="item-2")
            new = await runner.launch(anew)
            await runner.cancel(old, within_seconds=0)
            await runner.remove(old)
            assert (await end_of(runner, new)).exit_code == 12


async def _launched(
    runner: Runner, backend: RunnerBackend, play: Play, *, run_id: str | None = None
) -> RunHandle:
    return await runner.launch(order_for(backend, play, run_id=run_id))


async def _log(runner: Runner, handle: RunHandle) -> bytes:
    with anyio.fail_after(LOG_SECONDS):
        async with aclosing(runner.logs(handle)) as pieces:
            return b"".join([piece async for piece in pieces])
