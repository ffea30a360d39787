"""What is wrong with the words of a start is said before anything is started or made."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from launch_async.cli.main import main

PROGRAM = str(Path(sys.executable).with_name("launch-async"))
AN_ADDRESS = "must look like 127.0.0.1:8484 or [::1]:8484"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("up", "--admin", "here"), f"--admin is 'here'; it {AN_ADDRESS}"),
        (("up", "--run", ".", "--entry-point", '"'), "cannot be split into words"),
        (("up", "--run", ".", "--entry-point", " "), "--entry-point is empty"),
        (("up", "--run-image", ""), "--run-image is empty"),
        (("up", "--run", ".", "--run-image", "x"), "not both"),
        (("up", "--run", ".", "--set", "x"), "must look like KEY=VALUE"),
        (("up", "--set", "x=1"), "--set needs --run or --run-image"),
        (("up", "--keep"), "--keep needs --run or --run-image"),
        (("up", "--entry-point", "x"), "--entry-point needs --run"),
        (("up", "--run-image", "x", "--entry-point", "y"), "--entry-point needs --run"),
        (("up", "--data", ""), "it is empty; give a folder"),
        (("server", "--data", ""), "it is empty; give a folder"),
        (("server", "--listen", "127.0.0.1:²"), AN_ADDRESS),
        (("server", "--public-url", "launch.example.com"), "--public-url must look like"),
        (("server", "--public-url", "https://u:secret@h"), "--public-url must look like"),
    ],
)
def test_a_wrong_word_is_exit_code_2_and_leaves_nothing_behind(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "secret" not in done.output
    assert list(tmp_path.iterdir()) == []


def short(path: Path) -> None:
    path.write_text("sesame")


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")


@pytest.mark.parametrize("spoil", [short, no_text, Path.mkdir])
def test_a_kept_key_that_is_none_is_one_line_and_exit_code_2(
    spoil: Callable[[Path], None], tmp_path: Path
):
    spoil(tmp_path / "api-key")
    done = subprocess.run(
        [PROGRAM, "server", "--listen", "127.0.0.1:0", "--data", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={key: value for key, value in os.environ.items() if "LAUNCH_ASYNC" not in key},
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "api-key does not hold the key of the user local; restore it, or delete it" in line
