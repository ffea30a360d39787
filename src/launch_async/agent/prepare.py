"""Prepare: from a claimed item to a complete launch order; finds or makes what can be started."""

from typing import Any

from launch_async.agent.insist import asking_backend, insist
from launch_async.agent.origin import origin_of
from launch_async.agent.rules import check_rules
from launch_async.agent.table import Tracked
from launch_async.agent.tools import Target, Tools
from launch_async.domain.environment import macro_table, run_environment, run_secrets
from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.domain.item import Item
from launch_async.domain.job import ImageSource, Job
from launch_async.domain.macros import fill_macros
from launch_async.domain.policy import KUBERNETES
from launch_async.ports.build import BuildOrder
from launch_async.ports.runner import ImageWork, LaunchOrder, Rehearsing, Work

UNBUILT = "image.invalid/not-built-yet"
"""Stands for an image in a rehearsal; no registry can have this name."""


async def prepare(tracked: Tracked, tools: Tools) -> LaunchOrder:
    """Resolve the job, build what it needs (bounded over all items), and put the order together.

    Raises:
        ItemError: the job is missing or broken, cannot be built, its target is not served here, or
            its user asked for a stop meanwhile.
        Unavailable: a service that it needs did not answer for long.
    """

    async def patiently() -> LaunchOrder:
        return await insist(
            lambda: _prepare(tracked, tools),
            doing="preparing",
            tracked=tracked,
            tools=tools,
            within_seconds=tools.patience_seconds,
        )

    order = await tracked.stop.unless_set(patiently)
    if order is None:
        raise stopped_early(tracked)
    return order


async def _prepare(tracked: Tracked, tools: Tools) -> LaunchOrder:
    item = tracked.item
    target = target_of(item, tools)
    tracked.detail = "checking what the item may do"
    await check_rules(item, tools)
    tracked.detail = "resolving the job"
    job = await _resolve(item, tools)
    entrypoint = item.spec.overrides.entry_point or job.entrypoint
    if isinstance(target.runner, Rehearsing) and not isinstance(job.source, ImageSource):
        tracked.detail = "asking whether the target would take it"
        unbuilt = ImageWork(image=UNBUILT, entrypoint=entrypoint)
        with asking_backend(tracked, tools):
            warnings = await target.runner.rehearse(_order(item, unbuilt, tools))
        for warning in warnings:
            tools.warnings.add(tracked, warning)
    if item.spec.additional_services and item.spec.resource != KUBERNETES:
        tools.warnings.add(tracked, "additional services run on Kubernetes only: there are none")
    work = await target.builder.build(
        BuildOrder(item=item, job=job, entrypoint=entrypoint, progress=tracked)
    )
    return _order(item, work, tools)


def _order(item: Item, work: Work, tools: Tools) -> LaunchOrder:
    image = work.image if isinstance(work, ImageWork) else None
    macros = {**tools.macros, **macro_table(item, image=image)}
    return LaunchOrder(
        origin=origin_of(item, tools),
        work=work,
        args=item.spec.overrides.args,
        environment=run_environment(item, base_url=tools.base_url, image=image),
        secrets=run_secrets(item, agent_key=tools.api_key),
        resource_args=fill_macros(_for_runner(item), macros),
        entrypoint_asked=bool(item.spec.overrides.entry_point),
        services=tuple(fill_macros(one, macros) for one in item.spec.additional_services),
    )


def stopped_early(tracked: Tracked) -> ItemError:
    """The end of an item that was stopped before anything ran."""
    said = f"{stopped_by(tracked)} before it was launched"
    return ItemError(said, reason=Reason.STOPPED, stage=Stage.RUN)


def stopped_by(tracked: Tracked) -> str:
    """Who stopped the item, in words for its user."""
    return "cancelled by the agent's operator" if tracked.entry.cancelled else "stopped on request"


def target_of(item: Item, tools: Tools) -> Target:
    """The target that the item's resource names.

    Raises:
        ItemError: this agent does not serve it.
    """
    target = tools.targets.get(item.spec.resource)
    if target is None:
        served = ", ".join(sorted(tools.targets))
        msg = (
            f"this agent cannot run the resource {item.spec.resource!r}; it serves {served}. "
            "Push to a queue of one of these types."
        )
        raise ItemError(msg, reason=Reason.TARGET_UNSUPPORTED)
    return target


def _for_runner(item: Item) -> dict[str, Any]:
    """The resource config without W&B's `builder` block, which is for whoever builds."""
    return {key: value for key, value in item.spec.resource_args.items() if key != "builder"}


async def _resolve(item: Item, tools: Tools) -> Job:
    if item.spec.image is not None:
        return Job(source=ImageSource(image=item.spec.image))
    if item.spec.job is None:
        msg = "the item names neither a job nor an image"
        raise ItemError(msg, reason=Reason.SPEC_INVALID)
    return await tools.jobs.job(item.spec.job)
