"""What every task of the agent waits for: its name and its stack, for `/debug/tasks`."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any

import msgspec

MAX_FRAMES = 12
OURS = "launch_async/"


class TaskView(msgspec.Struct, frozen=True):
    """One task."""

    name: str
    stack: tuple[str, ...]
    """Where it waits, outermost first: `function file:line`."""


class TasksView(msgspec.Struct, frozen=True):
    """The tasks of the loop."""

    tasks: int
    waiting_at: dict[str, int]
    """How many wait at the same place: the innermost frame of ours."""
    shown: tuple[TaskView, ...]


def tasks_now(*, name: str, limit: int) -> TasksView:
    """All tasks, those whose name begins with `name` in full, at most `limit` of them."""
    stacks = [(task.get_name(), tuple(_stack(task))) for task in asyncio.all_tasks()]
    places = Counter(_place(stack) for _, stack in stacks)
    chosen = sorted((name_, stack) for name_, stack in stacks if name_.startswith(name))
    return TasksView(
        tasks=len(stacks),
        waiting_at=dict(places.most_common(50)),
        shown=tuple(TaskView(*task) for task in chosen[:limit]),
    )


def _place(stack: tuple[str, ...]) -> str:
    """The innermost frame of ours; a task of a library's has only the library's."""
    return next((frame for frame in reversed(stack) if OURS in frame), "elsewhere")


def _stack(task: "asyncio.Task[Any]") -> Iterator[str]:
    """Frames of the coroutine and of what it awaits; a task's own `get_stack` ends at the first."""
    awaited: Any = task.get_coro()
    for _ in range(MAX_FRAMES):
        frame: FrameType | None = getattr(awaited, "cr_frame", None) or getattr(
            awaited, "ag_frame", None
        )
        if frame is None:
            return
        code = frame.f_code
        _, ours, within = code.co_filename.rpartition(OURS)
        file = ours + within if ours else "/".join(within.rsplit("/", 2)[-2:])
        yield f"{code.co_qualname} {file}:{frame.f_lineno}"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
