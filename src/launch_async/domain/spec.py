"""What an item asks for: the run spec, parsed. Field names are ours; `wire/` knows W&B's."""

from typing import Any

import msgspec

from launch_async.domain.ids import RunId
from launch_async.domain.secret import Secret


class Overrides(msgspec.Struct, frozen=True):
    """What the item changes in its job."""

    args: tuple[str, ...] = ()
    run_config: dict[str, Any] = {}
    entry_point: tuple[str, ...] = ()
    files: dict[str, Any] = {}
    artifacts: dict[str, Any] = {}
    dockerfile: str | None = None
    working_dir: str | None = None


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One item's request. Exactly one of `job` and `image` is set; `wire.codec` sees to it."""

    entity: str
    project: str
    job: str | None = None
    """Artifact reference `entity/project/name:alias` of a job."""
    image: str | None = None
    """Image reference, when the item names an image instead of a job."""
    resource: str = "local-container"
    resource_args: dict[str, Any] = {}
    """Resource config for `resource`, already merged by the server."""
    overrides: Overrides = Overrides()
    name: str | None = None
    run_id: RunId | None = None
    author: str | None = None
    sweep_id: str | None = None
    additional_services: tuple[dict[str, Any], ...] = ()
    """What is to run beside the run on Kubernetes: manifests of any kind."""
    scheduler: bool = False
    """Whether it is a sweep's scheduler: it launches items itself and has a limit of its own."""
    resume_count: int = 0
    api_key: Secret[str] | None = None
    """A key made for this run alone; it replaces the agent's own in the run's environment."""
