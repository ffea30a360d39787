"""What this agent refuses of an item, before anything is made for it."""

import structlog

from launch_async.agent.tools import Tools
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.item import Item
from launch_async.domain.policy import QueueDefaults, is_for, openings, refusals

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def check_rules(item: Item, tools: Tools) -> None:
    """Hold the item to its queue's resource type and config, to secure_mode, and to keys of runs.

    Raises:
        ItemError: a rule forbids the item.
        Unavailable: the queue's config decides, and it cannot be read now.
    """
    _check_key(item, tools)
    defaults = await _defaults_of(item, tools)
    broken = _broken(item, defaults, tools)
    if broken is not None and defaults is not None:  # by what may be old: its admin may have acted
        broken = _broken(item, await _defaults_of(item, tools, fresh=True), tools)
    if broken is not None:
        raise broken


def _check_key(item: Item, tools: Tools) -> None:
    if item.spec.api_key is not None:
        return
    if tools.require_run_key:
        msg = (
            "the item brings no key of its own, and this agent hands its own to nobody "
            "(agent.require_run_key). Use a control plane that gives keys to runs, or an agent "
            "without this setting."
        )
        raise ItemError(msg, reason=Reason.NO_RUN_KEY)
    if tools.said.first("no run key"):
        log.warning(
            "items bring no keys of their own: their runs get the agent's; "
            "agent.require_run_key refuses such items"
        )


async def _defaults_of(item: Item, tools: Tools, *, fresh: bool = False) -> QueueDefaults | None:
    if tools.configs is None:
        return None
    try:
        return await tools.configs.defaults_of(item.queue, fresh=fresh)
    except Unavailable:
        if tools.secure_mode or openings(item.spec, None):
            raise
        return None  # only the resource type is left to check: no reason to wait


def _broken(item: Item, defaults: QueueDefaults | None, tools: Tools) -> ItemError | None:
    spec = item.spec
    if defaults is not None and not is_for(spec.resource, defaults):
        msg = (
            f"the item wants the resource {spec.resource}, but its queue {item.queue.name} is of "
            f"the type {defaults.resource}. Push it to a queue of its type, or leave the "
            "resource out."
        )
        return ItemError(msg, reason=Reason.FORBIDDEN)
    if tools.secure_mode:
        refused = refusals(spec, defaults)
        why = "this agent is in secure_mode, in which only the queue's config may set"
    else:
        refused = openings(spec, defaults)
        why = "it could open the cluster to the job, so that only the queue's config may set"
    if not refused:
        return None
    keys = ", ".join(f"`{key}`" for key in refused)
    msg = f"{why} {keys}. Leave it out of the item, or ask the queue's admin to set it."
    if defaults is None:
        msg += " The service does not show this agent what the queue's config is."
    return ItemError(msg, reason=Reason.FORBIDDEN)
