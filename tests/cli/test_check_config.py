"""`launch-async agent --check-config`: what it prints, its exit codes, and that it asks nobody."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from launch_async.cli.main import main
from launch_async.config.model import LaunchConfig

KEY = "k" * 40
FILE = """\
queues:
  - a
  - {name: b, max_jobs: 2, weight: 3, start_timeout: 60}
max_jobs: 8
agent:
  state_dir: /var/lib/agent
  run_timeout: 3600
  targets: {local-process: {max_jobs: 4}}
"""


@pytest.fixture
def service() -> Iterator[socket.socket]:
    """A port that hears whoever asks."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def environ(service: socket.socket, tmp_path: Path) -> dict[str, str | None]:
    port = service.getsockname()[1]
    return {
        "WANDB_BASE_URL": f"http://127.0.0.1:{port}",
        "WANDB_API_KEY": KEY,
        "HOME": str(tmp_path),
        "WANDB_ENTITY": None,
        "WANDB_LAUNCH_MAX_JOBS": None,
        "WANDB_LAUNCH_START_TIMEOUT": None,
        "WANDB_CONFIG_DIR": None,
        "NETRC": None,
    }


def check(environ: dict[str, str | None], tmp_path: Path, text: str, *words: str) -> Result:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    words = ("agent", "--check-config", "-c", str(path), *words)
    return CliRunner().invoke(main, words, env=environ)


def rows(result: Result) -> dict[str, list[str]]:
    """Words of each line by its first word; of equal ones the last."""
    lines = [line.split() for line in result.output.splitlines() if line]
    return {line[0]: line[1:] for line in lines}


def test_limits_are_shown_with_where_they_are_from(environ: dict[str, str | None], tmp_path: Path):
    result = check(environ | {"WANDB_LAUNCH_MAX_JOBS": "9"}, tmp_path, FILE, "-e", "team")
    assert result.exit_code == 0, result.output
    path = tmp_path / "c.yaml"
    shown = rows(result)
    assert shown["entity"] == ["team", "-e"]
    assert shown["agent.waiting"] == ["8", "default"]
    assert shown["agent.targets.local-process.max_jobs"] == ["4", f"{path}:8:29"]
    lines = words_of(result.output)
    assert ["max_jobs", "9", "WANDB_LAUNCH_MAX_JOBS"] in lines
    assert ["max_jobs", "2", f"{path}:3:15"] in lines
    assert ["max_jobs", "no", "limit", "default"] in lines


def test_a_queue_without_a_timeout_of_its_own_has_the_agents(
    environ: dict[str, str | None], tmp_path: Path
):
    result = check(environ, tmp_path, FILE)
    of_a, of_b = result.output.split("queue a")[1].split("queue b")
    assert ["run_timeout", "3600", "s", f"{tmp_path / 'c.yaml'}:7:3"] in words_of(of_a)
    assert ["start_timeout", "1800", "s", "default"] in words_of(of_a)
    assert ["start_timeout", "60", "s", f"{tmp_path / 'c.yaml'}:3:39"] in words_of(of_b)


def words_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_traps_are_warnings_with_their_place_and_no_failure(
    environ: dict[str, str | None], tmp_path: Path
):
    result = check(environ, tmp_path, "queues: [a]\nmax_jobs: 1\nbuilder: {typ: x}\n")
    assert result.exit_code == 0
    path = tmp_path / "c.yaml"
    assert f"warning: {path}:2:1: max_jobs is 1" in result.output
    assert f"warning: {path}:3:11: `builder.typ` is not known" in result.output


def test_nobody_is_asked_and_the_key_is_not_shown(
    environ: dict[str, str | None], tmp_path: Path, service: socket.socket
):
    result = check(environ, tmp_path, FILE)
    assert result.exit_code == 0
    assert KEY not in result.output
    with pytest.raises(BlockingIOError):
        service.accept()


def test_a_missing_key_is_a_warning(environ: dict[str, str | None], tmp_path: Path):
    result = check(environ | {"WANDB_API_KEY": None}, tmp_path, FILE)
    assert result.exit_code == 0
    assert "warning: login: the agent would not start here: no API key" in result.output


@pytest.mark.parametrize(
    ("text", "variable", "said"),
    [
        ("queues: [a]\nmax_job: 1\n", {}, "c.yaml:2:1: unknown key `max_job`; did you mean"),
        ("max_jobs: 2\n", {}, "no queue to poll"),
        ("queues: [a]\nagent: {admin: here}\n", {}, "agent.admin is 'here'; it must look like"),
        (
            "queues: [a]\nagent: {admin_token_file: /no}\n",
            {},
            "the admin token file /no cannot be read",
        ),
        ("queues: [a]\nagent: {admin: '[::1:80'}\n", {}, "agent.admin is '[::1:80'; it must look"),
        ("queues: [a]\nagent: {admin: 'h:²'}\n", {}, "agent.admin is 'h:²'; it must look like"),
        ("queues: [a]\nagent: {admin: 'a b:1'}\n", {}, "agent.admin is 'a b:1'; it must look"),
        ("queues: [a]\nagent: {state_dir: ''}\n", {}, "agent.state_dir is empty"),
        ("queues: [a]\nbuilder: {type: foo}\n", {}, "builder.type: Invalid enum value 'foo'"),
        ("queues: [a]\n", {"SSL_CERT_FILE": "/no"}, "/no is not a readable bundle"),
        ("queues: [a]\n", {"WANDB_HTTP_TIMEOUT": "x"}, "WANDB_HTTP_TIMEOUT is 'x'"),
        ("queues: [a]\n", {"WANDB_BASE_URL": "ftp://x"}, "must look like http://HOST"),
    ],
)
def test_what_would_stop_the_start_is_one_error_with_exit_2(
    environ: dict[str, str | None],
    tmp_path: Path,
    text: str,
    variable: dict[str, str | None],
    said: str,
):
    result = check(environ | variable, tmp_path, text)
    assert result.exit_code == 2
    assert said in result.output


def leaves(section: msgspec.Struct, path: str = "") -> Iterator[str]:
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if isinstance(value, msgspec.Struct):
            yield from leaves(value, f"{path}{name}.")
        elif not isinstance(value, dict):
            yield path + name


def test_every_setting_is_shown(environ: dict[str, str | None], tmp_path: Path):
    shown = rows(check(environ, tmp_path, FILE))
    assert set(leaves(LaunchConfig())) - {"queues"} <= shown.keys()
    assert shown["agent.item_retries"] == ["5", "default"]
    assert shown["agent.macros"] == ["none", "default"]
    assert shown["agent.grace"] == ["30", "s", "default"]


def test_the_builder_that_counts_is_shown_but_nothing_that_may_be_secret(
    environ: dict[str, str | None], tmp_path: Path
):
    text = """\
queues: [a]
environment: {type: aws, region: r, secret: hidden}
registry: {uri: here/images}
builder: {type: buildkit, build-args: {TOKEN: hidden}}
"""
    result = check(environ, tmp_path, text)
    assert result.exit_code == 0, result.output
    shown, path = rows(result), tmp_path / "c.yaml"
    assert shown["environment"] == ["given", f"{path}:2:1"]
    assert shown["builder.type"] == ["buildkit", f"{path}:4:11"]
    assert shown["builder.destination"][1] == f"{path}:3:12"
    assert shown["builder.build-args.TOKEN"] == ["given", f"{path}:4:40"]
    assert shown["builder.timeout"] == ["3600", "s", "default"]
    assert "hidden" not in result.output


@pytest.mark.parametrize("name", ["", "q" * 65])
def test_a_queue_of_the_command_line_has_a_name(
    environ: dict[str, str | None], tmp_path: Path, name: str
):
    result = check(environ, tmp_path, FILE, "-q", name)
    assert result.exit_code == 2
    assert "-q: a queue's name has 1 to 64 characters" in result.output
