"""What the environment overrides in a configuration, as for W&B's agent."""

import pytest

from launch_async.compose.agent import with_environment
from launch_async.config.model import LaunchConfig
from launch_async.domain.errors import ConfigError


def test_the_environment_comes_before_the_file():
    environ = {
        "WANDB_ENTITY": "team",
        "WANDB_LAUNCH_MAX_JOBS": "-1",
        "WANDB_LAUNCH_START_TIMEOUT": "-5",
    }
    config = with_environment(LaunchConfig(entity="me", max_jobs=3), environ)
    assert (config.entity, config.max_jobs, config.agent.start_timeout) == ("team", -1, 0)


@pytest.mark.parametrize("value", ["inf", "nan", "2.7", "many", "-2"])
def test_a_limit_that_is_no_whole_number_is_named(value: str):
    with pytest.raises(ConfigError, match=r"max_jobs|WANDB_LAUNCH_MAX_JOBS"):
        with_environment(LaunchConfig(), {"WANDB_LAUNCH_MAX_JOBS": value})


def test_settings_without_effect_are_known():
    config = LaunchConfig(builder={"type": "docker"}, max_schedulers=2)
    assert config.unused() == ("max_schedulers", "builder")
