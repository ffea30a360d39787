"""`launch-async`: the command and its subcommands.

Each subcommand is a module of this package that is imported when it is asked for, so that an agent
does not pay for the control plane's imports.
"""

import importlib
import io
import sys

import click

from launch_async import __version__
from launch_async.kit.heap import loading

SUBCOMMANDS = ("admin", "agent", "fetch-code", "item", "server", "up")


class Subcommands(click.Group):
    """Finds the command `NAME` in `launch_async.cli.NAME`, dashes as underscores."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names for the help text."""
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, or None for a name that is not one."""
        if cmd_name not in SUBCOMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        with loading():
            module = importlib.import_module(f"launch_async.cli.{name}")
        command: click.Command = getattr(module, name)
        return command


@click.group(cls=Subcommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="launch-async")
def main() -> None:
    """W&B Launch, open, fast and crash-safe."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # one that lacks a letter still shows the others
            stream.reconfigure(errors="backslashreplace")
