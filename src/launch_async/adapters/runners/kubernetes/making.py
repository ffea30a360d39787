"""Making a run's object and what belongs to it, finding what an earlier try made, letting it go.

```
begin    object --> pull Secret --> Secret of the services --> services
finish   the run's Secret: with it all is there, and the pods, which wait for it, begin
```
"""

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import msgspec
import structlog

from launch_async.adapters.runners.kubernetes.beside import make_services
from launch_async.adapters.runners.kubernetes.clusters import Cluster
from launch_async.adapters.runners.kubernetes.dropped import dropped_warning
from launch_async.adapters.runners.kubernetes.names import (
    IDENTITY_LABEL,
    label_value,
    pull_secret_name,
    services_secret_name,
)
from launch_async.adapters.runners.kubernetes.objects import Annotations, Job, Meta
from launch_async.adapters.runners.kubernetes.plans import Plan
from launch_async.adapters.runners.kubernetes.refusals import refused
from launch_async.adapters.runners.kubernetes.secret_bodies import (
    pull_secret_body,
    secret_body,
    services_secret_body,
)
from launch_async.adapters.runners.kubernetes.secret_calls import ensure_secret, secret_path
from launch_async.adapters.runners.kubernetes.verdicts import Launched
from launch_async.adapters.runners.kubernetes.watches import Station, type_of
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.ports.runner import LaunchOrder
from launch_async.wire.kubernetes.errors import KubeRefused, decoded

_GIVE_UP_SECONDS = 10.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A run's object; `fresh`: this call has made it; `whole`: an earlier one made all of it."""

    launched: Launched
    fresh: bool
    whole: bool = False
    warnings: tuple[str, ...] = ()
    """The API server's, such as of fields that it does not know."""


class _Owner(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()


async def rehearse(plan: Plan) -> Sequence[str]:
    """Dry runs of all that the plan has; what its user should know.

    Raises:
        ItemError: the API server would refuse something.
        Unavailable: it does not answer.
    """
    strict = await plan.cluster.refuses_unknown_fields()
    objects = [(plan.spot.path(), plan.manifest)]
    objects += [(service.path(), service.manifest) for service in plan.services]
    warnings: list[str] = []
    for path, manifest in objects:
        body = manifest.body
        try:
            kept = await plan.cluster.api.create(path, body, dry_run=True, strict=True)
        except KubeRefused as error:
            if not error.exists:
                raise refused(error, manifest) from error
            continue
        if not strict and (dropped := dropped_warning(body, kept)):
            warnings.append(dropped)
    return warnings


async def begin(plan: Plan, order: LaunchOrder) -> Made:
    """The object and what must be there before its pods begin.

    Raises:
        ItemError: the API server refuses something, or a name is another item's.
        Unavailable: it does not answer, or what has such a name is still being deleted.
    """
    cluster, spot, manifest = plan.cluster, plan.spot, plan.manifest
    warnings: list[str] = []
    try:
        content = await cluster.api.create(spot.path(), manifest.body, warnings=warnings)
    except KubeRefused as error:
        if not error.exists:
            raise refused(error, manifest) from error
        launched, fresh = await _earlier(plan, order), False
    else:
        launched, fresh = decoded(content, type_of(spot.kind)), True
    uid = launched.metadata.uid
    whole = not fresh and (
        manifest.secret_name is None or await is_whole(cluster, manifest.namespace, manifest.name)
    )
    made = Made(launched=launched, fresh=fresh, whole=whole, warnings=tuple(warnings))
    async with given_up(plan, made):
        if plan.logins:
            body = pull_secret_body(manifest, order, uid, plan.logins)
            await _ensure(plan, body)
        if plan.services and not whole:
            secret = services_secret_body(manifest, order, uid)
            owner = decoded(await _ensure(plan, secret), _Owner)
            await make_services(
                cluster,
                plan.services,
                run=manifest,
                order=order,
                secret_uid=owner.metadata.uid,
            )
    return made


async def finish(plan: Plan, order: LaunchOrder, made: Made) -> None:
    """The run's Secret. Raises as `begin`.

    Not to be broken off: a run that may have begun is not given up but found and stopped as any.
    """
    manifest = plan.manifest
    if manifest.secret_name is None:
        return
    body = secret_body(manifest, order, made.launched.metadata.uid, fetch=plan.fetch)
    async with given_up(plan, made):
        with anyio.CancelScope(shield=True):  # each call has its time
            await _ensure(plan, body)


async def is_whole(cluster: Cluster, namespace: str, name: str) -> bool:
    """Whether an object that has not begun has what its pods wait for.

    A change that changes nothing tells it: the agent need not be able to read Secrets.

    Raises:
        Unavailable: the API server does not answer, or does not let us.
    """
    try:
        await cluster.api.patch(secret_path(namespace, name), {}, dry_run=True)
    except KubeRefused as error:
        if not error.not_found:
            msg = f"The agent cannot see whether {name} has its keys: {error.message}"
            raise Unavailable(msg) from error
        return False
    return True


async def let_go(station: Station, name: str, uid: str) -> None:
    """Of an ended Job, begin the time that its queue wants to see it; delete all else.

    Its Secrets go at once, with them what runs beside it, and what goes is no longer found.

    Raises:
        Unavailable: the API server does not answer, or does not let us.
    """
    api, spot = station.cluster.api, station.spot
    seen = station.see(uid)
    secrets = [name, pull_secret_name(name)]
    if seen is None or (seen.launched.metadata.annotations or Annotations()).services:
        secrets.append(services_secret_name(name))
    for secret in secrets:
        await _delete_secret(station, secret)
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


async def _delete_secret(station: Station, name: str) -> None:
    """One that may not be deleted goes with its object, which owns it."""
    path = secret_path(station.spot.namespace, name)
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


@asynccontextmanager
async def given_up(plan: Plan, made: Made) -> AsyncGenerator[None, None]:
    """What breaks in the block is no launch: the object goes, whose pods would wait for ever.

    Not so in an outage: then the next try goes on where this one was.
    """
    try:
        yield
    except Unavailable:
        raise
    except BaseException:
        if not made.whole:
            with anyio.move_on_after(_GIVE_UP_SECONDS, shield=True):
                await _give_up(plan, made.launched.metadata.uid)
        raise


async def _give_up(plan: Plan, uid: str) -> None:
    path = plan.spot.path(plan.manifest.name)
    try:
        await plan.cluster.api.delete(path, propagation="Background", uid=uid)
    except (KubeRefused, Unavailable) as error:
        log.warning("what was not launched is still there", name=path, why=str(error))


async def _earlier(plan: Plan, order: LaunchOrder) -> Launched:
    manifest = plan.manifest
    try:
        content = await plan.cluster.api.get(plan.spot.path(manifest.name))
    except KubeRefused as error:
        if error.not_found:
            raise Unavailable(f"{manifest.name} was there and is gone: once more.") from error
        raise refused(error, manifest) from error
    launched = decoded(content, type_of(plan.spot.kind))
    labels = launched.metadata.label()
    if labels.item != label_value(order.item_id) or labels.identity != label_value(order.identity):
        raise ItemError(
            f"{manifest.kind} {manifest.name} in the namespace {manifest.namespace} is in the"
            " way: it is not this item's. Remove it.",
            reason=Reason.LAUNCH_FAILED,
            stage=Stage.RUN,
        )
    if launched.metadata.deletion_timestamp:
        raise Unavailable(f"{manifest.kind} {manifest.name} is still being deleted.")
    return launched


async def _ensure(plan: Plan, body: Mapping[str, Any]) -> bytes:
    try:
        return await ensure_secret(plan.cluster.api, body)
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
