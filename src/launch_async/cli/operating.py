"""`launch-async agent status`, `top`, `drain` and so on: what a running agent is asked and told."""

import signal
import sys

import anyio
import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from launch_async.cli.connection import Connected, connected
from launch_async.cli.kinds import Seconds
from launch_async.cli.output import LOG_LEVELS
from launch_async.cli.view import FEW_QUEUES, ago, lines_beside_items, look
from launch_async.config.model import MAX_SECONDS
from launch_async.domain.errors import LaunchError
from launch_async.ports.control import Explanation

WIDE = 1000  # columns of what is no terminal: lines are not cut there
SHOWN_ITEMS = 20
TOP_ITEMS = 200


@click.command(name="status")
@click.option("--items", type=click.IntRange(0, 1_000), default=SHOWN_ITEMS, help="At most.")
@click.option(
    "--check",
    "probe",
    type=click.Choice(["livez", "readyz"]),
    help="Ask this probe instead: exit code 0 if it is content, else 1.",
)
@connected
async def status(agent: Connected, *, items: int, probe: str | None) -> int:
    """Show the agent, its queues and its open items."""
    if probe:
        content, text = await agent.client.check(probe)
        agent.show({"ok": content, "checks": text.splitlines()[1:]}, text.rstrip())
        return 0 if content else 1
    view = await agent.client.status(items=items)
    if agent.as_json:
        agent.show(view, "")
        return 0
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else WIDE, highlight=False)
    console.print(look(view, width=console.width if terminal else None, items=items))
    return 0


@click.command(name="top")
@click.option("--interval", type=Seconds(0.2, 3600), default=1.0, help="Seconds.")
@connected
async def top(agent: Connected, *, interval: float) -> int:
    """Watch the agent live, until Ctrl-C."""
    if agent.as_json or not sys.stdout.isatty():
        msg = "top needs a terminal; for programs there is `launch-async agent status --json`"
        raise LaunchError(msg)
    console = Console(highlight=False)
    await agent.client.status(items=0)  # nobody there: say so, and end
    async with anyio.create_task_group() as group:
        group.start_soon(_end_at_interrupt, group.cancel_scope)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(await _screen(agent, console), refresh=True)
                await anyio.sleep(interval)
    return 0


@click.command(name="explain")
@click.argument("queue")
@connected
async def explain_queue(agent: Connected, *, queue: str) -> None:
    """Say why a queue is as it is: paused, full, resting or not answering."""
    explanation = await agent.client.explain_queue(queue)
    agent.show(explanation, in_words(explanation))


@click.command(name="drain")
@click.option(
    "--timeout",
    "seconds",
    type=Seconds(0, MAX_SECONDS),
    help="Seconds after which open items are let go. Default: none.",
)
@connected
async def drain(agent: Connected, *, seconds: float | None) -> None:
    """Take nothing new; end when open items have ended.

    With --timeout they are let go after it: they keep running, and the next start takes them over.
    """
    await agent.client.drain(timeout_seconds=seconds)
    told = "the agent takes nothing new and ends with its open items"
    if seconds is not None:
        told += f", or lets go of them after {seconds:g} s"
    agent.show({"draining": True, "timeout_seconds": seconds}, told)


@click.command(name="pause")
@click.argument("queue")
@connected
async def pause(agent: Connected, *, queue: str) -> None:
    """Take nothing from QUEUE until it is resumed, over restarts too; its open items go on."""
    await agent.client.pause(queue)
    agent.show({"queue": queue, "paused": True}, f"{queue} is paused")


@click.command(name="resume")
@click.argument("queue")
@connected
async def resume(agent: Connected, *, queue: str) -> None:
    """Take from QUEUE again."""
    await agent.client.resume(queue)
    agent.show({"queue": queue, "paused": False}, f"{queue} is polled again")


@click.command(name="reload")
@connected
async def reload(agent: Connected) -> None:
    """Read the configuration file again, as SIGHUP does; print what changed."""
    changes = await agent.client.reload()
    agent.show({"changes": changes}, "\n".join(changes) or "nothing changed")


@click.command(name="loglevel")
@click.argument("level", type=click.Choice(LOG_LEVELS))
@connected
async def loglevel(agent: Connected, *, level: str) -> None:
    """Log more or less from now on."""
    await agent.client.set_log_level(level)
    agent.show({"level": level}, f"the agent logs {level} and graver")


def in_words(explanation: Explanation) -> str:
    """An explanation for people."""
    since = "" if explanation.seconds is None else f" for {ago(explanation.seconds)}"
    lines = [f"{explanation.subject}: {explanation.state}{since}"]
    reasons = [reason for reason in explanation.reasons if reason != explanation.state]
    lines += [f"  because  {reason}" for reason in reasons]
    lines.append(f"  next     {explanation.next}")
    return "\n".join(lines)


async def _end_at_interrupt(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async for _ in received:
            scope.cancel()
            return


async def _screen(agent: Connected, console: Console) -> RenderableType:
    """One picture that fits the terminal; an agent that is away may come back."""
    try:
        view = await agent.client.status(items=TOP_ITEMS)
    except LaunchError as error:
        return Text(f"{error}\n\nasking again; Ctrl-C ends", style="bold red")
    room = console.height - lines_beside_items(view, queues=FEW_QUEUES)
    return look(view, width=console.width, items=max(1, room), queues=FEW_QUEUES)
