"""Commands that talk to a running agent: its address, its token, and how to show what it says."""

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click
import msgspec

from launch_async.cli.addresses import address_of
from launch_async.cli.output import UsageFault, run_async
from launch_async.config.admin import AGENT_VARIABLE, find_agent_token
from launch_async.config.load import load_config, load_default
from launch_async.config.model import DEFAULT_ADMIN, AgentSection
from launch_async.domain.errors import ConfigError
from launch_async.domain.secret import Secret
from launch_async.sdk.agent import AgentClient

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where it listens, not we
OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option("--admin", help=f"HOST:PORT of the agent. Default: its file, or {DEFAULT_ADMIN}."),
    click.option(
        "--admin-token-file",
        "token_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help=f"File of the token. Default: {AGENT_VARIABLE}, or the file in its file.",
    ),
    click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Its file."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
)


class Connected(msgspec.Struct, frozen=True):
    """An agent to ask, and how to show what it says."""

    client: AgentClient
    as_json: bool

    def show(self, value: Any, text: str) -> None:
        """Print the value as JSON, or the text for people."""
        click.echo(
            msgspec.json.format(msgspec.json.encode(value)).decode() if self.as_json else text
        )


def connected(action: Callable[..., Awaitable[int | None]]) -> Callable[..., None]:
    """Make a command of an action: it has a connection, and the options that each command takes.

    The action's result is the exit code; None is 0.
    """

    @wraps(action)
    def run(
        *,
        admin: str | None,
        token_file: Path | None,
        path: Path | None,
        as_json: bool,
        **given: Any,
    ) -> None:
        parent = click.get_current_context().parent
        path = path or (parent.params.get("path") if parent else None)
        try:
            url, token = find_agent(admin, token_file, path)
        except ConfigError as error:
            raise UsageFault(str(error)) from error

        async def main() -> int:
            async with AgentClient.open(url, token=token) as client:
                return await action(Connected(client, as_json), **given) or 0

        run_async(main, use_uvloop=False)

    for option in reversed(OPTIONS):
        run = option(run)
    return run


def find_agent(
    admin: str | None, token_file: Path | None, path: Path | None
) -> tuple[str, Secret[str] | None]:
    """The agent's address and token: as given, else as its configuration says.

    Raises:
        ConfigError: one of them is wrong.
    """
    has_token = token_file is not None or AGENT_VARIABLE in os.environ
    section = AgentSection() if admin and has_token else _section(path)
    address = admin or section.admin
    if not address:
        msg = "the configuration switches the admin endpoint off (`agent.admin` is empty)"
        raise ConfigError(msg)
    host, port = address_of(address, "--admin" if admin else "agent.admin")
    if port == 0:
        msg = f"{address} stands for any free port; the agent's log says which, give it by --admin"
        raise ConfigError(msg)
    host = EVERYWHERE.get(host, host)
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return url, find_agent_token(token_file, os.environ) or _token_of(section)


def _section(path: Path | None) -> AgentSection:
    return (load_default() if path is None else load_config(path)).config.agent


def _token_of(section: AgentSection) -> Secret[str] | None:
    """Of the configuration's file, if this user may read it; reading the agent takes none."""
    if not section.admin_token_file:
        return None
    try:
        return find_agent_token(Path(section.admin_token_file), {})
    except ConfigError as error:
        sys.stderr.write(f"launch-async: without a token: {error}\n")
        return None
