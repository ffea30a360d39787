"""`launch-async agent --check-config`: the effective settings, where they are from, and traps."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from launch_async.cli.addresses import address_of
from launch_async.config.admin import find_agent_token
from launch_async.config.login import find_base_url, find_login
from launch_async.config.model import LaunchConfig, QueueConfig
from launch_async.config.sources import NO_QUEUE, Settled, http_timeout_seconds
from launch_async.config.traps import Trap, find_traps
from launch_async.domain.errors import ConfigError

Row = tuple[str, str, str]


def check_config(
    settled: Settled, environ: Mapping[str, str], *, home: Path, working_dir: Path
) -> None:
    """Print what counts and what may surprise; neither asks the network nor starts anything.

    Raises:
        ConfigError: the agent would not start with these settings.
    """
    config = settled.config
    if not config.queue_configs():
        raise ConfigError(NO_QUEUE)
    if config.agent.admin:
        address_of(config.agent.admin, "agent.admin")
    if config.agent.admin_token_file:
        find_agent_token(Path(config.agent.admin_token_file), {})
    http_timeout_seconds(environ)
    base_url = find_base_url(environ, home=home, working_dir=working_dir)
    traps = [Trap("", warning) for warning in settled.loaded.warnings]
    traps += find_traps(settled, environ)
    try:
        find_login(environ, home=home, working_dir=working_dir)
    except ConfigError as error:
        traps.append(Trap("login", f"the agent would not start here: {error}"))
    click.echo(f"file  {settled.loaded.name or 'none; all is default, environment or flag'}")
    click.echo(f"API   {base_url}\n")
    _table(("setting", "value", "from"), list(_rows(settled, config)))
    for queue in config.queue_configs():
        click.echo()
        _table((f"queue {queue.name}", "value", "from"), list(_queue_rows(settled, queue)))
    click.echo()
    for trap in traps:
        click.echo(f"warning: {trap.where}: {trap.text}" if trap.where else f"warning: {trap.text}")
    click.echo(f"the settings are valid; warnings: {len(traps)}")


def _rows(settled: Settled, config: LaunchConfig) -> Iterator[Row]:
    agent = config.agent

    def row(key: str, value: str) -> Row:
        return key, value, settled.origin(key)

    yield row("entity", config.entity or "the login's own")
    yield row("max_jobs", _limit(config.max_jobs))
    yield row("max_schedulers", _limit(config.max_schedulers))
    for name, target in agent.targets.items():
        yield row(f"agent.targets.{name}.max_jobs", _limit(target.max_jobs))
    yield row("agent.waiting", str(agent.waiting))
    yield row("agent.builds", str(agent.builds))
    for name in ("poll", "poll_max", "heartbeat", "grace", "patience"):
        yield row(f"agent.{name}", f"{getattr(agent, name):g} s")
    yield row("stopped_run_timeout", f"{config.stopped_run_timeout} s")
    yield row("secure_mode", _truth(config.secure_mode))
    yield row("agent.require_run_key", _truth(agent.require_run_key))
    yield row("agent.state_dir", str(config.state_dir))
    yield row("agent.admin", agent.admin or "off")


def _queue_rows(settled: Settled, queue: QueueConfig) -> Iterator[Row]:
    config = settled.config
    names = [given if isinstance(given, str) else given.name for given in config.queues]
    path = f"queues[{names.index(queue.name)}]"
    agent = config.agent
    timeouts = {
        "start_timeout": (queue.start_timeout, agent.start_timeout),
        "run_timeout": (queue.run_timeout, agent.run_timeout),
    }
    yield "max_jobs", _limit(queue.max_jobs), settled.origin(f"{path}.max_jobs")
    yield "weight", f"{queue.weight:g}", settled.origin(f"{path}.weight")
    for name, (own, common) in timeouts.items():
        value = common if own is None else own
        keys = (f"{path}.{name}",) if own is not None else (f"agent.{name}",)
        yield name, f"{value:g} s" if value else "no limit", settled.origin(*keys)
    yield "paused", _truth(queue.paused), settled.origin(f"{path}.paused")


def _table(heads: Row, rows: Sequence[Row]) -> None:
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in (0, 1)]
    for key, value, origin in (heads, *rows):
        click.echo(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}")


def _limit(value: int) -> str:
    return "no limit" if value == -1 else str(value)


def _truth(value: bool) -> str:
    return "true" if value else "false"
