"""What a handle has of a run in a cluster, and what an object there says of where it comes from."""

import msgspec

from launch_async.adapters.runners.kubernetes.objects import Annotations, Meta
from launch_async.adapters.runners.kubernetes.spots import Spot
from launch_async.domain.ids import ItemId, RunId
from launch_async.domain.run import FoundRun, Origin, RunHandle, Trace

BACKEND = "kubernetes"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a handle has of a run."""

    spot: Spot
    name: str
    uid: str
    item: str
    """The value of its label."""
    identity: str
    image: str = ""
    code_image: str = ""
    """Of the container that fetches its code, if there is one."""


def handle_of(spot: Spot, meta: Meta, identity: str, origin: Origin | None) -> RunHandle:
    """The handle of an object; the same from whoever reads it."""
    labels, annotations = meta.label(), meta.annotations or Annotations()
    facts = Facts(
        spot=spot,
        name=meta.name,
        uid=meta.uid,
        item=labels.item,
        identity=identity,
        image=annotations.image,
        code_image=annotations.code_image,
    )
    return RunHandle(
        backend=BACKEND,
        run_id=origin.run.run_id if origin else RunId(labels.run),
        item_id=origin.item_id if origin else ItemId(labels.item),
        data=msgspec.to_builtins(facts),
    )


def facts_of(handle: RunHandle) -> Facts:
    """What is in it."""
    return msgspec.convert(handle.data, Facts)


def found_run(spot: Spot, meta: Meta, trace: Trace, identity: str) -> FoundRun:
    """An object that bears our marks."""
    try:
        origin = msgspec.json.decode(
            meta.annotations.origin if meta.annotations else "", type=Origin
        )
    except msgspec.MsgspecError:
        origin = None  # an earlier version's, or somebody else's idea of our annotations
    return FoundRun(handle=handle_of(spot, meta, identity, origin), trace=trace, origin=origin)
