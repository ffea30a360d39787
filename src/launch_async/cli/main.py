"""`launch-async`: the command and its subcommands."""

import click

from launch_async import __version__
from launch_async.cli.agent import agent
from launch_async.cli.server import server
from launch_async.cli.up import up


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="launch-async")
def main() -> None:
    """W&B Launch, open, fast and crash-safe."""


main.add_command(agent)
main.add_command(server)
main.add_command(up)
