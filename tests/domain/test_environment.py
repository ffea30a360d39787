"""The environment of a run has W&B's names, and nothing secret in the open."""

import json
import subprocess
from typing import Any

import msgspec
import pytest

from launch_async.domain.environment import (
    MAX_TOTAL_BYTES,
    macro_table,
    run_environment,
    run_secrets,
    with_asked,
)
from launch_async.domain.errors import ItemError
from launch_async.domain.ids import ItemId, QueueRef, RunId
from launch_async.domain.item import Item
from launch_async.domain.macros import fill_macros
from launch_async.domain.secret import Secret
from launch_async.domain.spec import Overrides, RunSpec

SPEC = RunSpec(
    entity="team",
    project="Target",
    job="team/jobs/train:latest",
    overrides=Overrides(run_config={"lr": 0.5}, files={"c.yaml": {"a": 1}}),
    name="my run",
    author="ann",
)
ITEM = Item(
    id=ItemId("item-1"),
    queue=QueueRef("team", "model-registry", "gpu"),
    run_id=RunId("abc12345"),
    spec=SPEC,
    popped_at=0.0,
)
AGENT_KEY = Secret("a" * 40)


def test_every_variable_of_a_plain_job():
    assert run_environment(ITEM, base_url="http://h:1") == {
        "WANDB_BASE_URL": "http://h:1",
        "WANDB_ENTITY": "team",
        "WANDB_PROJECT": "Target",
        "WANDB_LAUNCH": "True",
        "WANDB_RUN_ID": "abc12345",
        "WANDB_NAME": "my run",
        "WANDB_USERNAME": "ann",
        "WANDB_LAUNCH_QUEUE_NAME": "gpu",
        "WANDB_LAUNCH_QUEUE_ENTITY": "team",
        "WANDB_LAUNCH_TRACE_ID": "item-1",
        "WANDB_CONFIG": '{"lr": 0.5}',
        "WANDB_LAUNCH_FILE_OVERRIDES": '{"c.yaml": {"a": 1}}',
        "WANDB_ARTIFACTS": '{"_wandb_job": "team/jobs/train:latest"}',
    }


def test_image_sweep_and_resume_have_their_variables():
    spec = msgspec.structs.replace(SPEC, sweep_id="sw", resume_count=2)
    item = msgspec.structs.replace(ITEM, spec=spec)
    environment = run_environment(item, base_url="http://h", image="img:1")
    assert environment["WANDB_DOCKER"] == "img:1"
    assert environment["WANDB_SWEEP_ID"] == "sw"
    assert environment["WANDB_RESUME"] == "allow"


def test_a_long_config_is_split_and_comes_together_again():
    spec = msgspec.structs.replace(SPEC, overrides=Overrides(run_config={"x": "y" * 100}))
    item = msgspec.structs.replace(ITEM, spec=spec)
    environment = run_environment(item, base_url="http://h", max_value_length=30)
    assert "WANDB_CONFIG" not in environment
    parts = [environment[f"WANDB_CONFIG_{index}"] for index in range(4)]
    assert all(len(part) <= 30 for part in parts)
    assert json.loads("".join(parts)) == {"x": "y" * 100}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a\0b"}, "WANDB_NAME has a NUL"),
        ({"overrides": Overrides(artifacts={"x": "y" * (128 << 10)})}, "WANDB_ARTIFACTS of the"),
        ({"overrides": Overrides(run_config={"x": "y" * 1_600_000})}, "an environment of 16"),
    ],
)
def test_what_no_process_could_be_started_with_is_refused_in_clear_words(
    changes: dict[str, Any], said: str
):
    item = msgspec.structs.replace(ITEM, spec=msgspec.structs.replace(SPEC, **changes))
    with pytest.raises(ItemError, match=said):
        run_environment(item, base_url="http://h")


def test_the_largest_environment_starts_a_real_process():
    config = Overrides(run_config={"x": "y" * (MAX_TOTAL_BYTES - 5_000)})
    item = msgspec.structs.replace(ITEM, spec=msgspec.structs.replace(SPEC, overrides=config))
    environment = run_environment(item, base_url="http://h")
    assert subprocess.run(["/bin/true"], env=environment, check=False).returncode == 0


def test_a_key_made_for_the_run_replaces_the_agents_and_the_author():
    assert run_secrets(ITEM, agent_key=AGENT_KEY)["WANDB_API_KEY"] == AGENT_KEY
    spec = msgspec.structs.replace(SPEC, api_key=Secret("r" * 40))
    item = msgspec.structs.replace(ITEM, spec=spec)
    assert run_secrets(item, agent_key=AGENT_KEY)["WANDB_API_KEY"] == Secret("r" * 40)
    assert "WANDB_USERNAME" not in run_environment(item, base_url="http://h")


def test_macros_come_from_the_table_alone():
    config = {"a": ["${run_id}-${project_name}", 1], "${run_id}": "${HOME} ${image_uri}"}
    filled = fill_macros(config, macro_table(ITEM, image="img:1"))
    assert filled == {"a": ["abc12345-target", 1], "${run_id}": "${HOME} img:1"}


def test_a_resource_config_cannot_turn_a_run_into_another_but_may_name_another_way_to_the_service():
    launch = {"WANDB_BASE_URL": "http://127.0.0.1:1", "WANDB_RUN_ID": "mine"}
    asked = {"WANDB_BASE_URL": "http://gateway:1", "WANDB_RUN_ID": "other", "A": "1"}
    assert with_asked(launch, asked) == asked | {"WANDB_RUN_ID": "mine"}
