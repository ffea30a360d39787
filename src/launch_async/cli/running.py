"""Runs an agent with its signals and its admin endpoint."""

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import structlog

from launch_async.admin.app import serving
from launch_async.admin.operated import Operations
from launch_async.admin.standby import Standby, standing_by
from launch_async.agent.agent import Agent
from launch_async.cli.addresses import address_of
from launch_async.cli.output import run_async, set_log_level
from launch_async.cli.signals import on_signals
from launch_async.compose.agent import open_agent
from launch_async.compose.lease import held_lease, is_leased
from launch_async.config.admin import find_agent_token
from launch_async.config.login import find_login
from launch_async.config.model import LaunchConfig
from launch_async.config.paths import home_dir
from launch_async.domain.errors import LaunchError, cannot_listen
from launch_async.domain.secret import Secret
from launch_async.kit.heap import settle_heap

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def run_agent(config: LaunchConfig, read_config: Callable[[], LaunchConfig]) -> None:
    """Run an agent to its end and exit with its code; `read_config` serves reloads."""

    async def main() -> int:
        return await _run(config, read_config)

    run_async(main, use_uvloop=config.loop == "uvloop")


async def _run(config: LaunchConfig, read_config: Callable[[], LaunchConfig]) -> int:
    login = find_login(os.environ, home=home_dir(), working_dir=Path())
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
        except LaunchError as error:
            log.error("configuration not reloaded", reason=str(error))

    async with anyio.create_task_group() as tasks:
        await tasks.start(on_signals, stop, reload)
        async with AsyncExitStack() as stack:
            standby = await stack.enter_async_context(AsyncExitStack())
            waits = await _standing_by(config, standby)
            await stack.enter_async_context(held_lease(config, os.environ, waits=waits))
            agent = await stack.enter_async_context(
                open_agent(config, login, os.environ, read_config=read_config)
            )
            opened.append(agent)
            settle_heap()
            await standby.aclose()
            admin = config.agent.admin
            await run_with_admin(agent, admin, setting="agent.admin", token=token)
        tasks.cancel_scope.cancel()
    return 0


async def _standing_by(config: LaunchConfig, stack: AsyncExitStack) -> Callable[[str], None]:
    """Answer probes until the stack is closed, if there may be long to wait; call it with why."""
    standby, admin = Standby(), config.agent.admin
    if admin and is_leased(config):
        host, port = address_of(admin, "agent.admin")
        try:
            await stack.enter_async_context(standing_by(standby, host=host, port=port))
        except OSError as error:
            raise cannot_listen(admin, error, "agent.admin") from error
    return standby.wait


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
    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(serving(operations, host=host, port=port))
        except OSError as error:
            raise cannot_listen(admin, error, setting) from error
        log.info("admin endpoint", url=url)
        await agent.run()


def _token(config: LaunchConfig) -> Secret[str] | None:
    file = config.agent.admin_token_file
    return find_agent_token(Path(file), {}) if file else None
