"""Address and key come from the places where the wandb client looks."""

from pathlib import Path

import pytest

from launch_async.config.login import find_login
from launch_async.domain.errors import ConfigError

KEY = "k" * 40


def test_the_environment_comes_first(tmp_path: Path):
    (tmp_path / ".netrc").write_text("machine h:1\n  login user\n  password " + "n" * 40 + "\n")
    environ = {"WANDB_BASE_URL": "http://h:1/", "WANDB_API_KEY": KEY}
    login = find_login(environ, home=tmp_path, working_dir=tmp_path)
    assert (login.base_url, login.api_key.reveal()) == ("http://h:1", KEY)


def test_settings_and_netrc_as_wandb_login_writes_them(tmp_path: Path):
    settings = tmp_path / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nbase_url = http://h:1\n")
    (tmp_path / ".netrc").write_text(f"machine h:1\n  login user\n  password {KEY}\n")
    login = find_login({}, home=tmp_path, working_dir=tmp_path)
    assert (login.base_url, login.api_key.reveal()) == ("http://h:1", KEY)


def test_a_key_is_never_shown(tmp_path: Path):
    login = find_login({"WANDB_API_KEY": KEY}, home=tmp_path, working_dir=tmp_path)
    assert KEY not in f"{login!r} {login} {login.api_key}"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "no API key for https://api.wandb.ai: set WANDB_API_KEY"),
        ({"WANDB_API_KEY": "short"}, "keys have 40 or more characters"),
        ({"WANDB_BASE_URL": "localhost:8080"}, "must look like http://HOST:PORT"),
    ],
)
def test_what_is_missing_is_named(environ: dict[str, str], said: str, tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        find_login(environ, home=tmp_path, working_dir=tmp_path)
    assert said in str(caught.value)
