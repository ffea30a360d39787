"""Known traps: settings that are legal, but seldom do what their author thinks."""

import difflib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from launch_async.config.clouds import cloud_traps
from launch_async.config.model import LaunchConfig, QueueConfig
from launch_async.config.sources import Settled
from launch_async.kit.addresses import is_loopback

RESOURCES = ("local-process", "local-container", "kubernetes")
_LATER = ("sagemaker", "gcp-vertex")
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "AUTH")
_SHORT_POLL_SECONDS = 1.0
_FOR_EVER = "a run that never starts holds its slot for ever"
_OWN_SECRETS = "has no effect: each run has a Secret of its own, which goes with the run"
_OWN_FOLDERS = (
    "has no effect: pods fetch code that is not built into a folder of their own "
    "(docs/kubernetes-runs.md)"
)
_NO_EFFECT_VARIABLES = {
    "WANDB_RELEASE_NAME": _OWN_SECRETS,
    "WANDB_LAUNCH_CODE_PVC_NAME": _OWN_FOLDERS,
    "WANDB_LAUNCH_CODE_PVC_MOUNT_PATH": _OWN_FOLDERS,
}
"""Variables of W&B's agent that are for what is done here in another way."""


class Trap(msgspec.Struct, frozen=True):
    """One of them."""

    where: str
    """`FILE:LINE:COLUMN`, a variable, a flag, or `default`."""
    text: str


def find_traps(settled: Settled, environ: Mapping[str, str]) -> Iterator[Trap]:
    """All that are known, the file's first; reads neither files nor the network."""
    yield from _limits(settled)
    yield from _queues(settled)
    yield from _targets(settled)
    yield from _admin(settled)
    yield from _waits(settled)
    yield from _macros(settled, environ)
    yield from _state(settled)
    for key, text in cloud_traps(settled.config):
        yield Trap(settled.origin(key, key.partition(".")[0]), text)
    for name, why in _NO_EFFECT_VARIABLES.items():
        if environ.get(name):
            yield Trap(name, why)


def _limits(settled: Settled) -> Iterator[Trap]:
    config, where = settled.config, settled.origin("max_jobs")
    unlimited = [queue.name for queue in config.queue_configs() if queue.max_jobs == -1]
    if config.max_jobs == 1:
        yield Trap(
            where,
            "max_jobs is 1: the second item waits until the first has ended, which looks like a "
            "hang; raise it if this machine can do more",
        )
    if config.max_jobs == 0:
        yield Trap(where, "max_jobs is 0: this agent never takes anything")
    if config.max_jobs == -1 and unlimited:
        names = ", ".join(unlimited)
        yield Trap(where, f"max_jobs is -1 and so is that of {names}: all that is queued starts")


def _queues(settled: Settled) -> Iterator[Trap]:
    config = settled.config
    if "queue" in settled.loaded.places and "queues" in settled.origins:
        yield Trap(settled.loaded.places["queue"], "W&B's agent refuses `queue`; write `queues`")
    seen: set[str] = set()
    for index, given in enumerate(config.queues):
        queue = QueueConfig(name=given) if isinstance(given, str) else given
        where = settled.origin(f"queues[{index}].max_jobs", f"queues[{index}]", "queues")
        if queue.name in seen:
            yield Trap(where, f"the queue {queue.name} is listed again; it is polled once")
        seen.add(queue.name)
        if queue.max_jobs == 0:
            yield Trap(where, f"max_jobs of {queue.name} is 0: nothing is ever taken from it")
        if 0 < config.max_jobs < queue.max_jobs:
            yield Trap(
                where,
                f"max_jobs of {queue.name} is {queue.max_jobs}, but the agent's is "
                f"{config.max_jobs}: the smaller one counts",
            )
        if queue.start_timeout == 0:
            yield Trap(where, f"start_timeout of {queue.name} is off: {_FOR_EVER}")
        if queue.paused:
            yield Trap(where, f"{queue.name} starts paused: it takes nothing until it is resumed")
    lost = [queue.name for queue in settled.loaded.config.queues if isinstance(queue, QueueConfig)]
    if settled.origin("queues") == "-q" and lost:
        yield Trap("-q", f"replaces the file's list, with the settings of {', '.join(lost)}")


def _targets(settled: Settled) -> Iterator[Trap]:
    for name, target in settled.config.agent.targets.items():
        where = settled.origin(f"agent.targets.{name}", "agent.targets")
        if name not in RESOURCES:
            close = difflib.get_close_matches(name, RESOURCES, n=1)
            hint = f"; did you mean {close[0]}?" if close and name not in _LATER else ""
            yield Trap(where, f"{name} is no resource type that comes with this agent{hint}")
        elif target.max_jobs == 0:
            yield Trap(where, f"max_jobs of {name} is 0: no item for it ever starts")


def _admin(settled: Settled) -> Iterator[Trap]:
    agent = settled.config.agent
    where = settled.origin("agent.admin")
    if not agent.admin or is_loopback(f"http://{agent.admin}"):
        return
    yield Trap(where, "the admin endpoint is open to other machines, and reading has no login")
    if not agent.admin_token_file:
        yield Trap(
            where,
            "without agent.admin_token_file nobody can pause, cancel or drain from another machine",
        )


def _waits(settled: Settled) -> Iterator[Trap]:
    agent = settled.config.agent
    if agent.poll < _SHORT_POLL_SECONDS:
        text = f"agent.poll is {agent.poll:g} s: each queue costs that many requests to the API"
        yield Trap(settled.origin("agent.poll"), text)
    if agent.builds > agent.waiting:
        text = f"agent.builds is {agent.builds}, but only {agent.waiting} items may wait at once"
        yield Trap(settled.origin("agent.waiting", "agent.builds"), text)
    if agent.start_timeout == 0:
        text = f"agent.start_timeout is off: {_FOR_EVER}"
        yield Trap(settled.origin("agent.start_timeout"), text)


def _macros(settled: Settled, environ: Mapping[str, str]) -> Iterator[Trap]:
    for index, name in enumerate(settled.config.agent.macros):
        where = settled.origin(f"agent.macros[{index}]")
        if name not in environ:
            yield Trap(where, f"the agent has no variable {name}: ${{{name}}} is left as it is")
        if any(word in name.upper() for word in _SECRET_WORDS):
            yield Trap(
                where,
                f"{name} looks like a secret: whoever may edit a queue or push to it can read it",
            )


def _state(settled: Settled) -> Iterator[Trap]:
    config: LaunchConfig = settled.config
    where = settled.origin("agent.state_dir")
    if not config.state_dir.is_absolute():
        yield Trap(where, "agent.state_dir is relative: it depends on where the agent is started")
    elif config.state_dir.is_relative_to(Path(tempfile.gettempdir())):
        yield Trap(where, "agent.state_dir is a temporary folder: what runs would be forgotten")
