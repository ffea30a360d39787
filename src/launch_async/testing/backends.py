"""What the checks need of a backend, and what they do with any runner."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Protocol
from uuid import uuid4

import anyio

from launch_async.domain.ids import ItemId, QueueRef, RunId, RunRef
from launch_async.domain.run import Origin, RunEnd, RunHandle, RunStatus
from launch_async.domain.secret import Secret
from launch_async.ports.runner import LaunchOrder, Runner, Work
from launch_async.testing.plays import Play

SECRET = "local-5ecre7-va1ue"  # noqa: S105 - planted, to be found where it must not be
END_SECONDS = 40.0
PRINTED_SECONDS = 20.0


class RunnerBackend(Protocol):
    """One place where runs go, and what only a test may do to it."""

    @property
    def identity(self) -> str:
        """An identity that no other test uses at the same time."""
        ...

    def life(self) -> AbstractAsyncContextManager[Runner]:
        """A fresh runner, as in a new life of the agent, with its `serve` going."""
        ...

    def work(self, play: Play) -> Work:
        """Something that the runner can start and that does this; `play.shell` may help."""
        ...

    def kill_from_outside(self, handle: RunHandle) -> None:
        """Kill the run (SIGKILL, or what is like it), not by the runner."""
        ...

    def cut_off(self) -> AbstractAsyncContextManager[None] | None:
        """A block during which the runner cannot reach its backend; None: that cannot be."""
        ...


def order_for(
    backend: RunnerBackend,
    play: Play,
    *,
    run_id: str | None = None,
    item_id: str = "item-1",
    args: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    resource_args: Mapping[str, Any] | None = None,
) -> LaunchOrder:
    """An order as the agent makes it; each has a run id of its own unless one is given."""
    origin = Origin(
        identity=backend.identity,
        life="one",
        service="http://service.example",
        item_id=ItemId(item_id),
        queue=QueueRef("team", "model-registry", "queue"),
        run=RunRef("team", "project", RunId(run_id or f"t{uuid4().hex[:7]}")),
        resource="a-resource",
        job="team/project/job:latest",
        author="ann",
        lease="f" * 32,
        popped_at=1.5,
        launched_at=2.5,
    )
    return LaunchOrder(
        origin=origin,
        work=backend.work(play),
        args=args,
        environment=environment or {},
        secrets={"WANDB_API_KEY": Secret(SECRET)},
        resource_args=resource_args or {},
    )


async def statuses(runner: Runner, handle: RunHandle) -> list[RunStatus]:
    """All that a watch says, which must come to its end."""
    seen: list[RunStatus] = []
    with anyio.fail_after(END_SECONDS):
        async with aclosing(runner.watch(handle)) as watch:
            async for status in watch:
                seen.append(status)  # noqa: PERF401
    return seen


async def end_of(runner: Runner, handle: RunHandle) -> RunEnd:
    """How the run ended."""
    end = (await statuses(runner, handle))[-1].end
    if end is None:
        raise AssertionError("the last status of a watch has no end")
    return end


async def printed(runner: Runner, handle: RunHandle, text: str) -> None:
    """Return once the run has printed `text`."""
    seen = b""
    with anyio.fail_after(PRINTED_SECONDS):
        async with aclosing(runner.logs(handle)) as pieces:
            async for piece in pieces:
                seen += piece
                if text.encode() in seen:
                    return
    raise AssertionError(f"the run ended without {text!r}; it printed {seen!r}")
