"""Jobs that the agent runs in a cluster for itself, such as builds of images."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from launch_async.domain.run import RunEnd
from launch_async.domain.secret import Secret
from launch_async.ports.images import Say

Feed = Callable[[bytes], Awaitable[None]]

SecretData = Callable[[], Awaitable[Mapping[str, Secret[str]]]]
"""What a Secret holds, by key, now: asked for at the beginning, and again as logins expire."""


class ClusterJob(msgspec.Struct, frozen=True, kw_only=True):
    """One Job of one pod. Nothing in it is secret."""

    name: str
    """Of the Job and of its Secret. The same work has the same name: a later life finds it."""
    namespace: str = ""
    """Empty: the cluster's own."""
    about: str
    """What it is for, in an annotation, for people."""
    spec: Mapping[str, Any]
    """The `spec` of a `batch/v1` Job."""
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    """Beside those by which it is found."""


class ClusterJobs(Protocol):
    """Runs them, and leaves nothing of them."""

    async def check(self) -> None:
        """Whether the cluster can be used now; raises `Unavailable` with reason and remedy."""
        ...

    async def run(
        self,
        job: ClusterJob,
        *,
        prepare: Callable[[], Awaitable[None]],
        secret: SecretData | None,
        feed: Feed,
        say: Say,
    ) -> RunEnd:
        """How it ended.

        `prepare` is awaited before the Job is made, not if an earlier life has made it. `secret`:
        content of a Secret of type `kubernetes.io/dockerconfigjson`, which is gone with the Job.
        `feed` gets all that the pod prints, `say` why it does not begin.

        The Job is gone afterwards; when this is cancelled, its pods are too.

        Raises:
            Unavailable: the cluster does not answer, refuses the Job, or cannot begin it.
        """
        ...
