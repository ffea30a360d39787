"""Shows an item's way: a live display on a terminal, a line per change elsewhere."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import IO, Any

import anyio
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from launch_async.sdk.client import CLEAN_STATES, ItemStatus, RunStatus
from launch_async.sdk.follow import Progress

MAX_METRICS = 6
REFRESH_PER_SECOND = 8


def plain_console(file: IO[str] | None = None) -> Console:
    """A console that shows names and messages as they are: they are not ours."""
    return Console(file=file, highlight=False, markup=False, emoji=False)


async def show(progress: AsyncGenerator[Progress, None], console: Console) -> Progress:
    """Follow to the end; the last progress."""
    shown = _Display(console)
    async with aclosing(progress) as changes:
        with shown.live:
            async for change in changes:
                shown.update(change)
    return shown.last


def summary(end: Progress, *, url: str, console: Console, seconds: float) -> bool:
    """Print the result; whether it is a good one."""
    good = end.item.state in CLEAN_STATES
    mark = Text("finished", style="bold green") if good else Text(end.word, style="bold red")
    console.print(mark, f"after {seconds:.1f} s")
    if end.item.message:
        console.print(end.item.message, style="red")
    if end.run is not None:
        console.print(f"  run      {end.run.name} ({end.run.state})")
        console.print(f"  config   {_pairs(end.run.config)}")
        console.print(f"  summary  {_metrics(end.run)}")
        console.print(f"  logged   {end.run.steps} steps")
        console.print(f"  address  {url}", soft_wrap=True)
    return good


class _Display:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = anyio.current_time()
        self._times: dict[str, float] = {}
        self._spinner = Spinner("dots")
        self.last = Progress(item=ItemStatus(state="PENDING"))
        self.live = Live(
            console=console,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            auto_refresh=console.is_terminal,
        )

    def update(self, progress: Progress) -> None:
        word = progress.word
        if word not in self._times:
            self._times[word] = anyio.current_time()
            self._console.print(f"{anyio.current_time() - self._began:6.1f} s  {word}")
        self.last = progress
        if self._console.is_terminal:
            self.live.update(self._table(progress))

    def _table(self, progress: Progress) -> Table:
        grid = Table.grid(padding=(0, 1))
        seconds = anyio.current_time() - self._times[progress.word]
        self._spinner.update(text=f"{progress.word} {seconds:.0f} s")
        grid.add_row(self._spinner, Text(_metrics(progress.run) if progress.run else ""))
        return grid


def _metrics(run: RunStatus) -> str:
    shown = {key: value for key, value in run.summary.items() if not key.startswith("_")}
    step = run.summary.get("_step")
    text = _pairs(dict(list(shown.items())[:MAX_METRICS]))
    return f"step={step} {text}" if step is not None else text


def _pairs(values: Mapping[str, Any]) -> str:
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in values.items()
    )
