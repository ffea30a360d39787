"""What environment and flags override in a file, as for W&B's agent, and where a value is from."""

from pathlib import Path

import pytest

from launch_async.config.load import parse_config
from launch_async.config.model import LaunchConfig, QueueConfig
from launch_async.config.sources import (
    Flags,
    Settled,
    http_timeout_seconds,
    read_settings,
    settle,
)
from launch_async.domain.errors import ConfigError

FILE = b"""\
queues:
  - a
  - {name: b, max_jobs: 2}
entity: me
max_jobs: 3
agent:
  poll: 1
"""


def settled(
    environ: dict[str, str] | None = None, flags: Flags | None = None, file: bytes = FILE
) -> Settled:
    return settle(parse_config(file, name="f"), environ or {}, flags or Flags())


def test_the_environment_comes_before_the_file():
    environ = {
        "WANDB_ENTITY": "team",
        "WANDB_LAUNCH_MAX_JOBS": "-1",
        "WANDB_LAUNCH_START_TIMEOUT": "-5",
    }
    made = settled(environ)
    config = made.config
    assert (config.entity, config.max_jobs, config.agent.start_timeout) == ("team", -1, 0)
    assert made.origin("entity") == "WANDB_ENTITY"
    assert made.origin("max_jobs") == "WANDB_LAUNCH_MAX_JOBS"
    assert made.origin("agent.start_timeout") == "WANDB_LAUNCH_START_TIMEOUT"


def test_flags_come_before_the_environment():
    environ = {"WANDB_ENTITY": "team", "WANDB_LAUNCH_MAX_JOBS": "5"}
    made = settled(environ, Flags(entity="flagged", max_jobs=7, verbosity=1))
    assert (made.config.entity, made.config.max_jobs, made.config.verbosity) == ("flagged", 7, 1)
    assert [made.origin(key) for key in ("entity", "max_jobs", "verbosity")] == ["-e", "-j", "-v"]


def test_the_queues_of_the_command_line_replace_the_files_with_their_settings():
    made = settled(flags=Flags(queues=("b",)))
    assert made.config.queue_configs() == (QueueConfig(name="b"),)
    assert made.origin("queues[0].max_jobs", "queues") == "-q"


def test_a_value_is_traced_to_its_place_in_the_file_or_to_the_default():
    made = settled()
    assert made.origin("max_jobs") == "f:5:1"
    assert made.origin("queues[1].max_jobs") == "f:3:15"
    assert made.origin("agent.poll") == "f:7:3"
    assert made.origin("agent.grace") == "default"


def test_the_old_key_for_one_queue_has_its_place_too():
    made = settled(file=b"max_jobs: 1\nqueue: gpu\n")
    assert made.origin("queues[0]") == "f:2:1"


@pytest.mark.parametrize("value", ["inf", "nan", "2.7", "many", "-2"])
def test_a_limit_that_is_no_whole_number_is_named(value: str):
    with pytest.raises(ConfigError, match="WANDB_LAUNCH_MAX_JOBS"):
        settled({"WANDB_LAUNCH_MAX_JOBS": value})


def test_an_endless_start_timeout_is_a_long_one():
    made = settled({"WANDB_LAUNCH_START_TIMEOUT": "9" * 400})
    assert made.config.agent.start_timeout == 31_536_000


def test_a_file_that_is_named_and_missing_is_an_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot be read"):
        read_settings(tmp_path / "no.yaml", {}, Flags())


def test_settings_without_effect_are_known():
    config = LaunchConfig(builder={"type": "kaniko"}, environment={"type": "aws"})
    assert config.unused() == ("environment",)
    assert not LaunchConfig(builder={"type": "docker"}, registry={"uri": "h/r"}).unused()


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "3601"])
def test_a_timeout_of_requests_that_is_none_is_named(value: str):
    with pytest.raises(ConfigError, match="WANDB_HTTP_TIMEOUT is"):
        http_timeout_seconds({"WANDB_HTTP_TIMEOUT": value})


def test_the_timeout_of_requests_is_read():
    assert http_timeout_seconds({"WANDB_HTTP_TIMEOUT": "2.5"}) == 2.5
    assert http_timeout_seconds({}) is None
