"""The environment that each run gets: W&B's variables with their names and limits.

[source: launch-features.md §1.11; the names are read by `wandb.init`]
"""

import json
from collections.abc import Mapping
from typing import Any

from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.item import Item
from launch_async.domain.secret import Secret

BASE_URL = "WANDB_BASE_URL"
MAX_VALUE_LENGTH = 32670
"""Longest value of one variable before it is split into `NAME_0`, `NAME_1`, …"""
MAX_VARIABLE_BYTES = 128 << 10
"""Linux's MAX_ARG_STRLEN: name, `=`, value and the NUL behind it."""
MAX_TOTAL_BYTES = 1_500_000
"""Of Linux's usual 2 MiB for arguments and variables; the rest is the resource config's `env`."""


def run_environment(
    item: Item,
    *,
    base_url: str,
    image: str | None = None,
    max_value_length: int = MAX_VALUE_LENGTH,
) -> dict[str, str]:
    """Variables of one run, without its key.

    `image` is set for image jobs; a project's name is kept as it was typed.

    Raises:
        ItemError: no process could be started with so much, or with such a value.
    """
    spec = item.spec
    environment = {
        BASE_URL: base_url,
        "WANDB_ENTITY": spec.entity,
        "WANDB_PROJECT": spec.project,
        "WANDB_LAUNCH": "True",
        "WANDB_RUN_ID": item.run_id,
        "WANDB_LAUNCH_QUEUE_NAME": item.queue.name,
        "WANDB_LAUNCH_QUEUE_ENTITY": item.queue.entity,
        "WANDB_LAUNCH_TRACE_ID": item.id,
    }
    optional = {
        "WANDB_DOCKER": image,
        "WANDB_NAME": spec.name,
        "WANDB_USERNAME": spec.author if spec.api_key is None else None,
        "WANDB_SWEEP_ID": spec.sweep_id,
        "WANDB_RESUME": "allow" if spec.resume_count else None,
    }
    environment.update({name: value for name, value in optional.items() if value})
    environment.update(_sharded("WANDB_CONFIG", spec.overrides.run_config, max_value_length))
    environment.update(
        _sharded("WANDB_LAUNCH_FILE_OVERRIDES", spec.overrides.files, max_value_length)
    )
    artifacts: dict[str, Any] = dict(spec.overrides.artifacts)
    if spec.job is not None:
        artifacts["_wandb_job"] = spec.job
    environment["WANDB_ARTIFACTS"] = json.dumps(artifacts)
    _check_room(environment)
    return environment


def with_asked(launch: Mapping[str, str], asked: Mapping[str, str]) -> dict[str, str]:
    """The launch's variables with those that a resource config asks for in its `env`.

    What the launch says of its run wins, or the run would be lost from sight; only the service's
    address may be another one, for jobs that reach it by another way than the agent.
    """
    fixed = {name: value for name, value in launch.items() if name != BASE_URL}
    return {**launch, **asked, **fixed}


def run_secrets(item: Item, *, agent_key: Secret[str]) -> dict[str, Secret[str]]:
    """Secret variables of one run: the item's own key, else the agent's."""
    return {"WANDB_API_KEY": item.spec.api_key or agent_key}


def macro_table(item: Item, *, image: str | None) -> dict[str, str]:
    """The macros that a resource config may use (launch-features.md §1.11)."""
    spec = item.spec
    return {
        "project_name": spec.project.lower(),
        "entity_name": spec.entity,
        "run_id": item.run_id,
        "run_name": spec.name or "",
        "image_uri": image or "",
        "author": spec.author or "",
    }


def _check_room(environment: Mapping[str, str]) -> None:
    """Linux starts no program with more, and says so to the job's user in no clear words."""
    total = 0
    for name, value in environment.items():
        if "\0" in value:
            msg = f"the item's {name} has a NUL character, which no variable can hold"
            raise ItemError(msg, reason=Reason.SPEC_INVALID)
        size = len(name) + len(value.encode(errors="surrogatepass")) + 2
        total += size
        if size > MAX_VARIABLE_BYTES:
            msg = (
                f"{name} of the item has {size} bytes; a variable holds {MAX_VARIABLE_BYTES}. "
                "Put large parts into an artifact."
            )
            raise ItemError(msg, reason=Reason.SPEC_INVALID)
    if total > MAX_TOTAL_BYTES:
        msg = (
            f"the item's config and overrides make an environment of {total} bytes; "
            f"{MAX_TOTAL_BYTES} are the most. Put large parts into an artifact."
        )
        raise ItemError(msg, reason=Reason.SPEC_INVALID)


def _sharded(name: str, value: dict[str, Any], limit: int) -> dict[str, str]:
    text = json.dumps(value)
    if len(text) <= limit:
        return {name: text}
    parts = [text[start : start + limit] for start in range(0, len(text), limit)]
    return {f"{name}_{index}": part for index, part in enumerate(parts)}
