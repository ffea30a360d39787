"""Keys and tokens of admins, from a file or a variable."""

from pathlib import Path

import pytest

from launch_async.config.admin import find_admin_key, find_agent_token
from launch_async.domain.errors import ConfigError

KEY = "k" * 40


def test_a_file_comes_before_the_variable(tmp_path: Path):
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    environ = {"LAUNCH_ASYNC_ADMIN_KEY": "v" * 40}
    found, from_variable = find_admin_key(path, environ), find_admin_key(None, environ)
    assert found is not None
    assert from_variable is not None
    assert (found.reveal(), from_variable.reveal()) == (KEY, "v" * 40)
    assert find_agent_token(None, environ) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"short", "is not one: it takes 40 or more"),
        (b"\xff\xfe" + b"k" * 40, "holds no text"),
        (b"k" * 5000, "is longer than any key"),
    ],
)
def test_a_file_that_holds_no_key_is_named(content: bytes, said: str, tmp_path: Path):
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        find_admin_key(path, {})
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_without_end_is_no_key():
    with pytest.raises(ConfigError, match="is longer than any key"):
        find_admin_key(Path("/dev/zero"), {})


@pytest.mark.parametrize("path", ["a\0b", "~nobody-of-that-name/key"])
def test_a_path_that_is_none_is_one_line(path: str):
    with pytest.raises(ConfigError, match="the admin token file"):
        find_agent_token(Path(path), {})
