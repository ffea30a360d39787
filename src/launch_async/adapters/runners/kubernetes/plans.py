"""From a launch order to all that is to be made for its run, and where; nothing is made yet."""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from launch_async.adapters.runners.kubernetes.beside import Service
from launch_async.adapters.runners.kubernetes.clusters import OWN, Cluster, Clusters
from launch_async.adapters.runners.kubernetes.fields import invalid
from launch_async.adapters.runners.kubernetes.injection import CodeFetch
from launch_async.adapters.runners.kubernetes.kinds import Kind
from launch_async.adapters.runners.kubernetes.manifest import Manifest, make_manifest, place_of
from launch_async.adapters.runners.kubernetes.policy import KubernetesPolicy
from launch_async.adapters.runners.kubernetes.pulls import Logins, PullLogins
from launch_async.adapters.runners.kubernetes.services import make_service
from launch_async.adapters.runners.kubernetes.spots import ClusterKey, Spot
from launch_async.domain.errors import ConfigError, ItemError, Reason, Unavailable
from launch_async.ports.runner import FetchedCode, ImageWork, LaunchOrder

DEFAULT_WAIT_SECONDS = 300.0
"""How long what runs beside a run may take to be ready; W&B's number."""
MAX_WAIT_SECONDS = 3600.0


class CodeFetches(Protocol):
    """Knows the container by which a pod gets a job's code."""

    async def fetch_of(self, code: FetchedCode) -> CodeFetch:
        """The container, with what it must know to be let in where the code is.

        Raises:
            ItemError: the code cannot be fetched so.
        """
        ...


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that is to be made for one run."""

    cluster: Cluster
    spot: Spot
    manifest: Manifest
    services: tuple[Service, ...] = ()
    """What runs beside it."""
    wait_seconds: float = 0.0
    """How long these may take to be ready; 0: nobody waits."""
    fetch: CodeFetch | None = None
    logins: Logins = {}


class Planner:
    """Holds what the operator has set."""

    def __init__(
        self,
        clusters: Clusters,
        policy: KubernetesPolicy,
        logins: PullLogins,
        code: CodeFetches | None,
    ) -> None:
        self._clusters = clusters
        self._policy = policy
        self._logins = logins
        self._code = code

    async def plan(self, order: LaunchOrder, *, rehearsal: bool = False) -> Plan:
        """`rehearsal`: the image is a stand-in, and nothing of it is needed.

        Raises:
            ItemError: the order cannot be followed, which the text tells with the place.
            Unavailable: the cluster, or who hands out logins, does not answer.
        """
        work = _image_work(order)
        fetch = None
        if work.fetch is not None:
            fetch = await self._fetch_of(work.fetch)
        images = (work.image, fetch.image if fetch else "")
        logins = {} if rehearsal else await self._logins.of(*images)
        place = place_of(order.resource_args, self._policy)
        key = ClusterKey(place.config_file, place.context)
        cluster = await self._cluster(key)
        manifest = make_manifest(
            order,
            self._policy,
            image=work.image,
            default_namespace=cluster.api.namespace,
            pull_secret=bool(logins),
            fetch=fetch,
        )
        kind = await _kind_of(cluster, manifest)
        configs = [make_service(one, order, self._policy, run=manifest) for one in order.services]
        return Plan(
            cluster=cluster,
            spot=Spot(cluster=key, namespace=manifest.namespace, kind=kind),
            manifest=manifest,
            services=tuple([Service(await _kind_of(cluster, one), one) for one in configs]),
            wait_seconds=wait_seconds(order.resource_args),
            fetch=fetch,
            logins=logins,
        )

    async def _cluster(self, key: ClusterKey) -> Cluster:
        try:
            return await self._clusters.get(key)
        except ConfigError as error:
            if key == OWN:
                raise Unavailable(str(error)) from error
            raise ItemError(str(error), reason=Reason.RESOURCE_ARGS_INVALID) from error

    async def _fetch_of(self, code: FetchedCode) -> CodeFetch:
        if self._code is None:
            msg = "This agent's Kubernetes runner knows no image that fetches code."
            raise ItemError(msg, reason=Reason.TARGET_UNSUPPORTED)
        return await self._code.fetch_of(code)


def wait_seconds(resource_args: Mapping[str, Any]) -> float:
    """How long the config lets services take, by W&B's keys; 0: it does not want to wait.

    Raises:
        ItemError: the keys are not what they must be.
    """
    waits, limit = resource_args.get("wait_for_ready"), resource_args.get("wait_timeout")
    if waits not in (None, True, False):
        raise invalid(("wait_for_ready",), "must be true or false.")
    if limit is None:
        limit = DEFAULT_WAIT_SECONDS
    if not isinstance(limit, int | float) or not 0 < limit <= MAX_WAIT_SECONDS:
        raise invalid(
            ("wait_timeout",), f"must be a number of seconds, {MAX_WAIT_SECONDS:g} at most."
        )
    return 0.0 if waits is False else float(limit)


async def _kind_of(cluster: Cluster, manifest: Manifest) -> Kind:
    kind = await cluster.kinds.find(manifest.api_version, manifest.kind)
    if not kind.namespaced:
        msg = f"{manifest.kind} is of no namespace: runs must be objects of one."
        raise ItemError(msg, reason=Reason.RESOURCE_ARGS_INVALID)
    return kind


def _image_work(order: LaunchOrder) -> ImageWork:
    if not isinstance(order.work, ImageWork):
        raise ItemError(
            "kubernetes queues run images, not code: use an image job, or a local-process queue.",
            reason=Reason.TARGET_UNSUPPORTED,
        )
    if order.work.code is not None:
        raise ItemError(
            "kubernetes queues cannot run code that is on the agent's disk: let the agent build an"
            " image of it (`builder`), or use a local-container queue.",
            reason=Reason.TARGET_UNSUPPORTED,
        )
    return order.work
