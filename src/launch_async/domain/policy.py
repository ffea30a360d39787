"""What an item may change of its queue's resource config when the agent is in secure_mode.

The queue's config is its admin's and is trusted. What the item's merged arguments have beyond it,
or without it, is the item's and is checked. W&B's rules are about pods (launch-features.md §1.4);
those for local-container and local-process are ours.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from launch_async.domain.spec import RunSpec
from launch_async.domain.templates import could_be

MAX_NAMED = 5
MAX_PATH_CHARACTERS = 120

POD_KEYS = frozenset(
    {"hostPID", "hostIPC", "hostNetwork", "initContainers", "ephemeralContainers", "command"}
)
"""Locked at any depth, so in custom resources too; also for resources that are not known here."""

CONTAINER_KEYS = frozenset(
    {"command", "network", "net", "workdir", "w", "volume", "volumes", "v", "mount", "user", "u"}
    | {"device", "runtime", "env-file", "ipc", "privileged", "cap-add", "security-opt", "pid"}
    | {"userns", "add-host"}
)
"""What chooses the program of a container, or opens the machine to it; at the top level."""

PROGRAM_VARIABLES = frozenset(
    {"PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "BASH_ENV", "ENV"}
    | {"LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "WANDB_BASE_URL"}
)
"""Variables that choose which code runs, or to whom it reports; for local resources."""

_SAME_RESOURCE = {"vertex": "gcp-vertex"}

Path = tuple[str, ...]
Variables = Mapping[str, Mapping[str, Any]]


class QueueDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """A queue's own resource config, as its admin wrote it."""

    resource: str
    args: Mapping[str, Any]
    variables: Variables = {}
    """JSON Schemas of the template variables by name."""


class _Absent(msgspec.Struct, frozen=True):
    """Stands for "no value", as null is a value."""


_ABSENT = _Absent()


def is_for(resource: str, defaults: QueueDefaults) -> bool:
    """Whether an item of this resource type belongs into the queue."""
    own = _SAME_RESOURCE.get(resource, resource)
    return own == _SAME_RESOURCE.get(defaults.resource, defaults.resource)


def refusals(spec: RunSpec, defaults: QueueDefaults | None) -> tuple[str, ...]:
    """What secure_mode refuses of this item, as names of keys, a few at most; () is fine.

    Without the queue's config all that the item has is its own.
    """
    found: dict[str, None] = {}
    if spec.overrides.entry_point:
        found["overrides.entry_point"] = None
    if spec.resource == "local-container" and _replaces_command(spec, defaults):
        found["overrides.args"] = None
    for path in _changed(spec, defaults):
        found[path[:MAX_PATH_CHARACTERS]] = None
        if len(found) >= MAX_NAMED:
            break
    return tuple(found)


def _changed(spec: RunSpec, defaults: QueueDefaults | None) -> Iterator[str]:
    queue_args = {} if defaults is None else defaults.args
    variables = {} if defaults is None else defaults.variables
    local = spec.resource in ("local-process", "local-container")
    for path in _differences(queue_args, spec.resource_args, variables):
        if local:
            locked = spec.resource == "local-container" and path[0] in CONTAINER_KEYS
        else:
            locked = not POD_KEYS.isdisjoint(path)
        if locked:
            yield ".".join(path)
    if not local:
        return
    before, after = _variables_of(queue_args), _variables_of(spec.resource_args)
    for name in sorted(PROGRAM_VARIABLES):
        if not _same(before.get(name, _ABSENT), after.get(name, _ABSENT), variables):
            yield f"env.{name}"


def _replaces_command(spec: RunSpec, defaults: QueueDefaults | None) -> bool:
    """An item's arguments take the place of the container's command, where the queue sets one."""
    return bool(spec.overrides.args and defaults is not None and defaults.args.get("command"))


def _differences(
    queue: Mapping[str, Any], item: Mapping[str, Any], variables: Variables
) -> Iterator[Path]:
    """Paths of all values that only one of both has, or that differ."""
    before, after = dict(_leaves(queue, ())), dict(_leaves(item, ()))
    for path in {**before, **after}:
        if not _same(before.get(path, _ABSENT), after.get(path, _ABSENT), variables):
            yield path


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every scalar and every empty object or list with the keys that lead to it."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _leaves(part, (*path, str(key)))
    elif isinstance(value, list) and value:
        for index, part in enumerate(value):
            yield from _leaves(part, (*path, str(index)))
    elif path:
        yield path, value


def _same(queue: Any, item: Any, variables: Variables) -> bool:
    if isinstance(queue, str) and could_be(queue, item, variables):
        return True
    return type(queue) is type(item) and bool(queue == item)


def _variables_of(args: Mapping[str, Any]) -> dict[str, Any]:
    """The `env` of local resources by name, in either of its forms and spellings."""
    found: dict[str, Any] = {}
    for key in ("e", "env"):
        given = args.get(key) or ()
        if isinstance(given, Mapping):
            found.update({str(name): value for name, value in given.items()})
        else:
            for entry in given if isinstance(given, list) else [given]:
                name, _, value = str(entry).partition("=")
                found[name] = value
    return found
