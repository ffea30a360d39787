"""Origin: what a run carries of its item, and the item that can be made of it again."""

from launch_async.agent.tools import Tools
from launch_async.domain.item import Item
from launch_async.domain.run import Origin
from launch_async.domain.spec import RunSpec
from launch_async.kit.clock import unix_now


def origin_of(item: Item, tools: Tools) -> Origin:
    """What the item's run carries on its backend; no secrets."""
    return Origin(
        identity=tools.identity,
        life=tools.life,
        service=tools.base_url,
        item_id=item.id,
        queue=item.queue,
        run=item.run,
        resource=item.spec.resource,
        job=item.spec.job,
        image=item.spec.image,
        author=item.spec.author,
        lease=item.lease,
        own_key=item.spec.api_key is not None,
        popped_at=item.popped_at,
        launched_at=unix_now(),
    )


def item_of(origin: Origin, *, resource: str) -> Item:
    """The item as far as it must be known to watch its run, judge it and report.

    Its key, its overrides and its resource config are lost: it cannot be launched again. `resource`
    is the target that has the run now.
    """
    spec = RunSpec(
        entity=origin.run.entity,
        project=origin.run.project,
        job=origin.job,
        image=origin.image,
        resource=resource,
        run_id=origin.run.run_id,
        author=origin.author,
    )
    return Item(
        id=origin.item_id,
        queue=origin.queue,
        run_id=origin.run.run_id,
        spec=spec,
        popped_at=origin.popped_at,
        lease=origin.lease,
    )
