"""`launch-async agent`: W&B's `wandb launch-agent`, with the same flags.

With a command behind it (`launch-async agent status`) it asks an agent that runs already. What runs
an agent and what asks one are imported when they are needed: both take their time.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import click
import structlog
from click.core import ParameterSource

from launch_async.cli.check import check_config
from launch_async.cli.output import UsageFault, set_up_logs
from launch_async.config.model import LaunchConfig
from launch_async.config.paths import home_dir
from launch_async.config.sources import Flags, read_settings
from launch_async.domain.errors import ConfigError

OPERATING = {
    "drain": "drain",
    "explain": "explain_queue",
    "loglevel": "loglevel",
    "pause": "pause",
    "reload": "reload",
    "resume": "resume",
    "status": "status",
    "top": "top",
}
"""Commands for an agent that runs, by their names in `cli.operating`."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Operating(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names for the help text."""
        return list(OPERATING)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, or None for a name that is not one."""
        if cmd_name not in OPERATING:
            return None
        module = importlib.import_module("launch_async.cli.operating")
        command: click.Command = getattr(module, OPERATING[cmd_name])
        return command


@click.group(cls=Operating, invoke_without_command=True, context_settings={"show_default": True})
@click.option("-q", "--queue", "queues", multiple=True, help="Queue to poll; replaces the file's.")
@click.option("-e", "--entity", help="Owner of the queues. Default: the login's own.")
@click.option("-j", "--max-jobs", type=click.IntRange(min=-1), help="Items at once; -1: no limit.")
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Config file.")
@click.option("-l", "--log-file", help="Where logs go; - is stdout. Default: stderr.")
@click.option("-v", "--verbose", count=True, help="More logs.")
@click.option(
    "--check-config", "check", is_flag=True, help="Show the settings and known traps, and end."
)
@click.pass_context
def agent(
    context: click.Context,
    *,
    queues: tuple[str, ...],
    entity: str | None,
    max_jobs: int | None,
    path: Path | None,
    log_file: str | None,
    verbose: int,
    check: bool,
) -> None:
    """Take items from queues and run them here. Reads W&B's launch-config.yaml.

    With a command: asks an agent that runs, found by -c or --admin.

    Exit codes: 0 stopped, 2 a setting is wrong, 3 a person must act.
    """
    if context.invoked_subcommand:
        _refuse_flags_of_a_start(context)
        return
    flags = Flags(queues=queues, entity=entity, max_jobs=max_jobs, verbosity=verbose)
    try:
        settled = read_settings(path, os.environ, flags)
        if check:
            check_config(settled, os.environ, home=home_dir(), working_dir=Path())
            return
        config = settled.config
        set_up_logs(verbosity=config.verbosity, log_file=log_file)
    except ConfigError as error:
        raise UsageFault(str(error)) from error
    for warning in settled.loaded.warnings:
        log.warning("setting ignored", where=warning)
    for name in config.unused():
        log.warning("setting has no effect in this version", name=name)

    run_agent: Callable[[LaunchConfig, Callable[[], LaunchConfig]], None] = importlib.import_module(
        "launch_async.cli.running"
    ).run_agent
    run_agent(config, lambda: read_settings(path, os.environ, flags).config)


def _refuse_flags_of_a_start(context: click.Context) -> None:
    """Before a command only -c has a meaning; others would do nothing."""
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name != "path" and source is ParameterSource.COMMANDLINE:
            command = context.invoked_subcommand
            msg = f"{param.opts[0]} is for the start of an agent; `{command}` does not take it"
            raise click.UsageError(msg)
