"""A coordination.k8s.io Lease: of all replicas of an agent only the one that holds it acts.

```
acquire  nobody has it, or we had, or not renewed for its duration --> ours
keep     renewed now and then; not for two thirds of its duration  --> LeaseLost
release  nobody has it: who waits need not wait for its end
```

Each replica measures time on its own clock, from when it saw the Lease change: no two clocks are
compared. A change names the version that it follows from, so that of two that try one is refused.
The agent's lasting identity is kept with the Lease, so that a holder knows its forerunner's runs.
"""

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import anyio
import msgspec
import structlog

from launch_async.domain.errors import AgentUnfit, LaunchError, Unavailable
from launch_async.wire.kubernetes.cluster import KubeCluster
from launch_async.wire.kubernetes.errors import KubeRefused, decoded

IDENTITY_ANNOTATION = "launch-async/identity"
KEPT_SHARE = 2 / 3
"""Of its duration a holder that cannot renew it goes on; the rest is for its end."""
RELEASE_SECONDS = 5.0
_API_VERSION = "coordination.k8s.io/v1"

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class LeaseLost(LaunchError):
    """Another replica may act from now on; this one must not."""


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    annotations: Mapping[str, str] | None = None


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    lease_transitions: int | None = None


class _Lease(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _Spec | None = None

    @property
    def holder(self) -> str:
        return (self.spec.holder_identity if self.spec else None) or ""

    @property
    def identity(self) -> str:
        return (self.metadata.annotations or {}).get(IDENTITY_ANNOTATION, "")


class _Watched:
    """How long a Lease has stayed as it is, as far as we have seen."""

    def __init__(self, default_seconds: int) -> None:
        self._default_seconds = default_seconds
        self._version = ""
        self._since = 0.0

    def left_seconds(self, lease: _Lease) -> float:
        """Until it may be taken from its holder."""
        if lease.metadata.resource_version != self._version:
            self._version, self._since = lease.metadata.resource_version, anyio.current_time()
        given = lease.spec.lease_duration_seconds if lease.spec else None
        return self._since + (given or self._default_seconds) - anyio.current_time()


class KubeLease:
    """One Lease, as one holder sees it; `holder` is a name that no other process has or had."""

    def __init__(
        self,
        cluster: KubeCluster,
        *,
        name: str,
        namespace: str = "",
        holder: str,
        duration_seconds: int = 30,
        renew_seconds: float = 5.0,
    ) -> None:
        """`namespace` empty: the cluster's default one."""
        self._cluster = cluster
        self._name = name
        self._namespace = namespace
        self._holder = holder
        self._duration_seconds = duration_seconds
        self._renew_seconds = renew_seconds
        self._version = ""
        self._renewed_at = 0.0

    @property
    def end_seconds(self) -> float:
        """How long after a `LeaseLost` nobody else has it yet."""
        return self._duration_seconds * (1 - KEPT_SHARE)

    async def acquire(
        self, *, identity: str, otherwise: str, earlier: str = "", waits: Callable[[str], None]
    ) -> str:
        """Wait until it is ours; the agent's identity.

        That is the Lease's; of a new one it is `identity`, or `otherwise` if that is empty. `waits`
        hears at each look why it is not ours. It is taken at once from the holder `earlier`, which
        must be known to be dead.

        Raises:
            ConfigError: the cluster's configuration is missing or wrong.
            AgentUnfit: the API server refuses it, or it is another agent's than `identity`.
        """
        await self._cluster.open()
        watched = _Watched(self._duration_seconds)
        while True:
            began, lease = anyio.current_time(), None
            try:
                lease = await self._look()
                why = self._why_not(lease, watched, earlier)
                if not why:
                    owned = self._identity(lease, identity) or otherwise
                    taken = await self._take(lease, owned)
                    self._version, self._renewed_at = taken.metadata.resource_version, began
                    log.info("lease acquired", lease=str(self), holder=self._holder)
                    return owned
            except KubeRefused as error:
                if not error.conflict and (lease is None or not error.not_found):
                    raise self._unfit(error) from error
                why = f"{self} was changed by somebody else just now"
            except Unavailable as error:
                why = f"{self} cannot be read: {error}"
            waits(why)
            await anyio.sleep(self._renew_seconds * random.uniform(0.8, 1.2))  # noqa: S311

    async def keep(self) -> None:
        """Renew it until cancelled.

        Raises:
            LeaseLost: another holder has it, or may have it soon.
        """
        why = ""
        while True:
            left = self._left_seconds()
            if left <= 0:
                msg = f"{self} could not be renewed in time: {why or 'this process stood still'}"
                raise LeaseLost(msg)
            await anyio.sleep(min(self._renew_seconds, left))
            began = anyio.current_time()
            try:
                with anyio.fail_after(max(0.0, self._left_seconds())):
                    await self._renew()
            except TimeoutError:
                why = why or "the API server does not answer"
            except (Unavailable, KubeRefused) as error:
                why = str(error)
                log.warning("lease not renewed", lease=str(self), why=why)
            else:
                self._renewed_at, why = began, ""

    async def release(self) -> None:
        """Let others have it; bounded, and an error costs them no more than its duration."""
        with anyio.move_on_after(RELEASE_SECONDS, shield=True):
            try:
                await self._patch({"spec": {"holderIdentity": None}})
            except (Unavailable, KubeRefused) as error:
                log.info("lease not released", lease=str(self), why=str(error))

    def __str__(self) -> str:
        return f"the Lease {self._namespace or self._cluster.namespace}/{self._name}"

    @property
    def _path(self) -> str:
        namespace = self._namespace or self._cluster.namespace
        return f"/apis/{_API_VERSION}/namespaces/{namespace}/leases"

    def _left_seconds(self) -> float:
        last = self._renewed_at + self._duration_seconds * KEPT_SHARE
        return last - anyio.current_time()

    async def _look(self) -> _Lease | None:
        try:
            content = await self._cluster.get(f"{self._path}/{self._name}")
        except KubeRefused as error:
            if not error.not_found:
                raise
            return None
        return decoded(content, _Lease)

    def _why_not(self, lease: _Lease | None, watched: _Watched, earlier: str) -> str:
        """Why it cannot be taken now; "" when it can."""
        if lease is None or not lease.holder or lease.holder in {self._holder, earlier}:
            return ""
        left = watched.left_seconds(lease)
        return f"{lease.holder} holds {self}" if left > 0 else ""

    def _identity(self, lease: _Lease | None, identity: str) -> str:
        given = lease.identity if lease else ""
        if given and identity and given != identity:
            raise AgentUnfit(
                f"{self} is the agent {given}'s, and the state folder the agent {identity}'s: name"
                " another Lease in agent.kubernetes.lease, or delete identity and journal.sqlite"
                " from the folder to go on as the Lease's agent"
            )
        return given or identity

    async def _take(self, lease: _Lease | None, identity: str) -> _Lease:
        stamp = _now()
        spec: dict[str, Any] = {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": self._duration_seconds,
            "acquireTime": stamp,
            "renewTime": stamp,
            "leaseTransitions": 0,
        }
        annotations = {IDENTITY_ANNOTATION: identity}
        if lease is None:
            body = {
                "apiVersion": _API_VERSION,
                "kind": "Lease",
                "metadata": {"name": self._name, "annotations": annotations},
                "spec": spec,
            }
            return decoded(await self._cluster.create(self._path, body), _Lease)
        self._version = lease.metadata.resource_version
        spec["leaseTransitions"] = ((lease.spec and lease.spec.lease_transitions) or 0) + 1
        return await self._patch({"metadata": {"annotations": annotations}, "spec": spec})

    async def _renew(self) -> None:
        try:
            renewed = await self._patch({"spec": {"renewTime": _now()}})
        except KubeRefused as error:
            if error.not_found:
                raise LeaseLost(f"{self} was deleted") from error
            if not error.conflict:
                raise
        else:
            self._version = renewed.metadata.resource_version
            return
        # Our own change may have counted without an answer, or somebody put a label to it.
        lease = await self._look()
        if lease is None or lease.holder != self._holder:
            holder = lease.holder if lease else ""
            raise LeaseLost(f"{self} is {f'held by {holder}' if holder else 'released'} now")
        self._version = lease.metadata.resource_version
        renewed = await self._patch({"spec": {"renewTime": _now()}})
        self._version = renewed.metadata.resource_version

    async def _patch(self, change: dict[str, Any]) -> _Lease:
        metadata = {**change.get("metadata", {}), "resourceVersion": self._version}
        content = await self._cluster.patch(
            f"{self._path}/{self._name}", {**change, "metadata": metadata}
        )
        return decoded(content, _Lease)

    def _unfit(self, error: KubeRefused) -> AgentUnfit:
        remedy = "correct agent.kubernetes.lease"
        if error.forbidden:
            remedy = "let the agent's service account get, create and patch leases there"
        return AgentUnfit(f"{self} cannot be used: {error.message}; {remedy}")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
