"""A queue's resource arguments for Docker, with the meaning that `docker run` gives them.

The keys are the ones that W&B's agent allows (launch-features.md, D2), and those that its
documentation and older agents know, as far as the policy lets them pass. The result is the body of
the engine's "create container" call; nothing here talks to an engine.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

import msgspec

from launch_async.adapters.runners.docker.policy import (
    IGNORED,
    NEVER,
    OPENING,
    DockerPolicy,
    Pull,
)
from launch_async.adapters.runners.docker.values import (
    gpus,
    invalid,
    nano_cpus,
    size,
    swap,
    text,
    texts,
    ulimits,
    whole,
    words,
)
from launch_async.domain.environment import with_asked
from launch_async.domain.errors import ItemError, Reason
from launch_async.kit.addresses import is_loopback
from launch_async.ports.runner import CODE_DIRECTORY, ImageWork, LaunchOrder

NO_OPENING = DockerPolicy()
IDENTITY_LABEL = "launch-async.identity"
ITEM_LABEL = "launch-async.item"
RUN_LABEL = "launch-async.run"
QUEUE_LABEL = "launch-async.queue"
NAME_LABEL = "launch-async.name"
ORIGIN_LABEL = "launch-async.origin"
"""JSON of an `Origin`: all that is needed to take the run up again. The others are for people and
filters."""

_SAME_AS = {
    "e": "env", "m": "memory", "w": "workdir", "cpu": "cpus", "net": "network", "u": "user",
    "v": "volume", "volumes": "volume", "h": "hostname", "l": "label",
}  # fmt: skip
_NETWORKS = frozenset({"host", "bridge", "none"})
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:@-]*")


def container_body(
    order: LaunchOrder, work: ImageWork, policy: DockerPolicy = NO_OPENING
) -> dict[str, Any]:
    """The "create container" body for this run; its `Env` holds secrets.

    Raises:
        ItemError: a resource argument is unknown, refused, or not what it should be.
    """
    if not _IMAGE.fullmatch(work.image) or ".." in work.image:
        raise ItemError(f"{work.image!r} is no name of an image.", reason=Reason.SPEC_INVALID)
    args = _known(order.resource_args)
    labels = {
        **_labels(args.get("label", [])),
        IDENTITY_LABEL: order.identity,
        ITEM_LABEL: order.item_id,
        RUN_LABEL: order.run.run_id,
        QUEUE_LABEL: str(order.queue),
        ORIGIN_LABEL: msgspec.json.encode(order.origin).decode(),
    }
    if "name" in args:
        labels[NAME_LABEL] = str(args["name"])  # the container's own name finds the run again
    environment = {
        **with_asked(order.environment, _environment(args.get("env", []), policy)),
        **{name: secret.reveal() for name, secret in order.secrets.items()},
    }
    body: dict[str, Any] = {
        "Image": work.image,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": labels,
        "HostConfig": _host_config(args, environment.get("WANDB_BASE_URL", ""), policy),
    }
    command = list(order.args) or _command(args.get("command"))
    if command:
        body["Cmd"] = command
    if work.entrypoint:
        body["Entrypoint"] = list(work.entrypoint)
    if work.code is not None:
        body["WorkingDir"] = CODE_DIRECTORY
    if "user" in args:
        policy.require("user")
    for key, field in (("workdir", "WorkingDir"), ("hostname", "Hostname"), ("user", "User")):
        if key in args:
            body[field] = text(key, args[key])
    return body


def platform(order: LaunchOrder) -> str | None:
    """`os/architecture` that the image is wanted for; None for the engine's own."""
    wanted = order.resource_args.get("platform")
    return None if wanted is None else str(wanted)


def pull_policy(order: LaunchOrder, policy: DockerPolicy) -> Pull:
    """When the image is fetched from its registry: the queue's word, else the operator's.

    Raises:
        ItemError: `pull` is not one of the three.
    """
    given = order.resource_args.get("pull", policy.pull)
    for pull in get_args(Pull):
        if given == pull:
            return pull  # type: ignore[no-any-return]
    raise invalid(f"`pull` must be missing, always or never, not {given!r}.")


def _known(resource_args: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for key, value in resource_args.items():
        name = _SAME_AS.get(key, key)
        if name in IGNORED:
            continue
        if name in NEVER:
            raise invalid(f"`{key}` is not taken: {NEVER[name]}.")
        if name not in _ALLOWED:
            near = difflib.get_close_matches(key, _ALLOWED_NAMES, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise invalid(f"`{key}` is not known.{hint} Allowed: {', '.join(_ALLOWED_NAMES)}.")
        if value is None or (isinstance(value, bool) and name != "privileged"):
            raise invalid(f"`{key}` needs a text or a number, not {str(value).lower()}.")
        known[name] = value
    return known


def _host_config(args: Mapping[str, Any], base_url: str, policy: DockerPolicy) -> dict[str, Any]:
    # Init: without it a program that is pid 1 ignores SIGTERM. No AutoRemove: it loses exit codes.
    config: dict[str, Any] = {"Init": True, "AutoRemove": False, **policy.opened(args)}
    for name, (field, parse) in _HOST_FIELDS.items():
        if name in args:
            config[field] = parse(name, args[name])
    if "NetworkMode" not in config and is_loopback(base_url):
        config["NetworkMode"] = "host"  # else the control plane on this machine is out of reach
    network = config.get("NetworkMode")
    if network is not None and network not in _NETWORKS | policy.networks:
        allowed = ", ".join(sorted(_NETWORKS | policy.networks))
        raise invalid(f"`network` must be one of {allowed}, not {network!r}.")
    return config


def _labels(given: Any) -> dict[str, str]:
    entries = [entry.partition("=") for entry in texts("label", given)]
    if any(name.startswith(_OURS) for name, _, _ in entries):
        raise invalid(f"`label` names that begin with {_OURS} are the agent's own.")
    return {name: value for name, _, value in entries}


def _environment(given: Any, policy: DockerPolicy) -> dict[str, str]:
    if isinstance(given, dict):
        return {str(name): str(value) for name, value in given.items()}
    found: dict[str, str] = {}
    for entry in texts("env", given):
        name, equals, value = entry.partition("=")
        found[name] = value if equals else policy.variable(name)
    return found


def _command(given: Any) -> list[str]:
    if isinstance(given, str):
        return words("command", given)
    return [] if given is None else texts("command", given)


def _tmpfs(name: str, given: Any) -> dict[str, str]:
    entries = [entry.partition(":") for entry in texts(name, given)]
    if not all(path.startswith("/") for path, _, _ in entries):
        raise invalid(f"`{name}` must look like /path[:size=64m], not {given!r}.")
    return {path: options for path, _, options in entries}


_HOST_FIELDS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "cap-drop": ("CapDrop", texts),
    "cpu-period": ("CpuPeriod", whole),
    "cpu-quota": ("CpuQuota", whole),
    "cpu-shares": ("CpuShares", whole),
    "cpus": ("NanoCpus", nano_cpus),
    "cpuset-cpus": ("CpusetCpus", text),
    "cpuset-mems": ("CpusetMems", text),
    "gpus": ("DeviceRequests", gpus),
    "memory": ("Memory", size),
    "memory-reservation": ("MemoryReservation", size),
    "memory-swap": ("MemorySwap", swap),
    "network": ("NetworkMode", text),
    "pids-limit": ("PidsLimit", whole),
    "shm-size": ("ShmSize", size),
    "tmpfs": ("Tmpfs", _tmpfs),
    "ulimit": ("Ulimits", ulimits),
}
_OURS = "launch-async."
_ALLOWED = frozenset(
    {*_HOST_FIELDS, *OPENING, "command", "env", "hostname", "label", "name", "platform", "pull"}
    | {"user", "volume", "workdir"}
)
_ALLOWED_NAMES = sorted({*_ALLOWED, *_SAME_AS})
