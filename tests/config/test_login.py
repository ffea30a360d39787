"""Address and key come from the places where the wandb client looks."""

from pathlib import Path

import pytest

from launch_async.config.login import find_base_url, find_login
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


def test_the_newline_of_a_file_is_no_part_of_its_key(tmp_path: Path):
    login = find_login({"WANDB_API_KEY": f"{KEY}\n"}, home=tmp_path, working_dir=tmp_path)
    assert login.api_key.reveal() == KEY


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


@pytest.mark.parametrize(
    "url",
    [
        *("http://h:99999", "http://h:abc", "http://h:0", "http://user:pw@h", "http://[::1"),
        *("http://h h", " http://h", "http://h?x=1", "http://", "ftp://h", "h:8080", "http://h\n"),
    ],
)
def test_an_address_that_is_none_is_refused_without_showing_it(url: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="must look like http://HOST:PORT") as caught:
        find_base_url({"WANDB_BASE_URL": url}, home=tmp_path, working_dir=tmp_path)
    assert "pw" not in str(caught.value)


def test_a_key_with_odd_letters_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="is not one"):
        find_login({"WANDB_API_KEY": "é" * 40}, home=tmp_path, working_dir=tmp_path)


def test_settings_that_are_no_text_are_named(tmp_path: Path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_bytes(b"\xff\xfe[default]\n")
    with pytest.raises(ConfigError, match="wandb/settings"):
        find_base_url({}, home=tmp_path, working_dir=tmp_path)
    (tmp_path / "wandb" / "settings").unlink()
    (tmp_path / ".netrc").write_bytes(b"\xff\xfe machine")
    with pytest.raises(ConfigError, match=r"\.netrc cannot be read"):
        find_login({}, home=tmp_path, working_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        (".netrc", f"machine h login u password p\n {KEY} x\n", 2),
        ("wandb/settings", f"api_key = {KEY}\n[default]\n", 1),
        ("wandb/settings", f"[default]\nbase_url = x\n{KEY}\n", 3),
        ("wandb/settings", f"[default]\n{KEY} = x\n{KEY} = x\n", 3),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line_and_not_with_what_is_in_it(
    name: str, content: str, line: int, tmp_path: Path
):
    (tmp_path / "wandb").mkdir()
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError) as caught:
        find_login({}, home=tmp_path, working_dir=tmp_path)
    assert f"{tmp_path / name}:{line} cannot be read" in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("variable", ["NETRC", "WANDB_CONFIG_DIR"])
def test_a_home_folder_that_is_not_there_is_one_line(variable: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=f"{variable} begins with ~nobody-of-that-name"):
        find_login({variable: "~nobody-of-that-name/x"}, home=tmp_path, working_dir=tmp_path)
