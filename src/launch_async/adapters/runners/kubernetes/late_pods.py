"""The pods of a run that has failed, where nobody has told of their ends yet.

Two watches tell of a run's object and of its pods. One may be ahead of the other: after an outage,
when each begins where it was, or under load.
"""

from collections.abc import Sequence

import msgspec

from launch_async.adapters.runners.kubernetes.kinds import PODS
from launch_async.adapters.runners.kubernetes.names import ITEM_LABEL
from launch_async.adapters.runners.kubernetes.objects import Pod
from launch_async.adapters.runners.kubernetes.together import phase
from launch_async.adapters.runners.kubernetes.watches import Station
from launch_async.domain.run import RunStatus
from launch_async.wire.kubernetes.errors import decoded


class _Found(msgspec.Struct, frozen=True):
    items: tuple[Pod, ...] | None = None


def are_late(station: Station, pods: Sequence[Pod], status: RunStatus) -> bool:
    """Whether the pods of a run that is said to have failed are not known to have ended."""
    if status.end is None or status.end.clean or station.spot.kind == PODS:
        return False
    return not pods or any(phase(pod) not in ("Succeeded", "Failed") for pod in pods)


async def catch_up(station: Station, item: str) -> None:
    """Ask for them, once; `item` is its label's value.

    Raises:
        KubeRefused, Unavailable: as `KubeCluster.get`.
    """
    path = PODS.path(station.spot.namespace)
    content = await station.cluster.api.get(path, {"labelSelector": f"{ITEM_LABEL}={item}"})
    station.pods.learn(decoded(content, _Found).items or ())
