"""`launch-async item`: one open item of a running agent."""

import sys
from contextlib import aclosing

import click
import msgspec

from launch_async.cli.connection import Connected, connected
from launch_async.cli.operating import in_words
from launch_async.cli.output import EXIT_FAILED, PREFIX
from launch_async.cli.view import ago
from launch_async.ports.status import QueueView
from launch_async.sdk.agent import NotOpen

LOG_LINES = 100


@click.group()
def item() -> None:
    """Explain, cancel or follow one open item of a running agent."""


@item.command()
@click.argument("item_id", metavar="ID")
@connected
async def explain(agent: Connected, *, item_id: str) -> int:
    """Say why an item is where it is, and what comes next.

    Of an item that the agent has not taken it says why nothing, or not more, is taken.
    """
    try:
        explanation = await agent.client.explain_item(item_id)
    except NotOpen as error:
        queues = await agent.client.queues()
        if agent.as_json:
            agent.show({"error": str(error), "queues": queues}, "")
        else:
            sys.stderr.write(f"{PREFIX}{error}\n")
            click.echo("\n".join(_why_it_may_wait(queue) for queue in queues))
        return EXIT_FAILED
    agent.show(explanation, in_words(explanation))
    return 0


@item.command()
@click.argument("item_id", metavar="ID")
@connected
async def cancel(agent: Connected, *, item_id: str) -> None:
    """End an item, in whatever phase; a run is asked to, and made to after stopped_run_timeout."""
    await agent.client.cancel(item_id)
    agent.show({"item": item_id, "cancelling": True}, f"{item_id} is being ended")


@item.command()
@click.argument("item_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("-n", "--lines", type=click.IntRange(0, 10_000), default=LOG_LINES, help="The last.")
@connected
async def logs(agent: Connected, *, item_id: str, follow: bool, lines: int) -> None:
    """Print what an item's run prints; with --json one string of JSON for each piece."""
    if not follow:
        tail = await agent.client.log_tail(item_id, lines=lines)
        if lines and not tail and not agent.as_json:
            said = f"nothing is printed yet; `launch-async item explain {item_id}` says where it is"
            sys.stderr.write(f"{PREFIX}{said}\n")
        _print(agent, tail)
        return
    async with aclosing(agent.client.follow(item_id)) as pieces:
        async for piece in pieces:
            _print(agent, piece)


def _print(agent: Connected, piece: bytes) -> None:
    if agent.as_json:
        piece = msgspec.json.encode(piece.decode(errors="replace")) + b"\n"
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _why_it_may_wait(queue: QueueView) -> str:
    since = queue.seconds_since_poll
    looked = "not looked into yet" if since is None else f"looked into {ago(since)} ago"
    held = "; ".join(queue.missing) or "nothing holds it back"
    held = f"not answering: {queue.fault}" if queue.fault else held
    return f"  queue {queue.name}: {held}; {looked}"
