"""Making what runs beside a run, and waiting until its pods are ready.

```
the run's object --> a Secret, owned by it --> services, owned by the Secret --> their pods ready
```

The run's own Secret comes after that, and its pods wait for it. What is said of pods comes from the
watch on all of the agent's pods: a wait costs no request.
"""

from collections.abc import Sequence

import anyio
import msgspec
import structlog

from launch_async.adapters.runners.kubernetes.causes import why_waiting
from launch_async.adapters.runners.kubernetes.clusters import Cluster
from launch_async.adapters.runners.kubernetes.fields import Document
from launch_async.adapters.runners.kubernetes.kinds import Kind
from launch_async.adapters.runners.kubernetes.manifest import Manifest
from launch_async.adapters.runners.kubernetes.names import label_value
from launch_async.adapters.runners.kubernetes.objects import Meta, Pod
from launch_async.adapters.runners.kubernetes.refusals import refused
from launch_async.adapters.runners.kubernetes.services import owned_body, pods_wanted
from launch_async.adapters.runners.kubernetes.together import phase
from launch_async.adapters.runners.kubernetes.watches import Station, Watches, now
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.ports.runner import LaunchOrder
from launch_async.wire.kubernetes.errors import KubeRefused, decoded

_MAX_TOLD = 3
_LOOK_SECONDS = 5.0
"""Between two looks if nothing is told: an informer may be stale."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Service(msgspec.Struct, frozen=True):
    """One of the objects beside a run, and where its kind is."""

    kind: Kind
    manifest: Manifest

    def path(self, name: str | None = None) -> str:
        """Of all of its kind in its namespace, or of the object with this name."""
        return self.kind.path(self.manifest.namespace, name)


class _Found(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()


async def make_services(
    cluster: Cluster,
    services: Sequence[Service],
    *,
    run: Manifest,
    order: LaunchOrder,
    secret_uid: str,
) -> None:
    """Make all of them, or find them.

    Raises:
        ItemError: the API server refuses one, or its name is somebody else's.
        Unavailable: it does not answer, or one of an earlier try is still being deleted.
    """
    for service in services:
        body = owned_body(service.manifest, run, secret_uid)
        try:
            await cluster.api.create(service.path(), body)
        except KubeRefused as error:
            if not error.exists:
                raise refused(error, service.manifest) from error
            await _check_ours(cluster, service, order, body)


async def wait_ready(
    watches: Watches,
    station: Station,
    services: Sequence[Service],
    *,
    item: str,
    within_seconds: float,
) -> None:
    """Until as many pods as the services want are ready. `item`: its label's value.

    Raises:
        ItemError: they are not within this time; the text says why.
        Unavailable: nobody tells how they are.
    """
    wanted = sum(pods_wanted(service.manifest) for service in services)
    names = ", ".join(service.manifest.name for service in services)
    log.info("waiting for what runs beside the run", services=names, pods=wanted)
    with watches.follow(item) as bell, anyio.move_on_after(within_seconds):
        while _ready(station.pods.beside(item)) < wanted:
            with anyio.move_on_after(_LOOK_SECONDS):
                await bell.wait()
        return
    if station.pods.informer.why:
        raise Unavailable(f"The pods of {names} are not known: {station.pods.informer.why}")
    pods = station.pods.beside(item)
    why = "; ".join([_why(pod) for pod in pods if not _is_ready(pod)][:_MAX_TOLD])
    raise ItemError(
        f"What runs beside the job ({names}) was not ready within {within_seconds:g} s:"
        f" {_ready(pods)} of {wanted} pods are. {why or 'No pod of it is there'}. Correct it, give"
        " it more time by `wait_timeout` in the resource config, or set `wait_for_ready: false`.",
        reason=Reason.LAUNCH_FAILED,
        stage=Stage.RUN,
    )


async def _check_ours(
    cluster: Cluster, service: Service, order: LaunchOrder, body: Document
) -> None:
    """What has its name already is of an earlier try of this launch."""
    name, what = service.manifest.name, f"{service.manifest.kind} {service.manifest.name}"
    try:
        found = decoded(await cluster.api.get(service.path(name)), _Found).metadata
    except KubeRefused as error:
        if error.not_found:
            raise Unavailable(f"{name} was there and is gone: once more.") from error
        raise refused(error, service.manifest) from error
    labels, owners = found.label(), found.owner_references or ()
    run = (label_value(order.run.run_id), label_value(order.identity))
    if not labels.service_of or (labels.run, labels.identity) != run:
        raise ItemError(
            f"{what} in the namespace {service.manifest.namespace} is in the way: it is not this"
            " item's. Give the service a name with `${run_id}` in it, or remove the other one.",
            reason=Reason.LAUNCH_FAILED,
            stage=Stage.RUN,
        )
    (owner,) = body["metadata"]["ownerReferences"]
    if found.deletion_timestamp or owner["uid"] not in {one.uid for one in owners}:
        raise Unavailable(f"{what} of an earlier try is still there.")


def _ready(pods: Sequence[Pod]) -> int:
    return sum(map(_is_ready, pods))


def _is_ready(pod: Pod) -> bool:
    conditions = (pod.status.conditions if pod.status else None) or ()
    return phase(pod) == "Succeeded" or any(one.type == "Ready" and one.true for one in conditions)


def _why(pod: Pod) -> str:
    name = pod.metadata.name
    match phase(pod):
        case "Failed":
            return f"pod {name} has failed"
        case "Running":
            return f"pod {name} runs and is not ready"
        case _:
            return f"pod {name}: {why_waiting(pod, (), now=now()).text}"
