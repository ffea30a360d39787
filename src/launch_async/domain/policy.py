"""What an item may change of its queue's resource config.

The queue's config is its admin's and is trusted. What the item's merged arguments have beyond it,
or without it, is the item's and is checked: on Kubernetes always for what opens the cluster, which
W&B's agent refuses to queues too (launch-features.md K14); the rest in secure_mode. W&B's rules for
that are about pods (§1.4); those for local-container and local-process are ours.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import msgspec

from launch_async.domain.spec import RunSpec
from launch_async.domain.templates import could_be

MAX_NAMED = 5
MAX_PATH_CHARACTERS = 120

CLUSTER_KEYS = frozenset({"configFile", "context"})
"""Choose the cluster, and with it who the agent is there; at the top level."""
LOOSENING_KEYS = frozenset(
    {"securityContext", "serviceAccountName", "serviceAccount", "automountServiceAccountToken"}
    | {"hostUsers"}
)
"""Open the cluster to a pod by what they say, or by being left out where the queue has them."""
OPENING_KEYS = frozenset(
    {"hostPath", "hostPID", "hostIPC", "hostNetwork", "hostPort", "shareProcessNamespace"}
    | {"serviceAccountToken", "mountPropagation"}
)
"""Open a node or the cluster to a pod. At any depth, like those above."""
POD_KEYS = (
    frozenset({"initContainers", "ephemeralContainers", "command"}) | LOOSENING_KEYS | OPENING_KEYS
)
"""Locked at any depth, so in custom resources too; also for resources that are not known here."""
PLACE_KEYS = CLUSTER_KEYS | {"namespace"}
"""Of kubernetes; locked at the top level, `namespace` in `metadata` too."""

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

KUBERNETES = "kubernetes"

_TOKEN_OF_AN_ACCOUNT = "kubernetes.io/service-account-token"  # noqa: S105 - a type of Secrets
"""A Secret of this type gets the token of whichever service account it names."""

_SAME_RESOURCE = {"vertex": "gcp-vertex"}
_LOCAL = frozenset({"local-process", "local-container"})
_SWITCHES = frozenset(
    {"hostPID", "hostIPC", "hostNetwork", "shareProcessNamespace", "hostUsers"}
    | {"automountServiceAccountToken"}
)
"""Of these, false is never more than what the queue has."""

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


class _Change(msgspec.Struct, frozen=True):
    """One value that the item has otherwise than its queue."""

    path: Path
    before: Any
    after: Any


def is_for(resource: str, defaults: QueueDefaults) -> bool:
    """Whether an item of this resource type belongs into the queue."""
    own = _SAME_RESOURCE.get(resource, resource)
    return own == _SAME_RESOURCE.get(defaults.resource, defaults.resource)


def refusals(spec: RunSpec, defaults: QueueDefaults | None) -> tuple[str, ...]:
    """What secure_mode refuses of this item, as names of keys, a few at most; () is fine.

    Without the queue's config all that the item has is its own.
    """
    return _few(_changed(spec, defaults))


def openings(spec: RunSpec, defaults: QueueDefaults | None) -> tuple[str, ...]:
    """What of this item opens the cluster and is not its queue's: refused without secure_mode too.

    As `refusals`. Without the queue's config it is all that the item needs its queue's leave for.
    """
    if spec.resource != KUBERNETES:
        return ()
    queue_args = {} if defaults is None else defaults.args
    variables = {} if defaults is None else defaults.variables
    changes = _differences(queue_args, spec.resource_args, variables)
    opening = (".".join(change.path) for change in changes if _opens(change))
    return _few(chain(opening, _of_services(spec, _opens)))


def _few(paths: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for path in paths:
        found[path[:MAX_PATH_CHARACTERS]] = None
        if len(found) >= MAX_NAMED:
            break
    return tuple(found)


def _changed(spec: RunSpec, defaults: QueueDefaults | None) -> Iterator[str]:
    if spec.overrides.entry_point:
        yield "overrides.entry_point"
    if spec.resource == "local-container" and _replaces_command(spec, defaults):
        yield "overrides.args"
    queue_args = {} if defaults is None else defaults.args
    variables = {} if defaults is None else defaults.variables
    for change in _differences(queue_args, spec.resource_args, variables):
        if _is_locked(change, spec.resource):
            yield ".".join(change.path)
    if spec.resource == KUBERNETES:
        yield from _of_services(spec, lambda change: _is_locked(change, KUBERNETES))
    if spec.resource not in _LOCAL:
        return
    before, after = _variables_of(queue_args), _variables_of(spec.resource_args)
    for name in sorted(PROGRAM_VARIABLES):
        if not _same(before.get(name, _ABSENT), after.get(name, _ABSENT), variables):
            yield f"env.{name}"


def _of_services(spec: RunSpec, is_wanted: Callable[[_Change], bool]) -> Iterator[str]:
    """What an item brings to run beside it is all its own: no queue has such."""
    for index, config in enumerate(spec.additional_services):
        for change in _differences({}, config, {}):
            if is_wanted(change):
                yield ".".join(("additional_services", str(index), *change.path))


def _replaces_command(spec: RunSpec, defaults: QueueDefaults | None) -> bool:
    """An item's arguments take the place of the container's command, where the queue sets one."""
    return bool(spec.overrides.args and defaults is not None and defaults.args.get("command"))


def _is_locked(change: _Change, resource: str) -> bool:
    path = change.path
    if resource in _LOCAL:
        return resource == "local-container" and path[0] in CONTAINER_KEYS
    if not POD_KEYS.isdisjoint(path):
        return True
    if resource != KUBERNETES:
        return False
    return path[0] in PLACE_KEYS or path[:2] == ("metadata", "namespace") or _opens(change)


def _opens(change: _Change) -> bool:
    """Whether it opens the cluster further than the queue does."""
    path, after = change.path, change.after
    if after is False and path[-1] in _SWITCHES:
        return False
    given = not isinstance(after, _Absent) and after is not None and after != ""
    if path[0] in CLUSTER_KEYS or not LOOSENING_KEYS.isdisjoint(path):
        return given or not isinstance(change.before, _Absent)
    if not OPENING_KEYS.isdisjoint(path) or after == _TOKEN_OF_AN_ACCOUNT:
        return given
    return _unconfines(path, after)


def _unconfines(path: Path, value: Any) -> bool:
    """Annotations of older clusters that take a profile away."""
    name = path[-1].lower()
    return (
        "annotations" in path[:-1]
        and ("apparmor" in name or "seccomp" in name)
        and "unconfined" in str(value).lower()
    )


def _differences(
    queue: Mapping[str, Any], item: Mapping[str, Any], variables: Variables
) -> Iterator[_Change]:
    """All values that only one of both has, or that differ."""
    before, after = dict(_leaves(queue, ())), dict(_leaves(item, ()))
    for path in {**before, **after}:
        change = _Change(path, before.get(path, _ABSENT), after.get(path, _ABSENT))
        if not _same(change.before, change.after, variables):
            yield change


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
