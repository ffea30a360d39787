"""Every example of a configuration is one that an agent takes."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from launch_async.cli.main import main
from launch_async.config.load import load_config

FOLDER = Path(__file__).parents[2] / "configs"
EXAMPLES = sorted(FOLDER.iterdir())
ENVIRONMENT = {"WANDB_API_KEY": "k" * 40, "WANDB_BASE_URL": "http://127.0.0.1:1"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_loaded_without_a_warning(path: Path):
    loaded = load_config(path)
    assert loaded.config.queue_configs()
    assert loaded.warnings == ()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_agent_would_start_with_an_example(path: Path):
    done = CliRunner().invoke(main, ["agent", "--check-config", "-c", str(path)], env=ENVIRONMENT)
    assert done.exit_code == 0, done.output
