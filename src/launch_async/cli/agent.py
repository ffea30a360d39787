"""`launch-async agent`: W&B's `wandb launch-agent`, with the same flags."""

import os
from pathlib import Path

import anyio
import click
import structlog

from launch_async.admin.app import serving
from launch_async.agent.agent import Agent
from launch_async.cli.addresses import address_of
from launch_async.cli.check import check_config
from launch_async.cli.output import UsageFault, run_async, set_up_logs
from launch_async.cli.signals import on_signals
from launch_async.compose.agent import open_agent
from launch_async.config.login import find_login
from launch_async.config.model import LaunchConfig
from launch_async.config.sources import Flags, read_settings
from launch_async.domain.errors import ConfigError, cannot_listen

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@click.command(context_settings={"show_default": True})
@click.option("-q", "--queue", "queues", multiple=True, help="Queue to poll; replaces the file's.")
@click.option("-e", "--entity", help="Owner of the queues. Default: the login's own.")
@click.option("-j", "--max-jobs", type=click.IntRange(min=-1), help="Items at once; -1: no limit.")
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Config file.")
@click.option("-l", "--log-file", help="Where logs go; - is stdout. Default: stderr.")
@click.option("-v", "--verbose", count=True, help="More logs.")
@click.option(
    "--check-config", "check", is_flag=True, help="Show the settings and known traps, and end."
)
def agent(
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

    Exit codes: 0 stopped, 2 a setting is wrong, 3 a person must act.
    """

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
        return await _run(config)

    run_async(main, use_uvloop=config.loop == "uvloop")


async def _run(config: LaunchConfig) -> int:
    login = find_login(os.environ, home=Path.home(), working_dir=Path.cwd())
    opened: list[Agent] = []

    def stop(cause: str) -> None:
        """Before the agent is open nothing is under way: leave at once."""
        if opened:
            opened[0].stop(cause)
        else:
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        await tasks.start(on_signals, stop)
        async with open_agent(config, login, os.environ) as agent:
            opened.append(agent)
            await run_with_admin(agent, config.agent.admin, setting="agent.admin")
        tasks.cancel_scope.cancel()
    return 0


async def run_with_admin(agent: Agent, admin: str, *, setting: str) -> None:
    """Run the agent with its admin endpoint beside it, if it has one; `setting` named the address.

    Raises:
        ConfigError: the endpoint's address is wrong or taken.
        AgentUnfit: a person must act.
    """
    if not admin:
        await agent.run()
        return
    host, port = address_of(admin, setting)
    try:
        async with serving(agent, host=host, port=port) as url:
            log.info("admin endpoint", url=url)
            await agent.run()
    except OSError as error:
        raise cannot_listen(admin, error, setting) from error
