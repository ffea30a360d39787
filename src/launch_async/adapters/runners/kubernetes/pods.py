"""The pod templates of a manifest, whatever its kind: each object with `containers` in its `spec`.

So a bare pod is one itself, a Job has one, and a RayJob or a PyTorchJob as many as it has groups.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from launch_async.adapters.runners.kubernetes.fields import Document, Path, invalid, read_objects


class Container(msgspec.Struct, frozen=True):
    """One container, and where it is in the manifest."""

    path: Path
    fields: Document


class PodTemplate(msgspec.Struct, frozen=True):
    """One template, and where it is in the manifest."""

    path: Path
    fields: Document
    spec: Document
    containers: tuple[Container, ...]

    @property
    def spec_path(self) -> Path:
        """Where its spec is."""
        return (*self.path, "spec")


def pod_templates(body: Document) -> tuple[PodTemplate, ...]:
    """All templates, in the manifest's order.

    Raises:
        ItemError: the containers of one are no list of objects.
    """
    return tuple(_template(fields, path) for fields, path in _found(body, ()))


def containers_of(pods: Sequence[PodTemplate]) -> tuple[Container, ...]:
    """The containers of all of them, without those that only prepare."""
    return tuple(container for pod in pods for container in pod.containers)


def init_containers_of(pod: PodTemplate) -> tuple[Container, ...]:
    """Those that prepare the pod, as it is now.

    Raises:
        ItemError: they are no list of objects.
    """
    return _containers(pod.spec, "initContainers", pod.spec_path)


def _template(fields: Document, path: Path) -> PodTemplate:
    spec: Document = fields["spec"]
    return PodTemplate(path, fields, spec, _containers(spec, "containers", (*path, "spec")))


def _containers(spec: Document, key: str, path: Path) -> tuple[Container, ...]:
    if isinstance(spec.get(key), dict):
        raise invalid((*path, key), "must be a list: put `- ` before each container.")
    found = read_objects(spec, key, path)
    return tuple(Container((*path, key, index), fields) for index, fields in enumerate(found))


def _found(value: Any, path: Path) -> Iterator[tuple[Document, Path]]:
    if isinstance(value, dict):
        spec = value.get("spec")
        if isinstance(spec, dict) and spec.get("containers") is not None:
            yield value, path
        for key, part in value.items():
            if isinstance(part, dict | list):
                yield from _found(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _found(part, (*path, index))
