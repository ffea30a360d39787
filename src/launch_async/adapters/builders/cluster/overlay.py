"""The operator's own words for the Jobs of builds, laid over ours; W&B calls them `kaniko-config`.

```yaml
metadata: {labels: {team: ml}}
spec:
  template:
    spec:
      nodeSelector: {pool: builds}
      containers:
        - resources: {limits: {memory: 8Gi}}
          args: [--verbosity=debug]
```

Objects are merged; environment, mounts, volumes and arguments are added to ours. An argument takes
the place of ours of its name, if it may not be given several times.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from launch_async.domain.errors import ConfigError
from launch_async.domain.merge import merge

_LISTS = ("env", "envFrom", "volumeMounts")
_REPEATED = frozenset(
    {"--build-arg", "--destination", "--insecure-registry", "--label"}
    | {"--export-cache", "--import-cache", "--local", "--opt", "--output"}
)
"""Arguments of kaniko and of buildctl that may be given several times."""
_FIXED = {"backoffLimit": 0, "ttlSecondsAfterFinished": 600}
"""A build that failed is not tried again by the cluster, and is gone if the agent is."""
_FIXED_POD = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
"""Nothing in the pod is worth waiting for."""


def check_overlay(overlay: Mapping[str, Any], key: str) -> None:
    """`key` is the setting that it is of.

    Raises:
        ConfigError: it is not a part of one Job with one container.
    """
    if unknown := overlay.keys() - {"apiVersion", "kind", "metadata", "spec"}:
        msg = f"{key}: {min(unknown)!r} is no key of a Job: it has metadata and spec"
        raise ConfigError(msg)
    pod = _object(_object(overlay, "spec", key), "template", key)
    for holder in (overlay, pod):
        metadata = _object(holder, "metadata", key)
        for name in ("labels", "annotations"):
            _object(metadata, name, key)
    pod = _object(pod, "spec", key)
    containers = _list(pod, "containers", key)
    if len(containers) > 1 or not all(isinstance(one, Mapping) for one in containers):
        msg = f"{key}: containers must be a list of one object: builds have one container"
        raise ConfigError(msg)
    _list(pod, "volumes", key)
    for container in containers:
        for name in _LISTS:
            _list(container, name, key)
        for arg in _list(container, "args", key):
            if not isinstance(arg, str) or not arg.startswith("--") or "=" not in arg:
                msg = f"{key}: args must look like --NAME=VALUE, not {str(arg)[:50]!r}"
                raise ConfigError(msg)


def overlaid(spec: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """A Job's spec with the overlay's; its pod has one container."""
    over = dict(overlay.get("spec") or {})
    template = dict(over.pop("template", None) or {})
    over_pod = dict(template.pop("spec", None) or {})
    over_container = dict(next(iter(over_pod.pop("containers", None) or ()), {}))
    more_volumes = over_pod.pop("volumes", None) or ()

    pod = dict(spec["template"]["spec"])
    (container,) = pod.pop("containers")
    volumes = [*pod.pop("volumes", ()), *more_volumes]
    merged_pod = {**merge(pod, over_pod), **_FIXED_POD, "volumes": volumes}
    merged_pod["containers"] = [_container(container, over_container)]
    rest = {key: value for key, value in spec.items() if key != "template"}
    bare = {key: value for key, value in spec["template"].items() if key != "spec"}
    return {
        **merge(rest, over),
        **_FIXED,
        "template": {**merge(bare, template), "spec": merged_pod},
    }


def namespace_in(overlay: Mapping[str, Any]) -> str:
    """The namespace that its metadata names; empty: none."""
    return str((overlay.get("metadata") or {}).get("namespace") or "")


def _container(ours: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    added = {name: [*(ours.get(name) or ()), *(over.get(name) or ())] for name in _LISTS}
    given = list(over.get("args") or ())
    replaced = {_name(arg) for arg in given} - _REPEATED
    args = [arg for arg in ours.get("args") or () if _name(arg) not in replaced]
    plain = {key: value for key, value in over.items() if key not in (*_LISTS, "args", "name")}
    lists = {name: found for name, found in added.items() if found}
    return {**merge(ours, plain), **lists, "args": [*args, *given]}


def _name(arg: str) -> str:
    return arg.partition("=")[0]


def _object(holder: Mapping[str, Any], name: str, key: str) -> Mapping[str, Any]:
    found = holder.get(name) or {}
    if not isinstance(found, Mapping):
        msg = f"{key}: {name} must be an object"
        raise ConfigError(msg)
    return found


def _list(holder: Mapping[str, Any], name: str, key: str) -> Sequence[Any]:
    found = holder.get(name) or []
    if not isinstance(found, list):
        msg = f"{key}: {name} must be a list"
        raise ConfigError(msg)
    return found
