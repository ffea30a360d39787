"""`launch-async fetch-code`: puts a job's code into a pod, before its run begins there."""

import os
from pathlib import Path

import click

from launch_async.cli.output import run_async, set_up_logs
from launch_async.compose.fetching import fetch_code as fetch
from launch_async.ports.runner import CODE_DIRECTORY


@click.command("fetch-code")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default=CODE_DIRECTORY,
    help="The folder, which is emptied first.",
)
def fetch_code(into: Path) -> None:
    """Fetch a job's code into a folder; what, the agent says in variables of its container."""
    set_up_logs(verbosity=0)

    async def main() -> int:
        await fetch(into, os.environ)
        return 0

    run_async(main, use_uvloop=False)
