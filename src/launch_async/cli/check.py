"""`launch-async agent --check-config`: the effective settings, where they are from, and traps."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
import msgspec

from launch_async.cli.addresses import address_of
from launch_async.config.admin import find_agent_token
from launch_async.config.login import find_base_url, find_login
from launch_async.config.model import LaunchConfig, QueueConfig
from launch_async.config.sources import NO_QUEUE, Settled, http_timeout_seconds
from launch_async.config.traps import Trap, find_traps
from launch_async.domain.errors import ConfigError
from launch_async.kit.addresses import is_loopback
from launch_async.wire.network import ca_file_of, tls_of

Row = tuple[str, str, str]

_HIDDEN = ("builder.build-args.", "builder.cluster.job.", "builder.kaniko-config.")
"""People put into these what they should not."""
_UNSET = {
    "entity": "the login's own",
    "agent.name": "the host's",
    "agent.admin": "off",
}
_ZERO_IS_OFF = frozenset({"start_timeout", "run_timeout"})
_SECONDS = _ZERO_IS_OFF | {
    "duration",
    "grace",
    "heartbeat",
    "patience",
    "poll",
    "poll_max",
    "renew",
    "stopped_run_timeout",
    "timeout",
    "timeout_seconds",
}


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
    tls_of(ca_file_of(environ))
    base_url = find_base_url(environ, home=home, working_dir=working_dir)
    traps = [Trap("", warning) for warning in settled.loaded.warnings]
    traps += find_traps(settled, environ)
    if config.agent.kubernetes is not None and is_loopback(base_url):
        traps.append(Trap("API", _loopback(base_url)))
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


def _loopback(base_url: str) -> str:
    return (
        f"{base_url} is this machine itself, where no pod of a cluster finds it: give the agent"
        " another address, or set WANDB_BASE_URL in the `env` of the queues' containers"
    )


def _rows(settled: Settled, config: LaunchConfig) -> Iterator[Row]:
    """Every setting but those of queues."""
    blocks = dict.fromkeys(("environment", "registry", "builder"))
    for name in blocks:
        given = getattr(config, name) is not None
        yield name, "given" if given else "not set", settled.origin(name)
    for key, value in _settings(config.building(), "builder"):
        shown = "given" if key.startswith(_HIDDEN) else _shown(key, value)
        named = key == "builder.destination" and value is not None
        origins = (key, "registry.uri", "registry") if named else (key,)
        yield key, shown, settled.origin(*origins)
    for key, value in _settings(msgspec.structs.replace(config, queues=(), **blocks), ""):
        if key in blocks or key == "queues":
            continue
        shown = str(config.state_dir) if key == "agent.state_dir" else _shown(key, value)
        yield key, shown, settled.origin(key)


def _settings(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Values by dotted key, those of sections within a section too."""
    match value:
        case msgspec.Struct():
            names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
            for field, name in names:
                yield from _settings(getattr(value, field), f"{path}.{name}".lstrip("."))
        case dict():
            for name, part in value.items():
                yield from _settings(part, f"{path}.{name}")
        case (msgspec.Struct(), *_):
            for index, part in enumerate(value):
                yield from _settings(part, f"{path}[{index}]")
        case _:
            yield path, value


def _queue_rows(settled: Settled, queue: QueueConfig) -> Iterator[Row]:
    config = settled.config
    names = [given if isinstance(given, str) else given.name for given in config.queues]
    path = f"queues[{names.index(queue.name)}]"
    agent = config.agent
    timeouts = {
        "start_timeout": (queue.start_timeout, agent.start_timeout),
        "run_timeout": (queue.run_timeout, agent.run_timeout),
    }
    for name in ("max_jobs", "weight", "paused"):
        value = _shown(name, getattr(queue, name))
        yield name, value, settled.origin(f"{path}.{name}")
    for name, (own, common) in timeouts.items():
        key = f"agent.{name}" if own is None else f"{path}.{name}"
        yield name, _shown(name, common if own is None else own), settled.origin(key)


def _table(heads: Row, rows: Sequence[Row]) -> None:
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in (0, 1)]
    for key, value, origin in (heads, *rows):
        click.echo(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}")


def _shown(key: str, value: object) -> str:
    section, _, name = key.rpartition(".")
    if section == "agent.start_timeouts":
        name = "start_timeout"
    if value == -1 or (value == 0 and name in _ZERO_IS_OFF):
        return "no limit"
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            number = str(value) if isinstance(value, int) else f"{value:g}"
            return f"{number} s" if name in _SECONDS else number
        case tuple():
            return ", ".join(map(str, value)) or "none"
        case _:
            return str(value) if value else _UNSET.get(key, "not set")
