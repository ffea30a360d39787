"""The rules for a run spec at its push: pure, so that both push operations share them."""

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from launch_async.domain.merge import merge
from launch_async.server.errors import ApiError
from launch_async.server.template_variables import TemplateVariable, substitute

SCHEDULER_URI: Final = "placeholder-uri-scheduler"
API_KEY: Final = "_wandb_api_key"
RUN_ID: Final = "run_id"
RESUME_COUNT: Final = "_resume_count"
"""Agents let a run resume if this is not 0. W&B's counts preemptions with it, and gives up at 5."""

SWEEP_ID: Final = "sweep_id"
DEFAULT_RESOURCE: Final = "local-container"  # what W&B's agent assumes for a spec without one
DEFAULT_PRIORITY: Final = 2
PRIORITIES: Final = {0: "critical", 1: "high", 2: "medium", 3: "low"}
RESOURCES: Final = ("local-process", "local-container", "kubernetes", "sagemaker", "gcp-vertex")
ARGS_KEYS: Final = {"gcp-vertex": ("gcp-vertex", "vertex")}  # W&B's runner reads both


class QueueDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a queue gives to each of its items."""

    name: str
    resource: str | None
    """Resource type; None for a queue without a config, such as an automatic `default`."""
    resource_args: Mapping[str, Any]
    variables: Mapping[str, TemplateVariable]


class CompletedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A run spec as an agent will get it."""

    spec: dict[str, Any]
    own_resource_args: dict[str, Any]
    """What the item itself brought of its resource_args, by resource: the part that is not the
    queue's, filled in. An agent trusts the queue's part and checks this one."""


def read_object(text: str, what: str) -> dict[str, Any]:
    """Parse JSON that must be an object; the ApiError names it."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ApiError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ApiError(f"{what} must be a JSON object")
    return value


def check_resource(resource: Any, resource_types: Collection[str]) -> str:
    """Return a resource type that this server knows, or raise an ApiError."""
    if not isinstance(resource, str) or resource not in resource_types:
        raise ApiError(
            f"resource type {resource!r} is not one of {', '.join(resource_types)}; "
            "if a plug-in brings it, start the server with --extra-resource-type NAME"
        )
    return resource


def complete(
    spec: Mapping[str, Any],
    queue: QueueDefaults,
    *,
    author: str,
    template_values: Mapping[str, Any],
    resource_types: Collection[str],
) -> CompletedSpec:
    """Check a run spec and return it as an agent will get it.

    The queue's config lies under the item's own resource arguments, template variables are filled
    in, and the author is set when the spec names none.
    """
    _check_target(spec)
    _check_source(spec)
    scheduler = spec.get("uri") == SCHEDULER_URI
    resource = _resource(spec, queue, resource_types, scheduler=scheduler)
    own_args = _own_args(spec, queue, resource)
    below: Mapping[str, Any] = (
        {} if scheduler and resource != queue.resource else queue.resource_args
    )
    args = substitute(merge(below, own_args), queue.variables, template_values)
    args.setdefault(resource, {})
    return CompletedSpec(
        spec={
            **spec,
            "resource": resource,
            "resource_args": args,
            "author": spec.get("author") or author,
        },
        own_resource_args=substitute(own_args, queue.variables, template_values),
    )


def again(
    spec: Mapping[str, Any], *, run_id: str | None, resume_count: int | None = None
) -> dict[str, Any]:
    """Return the spec for one more try: of a new run, or of `run_id`, which is resumed then.

    A preempted run's `resume_count` is given. It leaves its sweep, as with W&B's agent: the sweep
    has counted it already.
    """
    fresh = {key: value for key, value in spec.items() if key not in {RUN_ID, RESUME_COUNT}}
    if run_id is None:
        return fresh
    if resume_count is None:
        return {**fresh, RUN_ID: run_id, RESUME_COUNT: spec.get(RESUME_COUNT) or 1}
    fresh.pop(SWEEP_ID, None)
    return {**fresh, RUN_ID: run_id, RESUME_COUNT: resume_count}


def check_priority(priority: int | None) -> int:
    """Return the priority in force, or raise an ApiError."""
    if priority is None:
        return DEFAULT_PRIORITY
    if priority not in PRIORITIES:
        names = ", ".join(f"{number} ({name})" for number, name in PRIORITIES.items())
        raise ApiError(f"priority {priority} is not one of {names}")
    return priority


def without_secrets(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec as people may see it."""
    return {key: value for key, value in spec.items() if key != API_KEY}


def _check_target(spec: Mapping[str, Any]) -> None:
    for key in ("entity", "project"):
        value = spec.get(key)
        if not isinstance(value, str) or not value:
            raise ApiError(f"the run spec has no {key}; say which {key} the run shall belong to")


def _check_source(spec: Mapping[str, Any]) -> None:
    docker = spec.get("docker")
    image = docker.get("docker_image") if isinstance(docker, Mapping) else None
    if spec.get("uri") == SCHEDULER_URI:
        return  # a sweep's scheduler names its job or image beside the placeholder
    named = {
        "job": spec.get("job"),
        "docker.docker_image": image,
        "image_uri": spec.get("image_uri"),
    }
    found = [key for key, value in named.items() if value]
    if len(found) == 1:
        return
    if found:
        raise ApiError(f"the run spec names {' and '.join(found)}; name exactly one of them")
    if spec.get("uri"):
        raise ApiError("the run spec has a uri; make a job of it first, with `wandb job create`")
    raise ApiError(f"the run spec has nothing to run; name exactly one of {', '.join(named)}")


def _resource(
    spec: Mapping[str, Any],
    queue: QueueDefaults,
    resource_types: Collection[str],
    *,
    scheduler: bool,
) -> str:
    given = spec.get("resource")
    if given is None or given == "":
        return queue.resource or DEFAULT_RESOURCE
    resource = check_resource(given, resource_types)
    if queue.resource is not None and resource != queue.resource and not scheduler:
        raise ApiError(
            f"the run spec asks for resource {resource!r}, but queue {queue.name!r} runs "
            f"{queue.resource!r}; leave the resource out, or push to another queue"
        )
    return resource


def _own_args(spec: Mapping[str, Any], queue: QueueDefaults, resource: str) -> dict[str, Any]:
    given = spec.get("resource_args")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ApiError("resource_args must be an object with the resource's name as its key")
    known = ARGS_KEYS.get(resource, (resource,))
    for key, value in given.items():
        if key not in known:
            raise ApiError(
                f"resource_args has {key!r}, but queue {queue.name!r} runs {resource!r}; "
                f'write {{"{resource}": {{...}}}}'
            )
        if not isinstance(value, dict):
            raise ApiError(f"resource_args.{key} must be an object")
    return given
