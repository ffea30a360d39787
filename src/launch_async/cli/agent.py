"""`launch-async agent`: W&B's `wandb launch-agent`, with the same flags.

With a command behind it (`launch-async agent status`) it asks an agent that runs already.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import anyio
import click
import structlog

from launch_async.admin.app import serving
from launch_async.admin.operated import Operations
from launch_async.agent.agent import Agent
from launch_async.cli.addresses import address_of
from launch_async.cli.check import check_config
from launch_async.cli.output import UsageFault, run_async, set_log_level, set_up_logs
from launch_async.cli.signals import on_signals
from launch_async.compose.agent import open_agent
from launch_async.config.admin import find_agent_token
from launch_async.config.login import find_login
from launch_async.config.model import LaunchConfig
from launch_async.config.sources import Flags, read_settings
from launch_async.domain.errors import ConfigError, cannot_listen
from launch_async.domain.secret import Secret

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
    """Imports a command when it is asked for: an agent has no use for what draws tables."""

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
        return
    flags = Flags(queues=queues, entity=entity, max_jobs=max_jobs, verbosity=verbose)
    try:
        settled = read_settings(path, os.environ, flags)
        if check:
            check_config(settled, os.environ, home=Path.home(), working_dir=Path.cwd())
            return
        config = settled.config
        set_up_logs(verbosity=config.verbosity, log_file=log_file)
    except ConfigError as error:
        raise UsageFault(str(error)) from error
    for warning in settled.loaded.warnings:
        log.warning("setting ignored", where=warning)
    for name in config.unused():
        log.warning("setting has no effect in this version", name=name)

    async def main() -> int:
        return await _run(config, lambda: read_settings(path, os.environ, flags).config)

    run_async(main, use_uvloop=config.loop == "uvloop")


async def _run(config: LaunchConfig, read_config: Callable[[], LaunchConfig]) -> int:
    login = find_login(os.environ, home=Path.home(), working_dir=Path.cwd())
    token = _token(config)
    opened: list[Agent] = []

    def stop(cause: str) -> None:
        """Before the agent is open nothing is under way: leave at once."""
        if opened:
            opened[0].stop(cause)
        else:
            tasks.cancel_scope.cancel()

    async def reload() -> None:
        """As the admin endpoint's; what is wrong is logged, and changes nothing."""
        try:
            for agent in opened:
                await agent.reload()
        except ConfigError as error:
            log.error("configuration not reloaded", reason=str(error))

    async with anyio.create_task_group() as tasks:
        await tasks.start(on_signals, stop, reload)
        async with open_agent(config, login, os.environ, read_config=read_config) as agent:
            opened.append(agent)
            admin = config.agent.admin
            await run_with_admin(agent, admin, setting="agent.admin", token=token)
        tasks.cancel_scope.cancel()
    return 0


async def run_with_admin(
    agent: Agent, admin: str, *, setting: str, token: Secret[str] | None = None
) -> None:
    """Run the agent with its admin endpoint beside it, if it has one; `setting` named the address.

    Raises:
        ConfigError: the endpoint's address is wrong or taken.
        AgentUnfit: a person must act.
    """
    if not admin:
        await agent.run()
        return
    host, port = address_of(admin, setting)
    operations = Operations(
        agent=agent,
        token=token,
        set_log_level=set_log_level,
        backends=agent.backends,
        lag=agent.lag,
    )
    try:
        async with serving(operations, host=host, port=port) as url:
            log.info("admin endpoint", url=url)
            await agent.run()
    except OSError as error:
        raise cannot_listen(admin, error, setting) from error


def _token(config: LaunchConfig) -> Secret[str] | None:
    file = config.agent.admin_token_file
    return find_agent_token(Path(file), {}) if file else None
