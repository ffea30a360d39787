"""A queue's resource arguments for Docker, with the meaning that `docker run` gives them.

The keys are the ones that W&B's agent allows (launch-features.md, D2), plus `network`. The result
is the body of the engine's "create container" call; nothing here talks to an engine.
"""

import difflib
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from launch_async.domain.environment import with_asked
from launch_async.domain.errors import ItemError, Reason
from launch_async.kit.addresses import is_loopback
from launch_async.ports.runner import ImageWork, LaunchOrder

IDENTITY_LABEL = "launch-async.identity"
ITEM_LABEL = "launch-async.item"
RUN_LABEL = "launch-async.run"
QUEUE_LABEL = "launch-async.queue"
NAME_LABEL = "launch-async.name"
ORIGIN_LABEL = "launch-async.origin"
"""JSON of an `Origin`: all that is needed to take the run up again. The others are for people and
filters."""

_SAME_AS = {"e": "env", "m": "memory", "w": "workdir", "cpu": "cpus", "net": "network"}
_LATER = frozenset(
    {"volume", "volumes", "v", "mount", "user", "u", "device", "runtime", "env-file", "ipc", "rm"}
    | {"privileged", "cap-add", "security-opt", "pid", "userns", "add-host"}
)
_NETWORKS = ("host", "bridge", "none")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:@-]*")
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def container_body(order: LaunchOrder, work: ImageWork) -> dict[str, Any]:
    """The "create container" body for this run; its `Env` holds secrets.

    Raises:
        ItemError: a resource argument is unknown, refused, or not what it should be.
    """
    if not _IMAGE.fullmatch(work.image) or ".." in work.image:
        raise ItemError(f"{work.image!r} is no name of an image.", reason=Reason.SPEC_INVALID)
    args = _known(order.resource_args)
    labels = {
        IDENTITY_LABEL: order.identity,
        ITEM_LABEL: order.item_id,
        RUN_LABEL: order.run.run_id,
        QUEUE_LABEL: str(order.queue),
        ORIGIN_LABEL: msgspec.json.encode(order.origin).decode(),
    }
    if "name" in args:
        labels[NAME_LABEL] = str(args["name"])  # the container's own name finds the run again
    environment = {
        **with_asked(order.environment, _environment(args.get("env", []))),
        **{name: secret.reveal() for name, secret in order.secrets.items()},
    }
    body: dict[str, Any] = {
        "Image": work.image,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": labels,
        "HostConfig": _host_config(args, environment.get("WANDB_BASE_URL", "")),
    }
    command = list(order.args) or _command(args.get("command"))
    if command:
        body["Cmd"] = command
    if work.entrypoint:
        body["Entrypoint"] = list(work.entrypoint)
    if "workdir" in args:
        body["WorkingDir"] = str(args["workdir"])
    return body


def platform(order: LaunchOrder) -> str | None:
    """`os/architecture` that the image is wanted for; None for the engine's own."""
    wanted = order.resource_args.get("platform")
    return None if wanted is None else str(wanted)


def _known(resource_args: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for key, value in resource_args.items():
        name = _SAME_AS.get(key, key)
        if name in _LATER:
            raise _invalid(
                f"`{key}` is refused: it opens the agent's machine to jobs, and this version has"
                " no policy yet by which an operator could allow it. Remove it."
            )
        if name not in _ALLOWED:
            near = difflib.get_close_matches(key, _ALLOWED_NAMES, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise _invalid(f"`{key}` is not known.{hint} Allowed: {', '.join(_ALLOWED_NAMES)}.")
        if isinstance(value, bool) or value is None:
            raise _invalid(f"`{key}` needs a text or a number, not {str(value).lower()}.")
        known[name] = value
    return known


def _host_config(args: Mapping[str, Any], base_url: str) -> dict[str, Any]:
    # Init: without it a program that is pid 1 ignores SIGTERM. No AutoRemove: it loses exit codes.
    config: dict[str, Any] = {"Init": True, "AutoRemove": False}
    for name, (field, parse) in _HOST_FIELDS.items():
        if name in args:
            config[field] = parse(name, args[name])
    if "NetworkMode" not in config and is_loopback(base_url):
        config["NetworkMode"] = "host"  # else the control plane on this machine is out of reach
    return config


def _environment(given: Any) -> dict[str, str]:
    if isinstance(given, dict):
        return {str(name): str(value) for name, value in given.items()}
    found: dict[str, str] = {}
    for entry in _texts("env", given):
        name, equals, value = entry.partition("=")
        if not equals:
            raise _invalid(
                f"`env` has the bare name {name}: the agent's own variables are not shared with"
                f" jobs. Write {name}=value."
            )
        found[name] = value
    return found


def _command(given: Any) -> list[str]:
    if isinstance(given, str):
        return _words("command", given)
    return [] if given is None else _texts("command", given)


def _words(name: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise _invalid(f"`{name}` cannot be split into words: {error}.") from None


def _texts(name: str, given: Any) -> list[str]:
    entries = given if isinstance(given, list) else [given]
    if any(isinstance(entry, bool | dict | list) or entry is None for entry in entries):
        raise _invalid(f"`{name}` must be a text or a list of texts.")
    return [str(entry) for entry in entries]


def _whole(name: str, given: Any) -> int:
    try:
        return int(str(given))
    except ValueError:
        raise _invalid(f"`{name}` must be a whole number, not {given!r}.") from None


def _text(name: str, given: Any) -> str:
    if isinstance(given, dict | list):
        raise _invalid(f"`{name}` must be a text.")
    return str(given)


def _nano_cpus(name: str, given: Any) -> int:
    try:
        return round(float(given) * 1e9)
    except (TypeError, ValueError, OverflowError):
        raise _invalid(f"`{name}` must be a number of CPUs such as 1.5, not {given!r}.") from None


def _size(name: str, given: Any) -> int:
    found = _BYTES.fullmatch(str(given).strip())
    if found is None:
        raise _invalid(f"`{name}` must be a size such as 512m or 2g, not {given!r}.")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def _swap(name: str, given: Any) -> int:
    return -1 if str(given) == "-1" else _size(name, given)


def _network(name: str, given: Any) -> str:
    if given not in _NETWORKS:
        raise _invalid(f"`{name}` must be one of {', '.join(_NETWORKS)}, not {given!r}.")
    return str(given)


def _ulimits(name: str, given: Any) -> list[dict[str, Any]]:
    limits: list[dict[str, Any]] = []
    for entry in _texts(name, given):
        found = re.fullmatch(r"([a-z]+)=(-?\d+)(?::(-?\d+))?", entry)
        if found is None:
            raise _invalid(f"`{name}` must look like nofile=1024 or nofile=1024:2048: {entry!r}.")
        soft = int(found[2])
        limits.append({"Name": found[1], "Soft": soft, "Hard": int(found[3] or soft)})
    return limits


def _gpus(name: str, given: Any) -> list[dict[str, Any]]:
    text = str(given).strip("\"' ")
    request: dict[str, Any] = {"Driver": "", "Capabilities": [["gpu"]]}
    key, _, value = text.partition("=")
    if text == "all" or (key, value) == ("count", "all"):
        return [{**request, "Count": -1}]
    if key == "device" and value:
        return [{**request, "DeviceIDs": value.split(",")}]
    if text.isdigit() or (key == "count" and value.isdigit()):
        return [{**request, "Count": int(value or text)}]
    raise _invalid(f"`{name}` must be all, a number, or device=0,1, not {given!r}.")


def _invalid(text: str) -> ItemError:
    return ItemError(
        f"Resource argument of local-container: {text}", reason=Reason.RESOURCE_ARGS_INVALID
    )


_HOST_FIELDS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "cpu-period": ("CpuPeriod", _whole),
    "cpu-quota": ("CpuQuota", _whole),
    "cpu-shares": ("CpuShares", _whole),
    "cpus": ("NanoCpus", _nano_cpus),
    "cpuset-cpus": ("CpusetCpus", _text),
    "cpuset-mems": ("CpusetMems", _text),
    "gpus": ("DeviceRequests", _gpus),
    "memory": ("Memory", _size),
    "memory-reservation": ("MemoryReservation", _size),
    "memory-swap": ("MemorySwap", _swap),
    "network": ("NetworkMode", _network),
    "pids-limit": ("PidsLimit", _whole),
    "shm-size": ("ShmSize", _size),
    "ulimit": ("Ulimits", _ulimits),
}
_ALLOWED = frozenset({*_HOST_FIELDS, "command", "env", "name", "platform", "workdir"})
_ALLOWED_NAMES = sorted({*_ALLOWED, *_SAME_AS})
