"""What only runs on this machine promise: they survive their agent, and keep secrets."""

import os
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import anyio
import msgspec
import pytest
from runner_backends import ProcessBackend, make_order

from launch_async.adapters.runners.process.records import Record
from launch_async.adapters.runners.process.runner import ProcessRunner
from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.run import RunState, Trace
from launch_async.kit.procs import group_members
from launch_async.ports.runner import ImageWork
from launch_async.testing import SECRET, end_of, printed, statuses

pytestmark = pytest.mark.anyio

AGENT = """
import sys, anyio
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from runner_backends import ProcessBackend, make_order

async def main():
    backend = ProcessBackend(Path(sys.argv[2]))
    backend.identity = "the-agent"
    async with backend.life() as runner:
        await runner.launch(make_order(backend, sys.argv[3], run_id="survivor"))
        print("launched", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.fixture
def backend(tmp_path: Path) -> ProcessBackend:
    return ProcessBackend(tmp_path / "state")


def killed_agent(state_dir: Path, script: str) -> None:
    """An agent that launched `script` and was then killed without any chance to say so."""
    here = str(Path(__file__).parent)
    argv = [sys.executable, "-c", AGENT, here, str(state_dir), script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        while "launched" not in agent.stdout.readline():
            assert agent.poll() is None
        agent.kill()


async def test_a_run_outlives_a_killed_agent_and_its_end_is_known(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    await anyio.to_thread.run_sync(killed_agent, state_dir, "sleep 1; echo done; exit 9")
    backend = ProcessBackend(tmp_path / "other")
    backend.state_dir = state_dir
    async with backend.life() as runner:
        (found,) = await runner.find("the-agent")
        handle = found.handle
        seen = await statuses(runner, handle)
        assert await runner.log_tail(handle, lines=1) == ("done",)
    assert [status.state for status in seen] == [RunState.RUNNING, RunState.ENDED]
    assert seen[-1].end is not None
    assert seen[-1].end.exit_code == 9


async def test_a_run_whose_shim_is_killed_runs_on_and_ends_as_vanished(
    backend: ProcessBackend,
) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "sleep 1"))
        async with aclosing(runner.watch(handle)) as watch:
            assert (await anext(watch)).detail == ""
            os.kill(handle.data["shim_pid"], signal.SIGKILL)
            lost = await anext(watch)
            end = (await anext(watch)).end
    assert (lost.state, lost.detail) == (
        RunState.RUNNING,
        "its shim is gone; the job runs on",
    )
    assert end is not None
    assert (end.exit_code, end.reason) == (None, Reason.VANISHED)


async def test_a_run_without_its_shim_can_be_cancelled(backend: ProcessBackend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "trap '' TERM; sleep 60; sleep 60"))
        os.kill(handle.data["shim_pid"], signal.SIGKILL)
        with anyio.fail_after(10):
            await runner.cancel(handle, within_seconds=0.2)
            end = await end_of(runner, handle)
    assert end.reason is Reason.VANISHED
    with anyio.fail_after(10):  # who was killed takes a moment to die
        while group_members(handle.data["pid"]):
            await anyio.sleep(0.01)


async def test_a_record_of_another_boot_has_vanished(backend: ProcessBackend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "exit 0"))
        await end_of(runner, handle)
        folder = Record(backend.state_dir / "runs", handle.run_id).folder
        (folder / "ended.json").unlink()
        for name in ("shim.json", "started.json"):
            text = (folder / name).read_text()
            boot = text.partition('"boot_id": "')[2].partition('"')[0]
            (folder / name).write_text(text.replace(boot, "another-boot"))
        end = await end_of(runner, handle)
    assert end.reason is Reason.VANISHED
    assert end.detail == "the machine restarted while it ran"


async def test_an_order_that_never_began_is_begun_and_not_found_before(
    backend: ProcessBackend,
) -> None:
    order = make_order(backend, "echo once")
    async with backend.life() as runner:
        handle = await runner.launch(order)
        await end_of(runner, handle)
        record = Record(backend.state_dir / "runs", handle.run_id)
        asked = record.read().order
        assert asked is not None
        record.forget()
        record.write_order(asked)  # as if the agent had been killed before it spawned a shim
        (found,) = await runner.find(backend.identity)
        assert found.trace is Trace.PREPARED
        await end_of(runner, await runner.launch(order))
        assert await runner.log_tail(handle, lines=5) == ("once",)


async def test_a_cancel_reaches_children_and_grandchildren(backend: ProcessBackend) -> None:
    script = "(trap '' TERM; sleep 61; sleep 61) & setsid sleep 61 & echo up; wait"
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, script))
        await printed(runner, handle, "up")
        shim_children = Path(f"/proc/{handle.data['pid']}/task/{handle.data['pid']}/children")
        children = [int(pid) for pid in shim_children.read_text().split()]
        with anyio.fail_after(20):
            await runner.cancel(handle, within_seconds=0.2)
            await end_of(runner, handle)
    assert len(children) == 2
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


async def test_nothing_is_left_of_a_job_that_ends_before_its_children(
    backend: ProcessBackend,
) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "sleep 62 & exit 0"))
        assert (await end_of(runner, handle)).clean
    assert group_members(handle.data["pid"]) == ()


async def test_the_shims_are_no_zombies_after_the_end(backend: ProcessBackend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "exit 0"))
        await end_of(runner, handle)
        assert not Path(f"/proc/{handle.data['shim_pid']}").exists()


async def test_a_program_that_is_missing_is_named(backend: ProcessBackend) -> None:
    order = make_order(backend, "")
    work = order.work.__class__(
        directory=backend.code,
        bin_directory=backend.state_dir / "bin",
        entrypoint=("no-such-program", "x"),
    )
    async with backend.life() as runner:
        handle = await runner.launch(msgspec.structs.replace(order, work=work))
        end = await end_of(runner, handle)
    assert (end.exit_code, end.reason) == (127, Reason.LAUNCH_FAILED)
    assert "no-such-program: No such file" in end.detail


async def test_the_job_sees_nothing_of_the_agents_environment(
    backend: ProcessBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_ONLY", "agents-business")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:password@index.invalid")
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "env; trap"))
        await end_of(runner, handle)
        seen = await runner.log_tail(handle, lines=100)
    names = {line.partition("=")[0] for line in seen}
    assert {"AGENT_ONLY", "PIP_INDEX_URL"}.isdisjoint(names)
    assert {"HOME", "LANG", "HTTPS_PROXY", "VIRTUAL_ENV", "WANDB_DIR", "WANDB_API_KEY"} <= names
    assert any(line.startswith(f"PATH={backend.state_dir}/env/bin:") for line in seen)


async def test_the_job_gets_default_signals_although_its_shim_stays(
    backend: ProcessBackend,
) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "grep Sig /proc/self/status; sleep 63"))
        await printed(runner, handle, "SigCgt")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(handle.data["shim_pid"], number)
        lines = await runner.log_tail(handle, lines=10)
        await runner.cancel(handle, within_seconds=5)
        end = await end_of(runner, handle)
    ignored = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn"))
    asked = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE]
    assert not [number for number in asked if ignored & 1 << (number - 1)]
    assert end.signal == signal.SIGTERM


async def test_secrets_are_in_no_file_and_no_command_line(backend: ProcessBackend) -> None:
    async with backend.life() as runner:
        handle = await runner.launch(make_order(backend, "echo up; sleep 64"))
        await printed(runner, handle, "up")
        words = [
            Path(f"/proc/{handle.data[name]}/cmdline").read_bytes() for name in ("pid", "shim_pid")
        ]
        words.append(Path(f"/proc/{handle.data['shim_pid']}/environ").read_bytes())
        words += [path.read_bytes() for path in backend.state_dir.rglob("*") if path.is_file()]
        mode = Record(backend.state_dir / "runs", handle.run_id).folder.stat().st_mode
        await runner.cancel(handle, within_seconds=5)
        await end_of(runner, handle)
    assert len(words) > 6
    assert not [text for text in words if SECRET.encode() in text]
    assert mode & 0o777 == 0o700


async def test_an_image_is_refused_with_the_remedy(backend: ProcessBackend) -> None:
    order = msgspec.structs.replace(make_order(backend, ""), work=ImageWork(image="busybox"))
    async with backend.life() as runner:
        with pytest.raises(ItemError, match="use a local-container queue") as refused:
            await runner.launch(order)
    assert refused.value.reason is Reason.TARGET_UNSUPPORTED


async def test_a_log_over_its_limit_gives_back_its_older_part_and_keeps_its_end(
    backend: ProcessBackend,
) -> None:
    limit = 1 << 20
    script = "i=0; while [ $i -lt 200000 ]; do echo line $i of a flood; i=$((i+1)); done; echo end"
    runner = ProcessRunner(backend.state_dir, log_bytes=limit)
    handle = await runner.launch(make_order(backend, script))
    assert (await end_of(runner, handle)).clean
    facts = Record(backend.state_dir / "runs", handle.run_id).output.stat()
    assert facts.st_size > 4 * limit
    assert facts.st_blocks * 512 <= limit
    assert (await runner.log_tail(handle, lines=1)) == ("end",)
    left = b"".join([piece async for piece in runner.logs(handle)])
    assert limit / 4 < len(left) <= limit
    assert left.endswith(b"line 199999 of a flood\nend\n")
    assert b"\0" not in left
    await runner.close()


async def test_a_job_goes_on_writing_while_its_log_is_cut(backend: ProcessBackend) -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo flooded; sleep 3; echo later"
    runner = ProcessRunner(backend.state_dir, log_bytes=1 << 20)
    handle = await runner.launch(make_order(backend, script))
    assert (await end_of(runner, handle)).clean
    assert (await runner.log_tail(handle, lines=2)) == ("flooded", "later")
    assert (
        Record(backend.state_dir / "runs", handle.run_id).output.stat().st_blocks * 512 <= 1 << 20
    )
    await runner.close()
