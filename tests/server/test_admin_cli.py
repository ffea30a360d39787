"""`launch-async admin`: what the admin API does, in words, with exit codes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner, Result
from server_harness import LiveServer, Template, running_server

from launch_async.cli.main import main
from launch_async.domain.secret import Secret
from launch_async.sdk.admin import AdminClient

ADMIN_KEY = "admin-key-" + "a" * 40
BIN = Path(sys.executable).parent


class Words:
    """Runs `launch-async admin` with these words."""

    def __init__(self, url: str) -> None:
        self.environment = {"LAUNCH_ASYNC_URL": url, "LAUNCH_ASYNC_ADMIN_KEY": ADMIN_KEY}

    def __call__(
        self, *words: str, code: int = 0, given: str | None = None, **environment: str | None
    ) -> Result:
        env = self.environment | environment
        done = CliRunner(env=env).invoke(main, ["admin", *words], input=given)
        assert done.exit_code == code, done.output
        if code:
            assert re.fullmatch(r"launch-async: .+\n", done.stderr), done.stderr
        return done


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("managed") / "server"
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            running_server(folder, template, admin_key=Secret(ADMIN_KEY))
        ) as running,
    ):
        yield LiveServer(running, portal)


@pytest.fixture
def admin(managed: LiveServer) -> Words:
    return Words(managed.server.url)


def test_a_new_users_key_goes_alone_to_stdout(admin: Words, managed: LiveServer) -> None:
    done = admin("user", "create", "ann", "--email", "ann@example.com")
    assert re.fullmatch(r"[0-9a-f]{40}\n", done.stdout)
    assert "user 'ann' made" in done.stderr
    rows = managed.rows("select email from users where username = 'ann'")
    assert rows == [("ann@example.com",)]


def test_a_users_own_key_comes_by_stdin_and_is_not_shown(admin: Words) -> None:
    done = admin("user", "create", "bea", "--key-stdin", given="b" * 40 + "\n")
    assert done.stdout == ""
    assert "b" * 40 not in done.output
    assert json.loads(admin("key", "list", "bea", "--json").stdout)[0]["hint"] == "bbbb"


def test_users_keys_and_teams_are_managed_in_words(admin: Words) -> None:
    for name in ("cat", "dan", "ci"):
        admin("user", "create", name, *(["--service"] if name == "ci" else []))
    admin("team", "create", "red", "--member", "cat:admin", "--member", "dan")
    admin("team", "add", "red", "ci", "--role", "viewer")
    admin("team", "remove", "red", "dan")
    members = json.loads(admin("team", "list", "red", "--json").stdout)
    assert members == [{"username": "cat", "role": "admin"}, {"username": "ci", "role": "viewer"}]
    made = json.loads(admin("key", "create", "cat", "--json").stdout)
    admin("key", "revoke", "cat", str(made["id"]))
    assert len(json.loads(admin("key", "list", "cat", "--json").stdout)) == 1
    admin("team", "delete", "red")
    admin("user", "delete", "dan")
    listed = admin("user", "list").stdout
    assert "dan" not in listed
    assert re.search(r"^ci +yes ", listed, re.MULTILINE), listed
    trail = json.loads(admin("audit", "--json").stdout)
    assert [entry["action"] for entry in trail[:2]] == ["user.delete", "team.delete"]
    assert "team.set_member" in admin("audit", "--limit", "20").stdout


async def names_of_teams(url: str, *, size: int) -> list[str]:
    async with AdminClient.open(base_url=url, admin_key=Secret(ADMIN_KEY)) as client:
        return [team["name"] async for team in client.pages("teams", "teams", size=size)]


def test_a_list_goes_on_past_a_page(admin: Words, managed: LiveServer) -> None:
    made = [f"page{number}" for number in range(5)]
    for name in made:
        admin("team", "create", name)
    found = managed.call(partial(names_of_teams, managed.server.url, size=2))
    assert [name for name in found if name in made] == made


def test_a_name_is_shown_as_it_is(admin: Words) -> None:
    admin("user", "create", "[red]x")
    assert "[red]x" in admin("user", "list").stdout
    admin("user", "delete", "[red]x")


def test_options_may_stand_before_the_command(admin: Words, tmp_path: Path) -> None:
    path = tmp_path / "admin-key"
    path.write_text(f"{ADMIN_KEY}\n")
    url = admin.environment["LAUNCH_ASYNC_URL"]
    words = ["--url", url, "--admin-key-file", str(path), "--json", "user", "list"]
    done = admin(*words, LAUNCH_ASYNC_URL=None, LAUNCH_ASYNC_ADMIN_KEY=None)
    assert json.loads(done.stdout)[0]["username"] == "tester"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["user", "create", "tester"], "the name 'tester' is taken"),
        (["user", "create", "a/b"], "username: a user name may not contain"),
        (["user", "delete", "nobody"], "there is no user 'nobody'"),
        (["user", "list", "--url", "http://127.0.0.1:1"], "cannot be reached"),
        (["user", "delete", ""], "a name is empty"),
        (["key", "list", "\udcff"], "what was given is not UTF-8 text"),
        (["user", "create", "\udcff"], "what was given is not UTF-8 text"),
    ],
)
def test_a_refusal_is_one_line_and_exit_code_1(admin: Words, words: list[str], says: str) -> None:
    assert says in admin(*words, code=1).stderr


def test_a_wrong_key_is_exit_code_1_and_not_shown(admin: Words) -> None:
    done = admin("user", "list", code=1, LAUNCH_ASYNC_ADMIN_KEY="w" * 40)
    assert "takes the server's admin key" in done.stderr
    assert "w" * 40 not in done.output


def test_a_server_without_an_admin_key_is_told_as_such(live_server: LiveServer) -> None:
    admin = Words(live_server.server.url)
    assert "has no admin API" in admin("user", "list", code=1).stderr


@pytest.mark.parametrize(
    ("words", "key", "says"),
    [
        (["user", "list"], None, "no admin key: set LAUNCH_ASYNC_ADMIN_KEY"),
        (["user", "list"], "short", "the admin key in LAUNCH_ASYNC_ADMIN_KEY is not one"),
        (["user", "list", "--admin-key-file", "/nowhere"], None, "cannot be read"),
        (["user", "list", "--url", "nowhere"], ADMIN_KEY, "must look like http://HOST:PORT"),
        (["team", "create", "x", "--member", "a:king"], ADMIN_KEY, "USER:viewer"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    admin: Words, words: list[str], key: str | None, says: str
) -> None:
    done = admin(*words, code=2, LAUNCH_ASYNC_ADMIN_KEY=key)
    assert says in done.stderr


@pytest.mark.acceptance
def test_a_server_with_an_admin_key_starts_without_users_and_says_how_to_make_one(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "LAUNCH_ASYNC_ADMIN_KEY": ADMIN_KEY}
    command = [BIN / "launch-async", "server", "--listen", "127.0.0.1:0", "--data", tmp_path]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as program:
        try:
            assert program.stdout is not None
            serving = program.stdout.readline()
            hint = program.stdout.readline()
            words = hint.partition("launch-async ")[2].replace("NAME", "first").split()
            made = subprocess.run(
                [BIN / "launch-async", *words],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            program.terminate()
    assert re.fullmatch(r"serving on http://\S+\n", serving)
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.strip()) == 40
    assert not (tmp_path / "api-key").exists()


@pytest.mark.acceptance
def test_a_short_admin_key_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sesame")
    done = subprocess.run(
        [BIN / "launch-async", "server", "--data", tmp_path, "--admin-key-file", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert f"the admin key in {path} is not one: it takes 40 or more" in done.stderr
    assert "sesame" not in done.stderr
