"""Making a run's object and its Secrets, finding what an earlier try made, and letting it go."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog

from launch_async.adapters.runners.kubernetes.clusters import Cluster
from launch_async.adapters.runners.kubernetes.manifest import Manifest
from launch_async.adapters.runners.kubernetes.names import (
    IDENTITY_LABEL,
    label_value,
    pull_secret_name,
)
from launch_async.adapters.runners.kubernetes.objects import Job
from launch_async.adapters.runners.kubernetes.secret_bodies import pull_secret_body, secret_body
from launch_async.adapters.runners.kubernetes.spots import Spot
from launch_async.adapters.runners.kubernetes.verdicts import Launched
from launch_async.adapters.runners.kubernetes.watches import Station, type_of
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.image import ImageRef
from launch_async.ports.images import RegistryLogin, RegistryLogins
from launch_async.ports.runner import LaunchOrder
from launch_async.wire.kubernetes.errors import KubeRefused, decoded

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_NO_LOGINS: Mapping[str, RegistryLogin] = {}


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A run's object; `fresh`: this call has made it."""

    launched: Launched
    fresh: bool
    warnings: tuple[str, ...] = ()
    """The API server's, such as of fields that it does not know."""


class Maker:
    """`logins`: of the registries that images are in, for the nodes that pull them."""

    def __init__(self, logins: RegistryLogins | None) -> None:
        self._logins = logins

    async def logins(self, image: str) -> Mapping[str, RegistryLogin]:
        """The login for this image's registry by its host; empty: there is none."""
        if self._logins is None:
            return _NO_LOGINS
        try:
            reference = ImageRef.parse(image)
        except ValueError as error:
            raise ItemError(
                f"{image!r} is no name of an image.", reason=Reason.SPEC_INVALID
            ) from error
        login = await self._logins.login(reference)
        return _NO_LOGINS if login is None else {reference.host: login}

    async def make(
        self,
        cluster: Cluster,
        spot: Spot,
        manifest: Manifest,
        order: LaunchOrder,
        logins: Mapping[str, RegistryLogin],
    ) -> Made:
        """The object, then what its pods wait for.

        Raises:
            ItemError: the API server refuses it, or the name is another item's.
            Unavailable: it does not answer, or what has this name is still being deleted.
        """
        warnings: list[str] = []
        try:
            content = await cluster.api.create(spot.path(), manifest.body, warnings=warnings)
        except KubeRefused as error:
            if not error.exists:
                raise refused(error, manifest) from error
            launched, fresh = await self._earlier(cluster, spot, manifest, order), False
        else:
            launched, fresh = decoded(content, type_of(spot.kind)), True
        uid = launched.metadata.uid
        secrets = f"/api/v1/namespaces/{manifest.namespace}/secrets"
        if logins:
            await _ensure(cluster, secrets, pull_secret_body(manifest, order, uid, logins))
        if manifest.secret_name is not None:  # last: with it, all is there
            await _ensure(cluster, secrets, secret_body(manifest, order, uid))
        return Made(launched=launched, fresh=fresh, warnings=tuple(warnings))

    async def is_whole(self, station: Station, name: str) -> bool:
        """Whether an object that has not begun has what its pods wait for."""
        path = f"/api/v1/namespaces/{station.spot.namespace}/secrets/{name}"
        try:
            await station.cluster.api.get(path)
        except KubeRefused as error:
            return not error.not_found
        return True

    async def let_go(self, station: Station, name: str, uid: str) -> None:
        """Of an ended Job, begin the time that its queue wants to see it; delete all else.

        Its Secrets go at once, and what goes is no longer found.

        Raises:
            Unavailable: the API server does not answer, or does not let us.
        """
        api, spot = station.cluster.api, station.spot
        for secret in (name, pull_secret_name(name)):
            await _delete_secret(station, secret)
        seen = station.see(uid)
        ttl = _ttl_of(seen.launched) if seen is not None and seen.there else None
        if ttl is None:
            with _gone_is_fine():
                await api.delete(spot.path(name), propagation="Background", uid=uid)
            return
        change = {
            "metadata": {"uid": uid, "labels": {IDENTITY_LABEL: None}},
            "spec": {"ttlSecondsAfterFinished": ttl},
        }
        with _gone_is_fine():
            await api.patch(spot.path(name), change)

    async def _earlier(
        self, cluster: Cluster, spot: Spot, manifest: Manifest, order: LaunchOrder
    ) -> Launched:
        try:
            content = await cluster.api.get(spot.path(manifest.name))
        except KubeRefused as error:
            if error.not_found:
                raise Unavailable(f"{manifest.name} was there and is gone: once more.") from error
            raise refused(error, manifest) from error
        launched = decoded(content, type_of(spot.kind))
        labels = launched.metadata.label()
        if labels.item != label_value(order.item_id) or labels.identity != label_value(
            order.identity
        ):
            raise ItemError(
                f"{manifest.kind} {manifest.name} in the namespace {manifest.namespace} is in the"
                " way: it is not this item's. Remove it.",
                reason=Reason.LAUNCH_FAILED,
                stage=Stage.RUN,
            )
        if launched.metadata.deletion_timestamp:
            raise Unavailable(f"{manifest.kind} {manifest.name} is still being deleted.")
        return launched


def refused(error: KubeRefused, manifest: Manifest) -> ItemError:
    """What the item's user is told of a refusal, with the remedy."""
    what = f"{manifest.kind} in the namespace {manifest.namespace}"
    if error.not_found:
        return ItemError(
            f"The namespace {manifest.namespace} is not there: {error.message}. Name another, or"
            " have it made.",
            reason=Reason.RESOURCE_ARGS_INVALID,
        )
    if error.invalid:
        return ItemError(
            f"The cluster refuses this {what}: {error.message}. Correct the queue's resource"
            " config or the item's.",
            reason=Reason.RESOURCE_ARGS_INVALID,
        )
    if error.forbidden:
        remedy = (
            "Wait for room in the quota, or ask for less."
            if "exceeded quota" in error.message
            else "Grant it to the agent's service account, or use another namespace or kind."
        )
        return ItemError(
            f"The cluster does not allow this {what}: {error.message}. {remedy}",
            reason=Reason.FORBIDDEN,
            stage=Stage.RUN,
        )
    return ItemError(
        f"The cluster did not take this {what}: {error.message}",
        reason=Reason.LAUNCH_FAILED,
        stage=Stage.RUN,
    )


async def _delete_secret(station: Station, name: str) -> None:
    """One that may not be deleted goes with its object, which owns it."""
    path = f"/api/v1/namespaces/{station.spot.namespace}/secrets/{name}"
    with _gone_is_fine():
        try:
            await station.cluster.api.delete(path, propagation="Background")
        except KubeRefused as error:
            if not error.forbidden:
                raise
            if station.said.first("secrets stay"):
                log.warning(
                    "secrets stay as long as their runs' objects: grant the verb delete",
                    why=error.message,
                )


async def _ensure(cluster: Cluster, path: str, body: dict[str, Any]) -> None:
    """Made, or made the same: never deleted, as a pod may be about to read it."""
    name = body["metadata"]["name"]
    try:
        await cluster.api.create(path, body)
    except KubeRefused as error:
        if not error.exists:
            raise _no_secret(error) from error
    else:
        return
    change = {key: body[key] for key in ("metadata", "data")}
    try:
        await cluster.api.patch(f"{path}/{name}", change)
    except KubeRefused as error:
        raise _no_secret(error) from error


def _no_secret(error: KubeRefused) -> ItemError:
    return ItemError(
        f"The agent cannot give the run its keys: {error.message}. Let its service account create"
        " and patch secrets there.",
        reason=Reason.FORBIDDEN if error.forbidden else Reason.LAUNCH_FAILED,
        stage=Stage.RUN,
    )


def _ttl_of(launched: Launched) -> int | None:
    """What an ended Job's queue wants; None: it is to be deleted."""
    if not isinstance(launched, Job):
        return None
    over = any(
        one.true and one.type in ("Complete", "Failed")
        for one in (launched.status.conditions if launched.status else None) or ()
    )
    annotations = launched.metadata.annotations
    given = annotations.ttl if annotations else ""
    return int(given) if over and given.isdecimal() else None


@contextmanager
def _gone_is_fine() -> Generator[None, None, None]:
    try:
        yield
    except KubeRefused as error:
        if not error.not_found and not error.conflict:
            raise Unavailable(f"The cluster did not let it go: {error.message}") from error
