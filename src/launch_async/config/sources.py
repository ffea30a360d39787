"""One configuration out of its four sources: default, file, environment, flag; later ones win."""

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec

from launch_async.config.load import Loaded, load_config, load_default
from launch_async.config.model import MAX_QUEUE_NAME, MAX_SECONDS, LaunchConfig
from launch_async.domain.errors import ConfigError

MAX_HTTP_TIMEOUT_SECONDS = 3600.0
DEFAULT = "default"
NO_QUEUE = "no queue to poll: name one with -q, or list them as `queues:` in launch-config.yaml"


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line may override; None and () are not given."""

    queues: tuple[str, ...] = ()
    """Replaces the file's list, the settings of its queues with it."""
    entity: str | None = None
    max_jobs: int | None = None
    verbosity: int | None = None


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration that counts."""

    config: LaunchConfig
    loaded: Loaded
    """What the file alone says."""
    origins: Mapping[str, str]
    """Where a key's value is from, by its dotted path: a place in the file, a variable, a flag."""

    def origin(self, *keys: str) -> str:
        """Where the value is from: the first of these keys that somebody gave, else `default`."""
        return next((self.origins[key] for key in keys if key in self.origins), DEFAULT)


def read_settings(path: Path | None, environ: Mapping[str, str], flags: Flags) -> Settled:
    """The file at `path` (None: where W&B's agent looks for it) under environment and flags.

    Raises:
        ConfigError: as `load_config` and `settle`.
    """
    return settle(load_default() if path is None else load_config(path), environ, flags)


def settle(loaded: Loaded, environ: Mapping[str, str], flags: Flags) -> Settled:
    """Lay environment and flags over what a file says (launch-features.md §1.4).

    Raises:
        ConfigError: a variable is not what it must be.
    """
    replace = msgspec.structs.replace
    config, origins = loaded.config, dict(loaded.places)
    if environ.get("WANDB_ENTITY"):
        config = replace(config, entity=environ["WANDB_ENTITY"])
        origins["entity"] = "WANDB_ENTITY"
    if environ.get("WANDB_LAUNCH_MAX_JOBS"):
        config = replace(config, max_jobs=_whole("WANDB_LAUNCH_MAX_JOBS", environ, least=-1))
        origins["max_jobs"] = "WANDB_LAUNCH_MAX_JOBS"
    if environ.get("WANDB_LAUNCH_START_TIMEOUT"):
        seconds = min(max(0, _whole("WANDB_LAUNCH_START_TIMEOUT", environ)), MAX_SECONDS)
        config = replace(config, agent=replace(config.agent, start_timeout=float(seconds)))
        origins["agent.start_timeout"] = "WANDB_LAUNCH_START_TIMEOUT"
    if flags.queues:
        if not all(1 <= len(queue) <= MAX_QUEUE_NAME for queue in flags.queues):
            msg = f"-q: a queue's name has 1 to {MAX_QUEUE_NAME} characters"
            raise ConfigError(msg)
        config = replace(config, queues=flags.queues)
        origins = {key: place for key, place in origins.items() if not key.startswith("queue")}
        origins["queues"] = "-q"
    if flags.entity is not None:
        config = replace(config, entity=flags.entity)
        origins["entity"] = "-e"
    if flags.max_jobs is not None:
        config = replace(config, max_jobs=flags.max_jobs)
        origins["max_jobs"] = "-j"
    if flags.verbosity is not None and flags.verbosity > config.verbosity:
        config = replace(config, verbosity=flags.verbosity)
        origins["verbosity"] = "-v"
    return Settled(config=config, loaded=loaded, origins=origins)


def http_timeout_seconds(environ: Mapping[str, str]) -> float | None:
    """How long `WANDB_HTTP_TIMEOUT` lets one API request take; None when it is not set.

    Raises:
        ConfigError: it is no such number.
    """
    given = environ.get("WANDB_HTTP_TIMEOUT")
    if not given:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_HTTP_TIMEOUT_SECONDS:
        msg = f"WANDB_HTTP_TIMEOUT is {given!r}; it must be seconds, up to 3600"
        raise ConfigError(msg)
    return seconds


def _whole(name: str, environ: Mapping[str, str], *, least: int | None = None) -> int:
    try:
        value = int(environ[name])
    except ValueError as error:
        msg = f"{name} is {environ[name]!r}; it must be a whole number"
        raise ConfigError(msg) from error
    if least is not None and value < least:
        msg = f"{name} is {value}; it must be -1 (no limit) or more"
        raise ConfigError(msg)
    return value
