"""Commands that ask and tell a running agent, over its real endpoint."""

import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner, Result

from launch_async.admin.app import serving
from launch_async.admin.operated import Operations
from launch_async.cli.main import main
from launch_async.domain.errors import ConfigError
from launch_async.domain.secret import Secret
from operated_agent import TOKEN, OperatedAgent, a_queue, a_view, an_item

DEADLINE_SECONDS = 20.0
ITEM = "UnVuUXVldWVJdGVtOjE="


class Served:
    def __init__(self, agent: OperatedAgent, address: str, folder: Path) -> None:
        self.agent = agent
        self.address = address
        self.token_file = folder / "token"
        self.token_file.write_text(f"{TOKEN}\n")
        self.config = folder / "launch-config.yaml"
        self.config.write_text(
            f"queues: [q]\nagent:\n  admin: {address}\n  admin_token_file: {self.token_file}\n"
        )
        self.levels: list[str] = []

    def __call__(self, *command: str, code: int = 0) -> Result:
        done = CliRunner().invoke(main, [*command, "-c", str(self.config)])
        assert done.exit_code == code, done.output
        return done


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    agent = OperatedAgent()
    agent.now = a_view(
        items=(an_item(1, id=ITEM), an_item(2, phase="preparing", detail="waits for a build slot")),
        phases={"q": {"running": 1, "preparing": 1}},
        queues=(a_queue(), a_queue("b", missing=("max_jobs is 2 and 2 are in use",))),
    )
    levels: list[str] = []
    operations = Operations(agent=agent, token=Secret(TOKEN), set_log_level=levels.append)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(operations, host="127.0.0.1", port=0)) as url,
    ):
        made = Served(agent, url.removeprefix("http://"), tmp_path)
        made.levels = levels
        yield made
        portal.call(agent.released.set)


def test_the_status_shows_the_agent_its_limits_its_queues_and_its_items(served: Served):
    text = served("agent", "status").stdout
    for part in ("agent-1", "jobs 0/4", "max_jobs is 2 and 2 are in use", ITEM, "a build slot"):
        assert part in text
    few = served("agent", "status", "--items", "1").stdout
    assert "… and 1 more items" in few
    assert json.loads(served("agent", "status", "--json").stdout)["name"] == "agent-1"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": "stopping"}, "stopping  waits for its items"),
        ({"state": "stopping", "lets_go_in_seconds": 65.0}, "stopping  lets go in 1m05s"),
        ({"seconds_since_beat": None}, "not heard yet"),
        ({"seconds_since_beat": 2.0}, "heard 2.0s ago"),
        ({"queues": (a_queue(interval_seconds=4.0),)}, "polled every 4.0s"),
        ({"queues": (a_queue(fault="refused", interval_seconds=4.0),)}, "not answering: refused"),
        ({"queues": (a_queue(fault="refused", missing=("full",)),)}, "not answering: refused"),
        ({"queues": (a_queue(seconds_since_poll=46.0),)}, "last answer 46 s ago"),
        ({"queues": (a_queue(seconds_since_poll=None),)}, "no answer yet"),
        ({"queues": (a_queue(paused=True),)}, "paused by its setting"),
        ({"queues": (a_queue(paused=True, paused_by_hand=True),)}, "paused by hand"),
    ],
)
def test_the_status_says_what_was_said_to_the_agent(
    served: Served, changes: dict[str, object], said: str
):
    served.agent.now = a_view(**changes)
    assert said in served("agent", "status").stdout


@pytest.mark.parametrize("seconds", ["nan", "-1", "inf", "soon"])
def test_a_timeout_is_a_number_of_seconds(served: Served, seconds: str):
    served("agent", "drain", "--timeout", seconds, code=2)
    assert served.agent.calls == []


def test_a_stream_that_lacks_a_letter_shows_the_others(served: Served):
    words = ["agent", "status", "-c", str(served.config)]
    done = CliRunner(charset="ascii").invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "\\u221e" in done.stdout


def test_a_probe_decides_the_exit_code(served: Served):
    assert "[+]queue/q ok" in served("agent", "status", "--check", "readyz").stdout
    served.agent.now = a_view(name="")
    served("agent", "status", "--check", "readyz", code=1)
    assert json.loads(served("agent", "status", "--check", "livez", "--json").stdout)["ok"] is True


@pytest.mark.parametrize(
    ("command", "call"),
    [
        (("agent", "drain"), ("drain", "None")),
        (("agent", "drain", "--timeout", "90"), ("drain", "90.0")),
        (("agent", "pause", "q"), ("pause", "q")),
        (("agent", "resume", "q"), ("resume", "q")),
        (("item", "cancel", "item-1"), ("cancel", "item-1")),
    ],
)
def test_a_change_reaches_the_agent(
    served: Served, command: tuple[str, ...], call: tuple[str, ...]
):
    assert served(*command).stdout
    assert isinstance(json.loads(served(*command, "--json").stdout), dict)
    assert served.agent.calls == [call, call]


def test_a_reload_prints_what_changed_or_what_is_wrong(served: Served):
    assert served("agent", "reload").stdout == "max_jobs: 1 -> 2\n"
    served.agent.changes = ()
    assert served("agent", "reload").stdout == "nothing changed\n"
    served.agent.changes = ConfigError("f.yaml:3:1: unknown key")
    assert "f.yaml:3:1: unknown key" in served("agent", "reload", code=1).stderr


def test_a_log_level_is_one_of_a_few(served: Served):
    served("agent", "loglevel", "debug")
    served("agent", "loglevel", "loud", code=2)
    assert served.levels == ["debug"]


def test_an_item_is_explained_in_words(served: Served):
    text = served("item", "explain", "item-1").stdout
    assert text.splitlines() == [
        "item-1: preparing for 1.0s",
        "  because  builds are busy",
        "  next     build",
    ]
    assert "because" in served("agent", "explain", "q").stdout


def test_of_an_item_that_is_not_open_the_queues_say_why_it_may_wait(served: Served):
    done = served("item", "explain", "unheard", code=1)
    assert "unheard is not open at this agent" in done.stderr
    assert "queue b: max_jobs is 2 and 2 are in use" in done.stdout
    assert "queue q: nothing holds it back" in done.stdout
    answer = json.loads(served("item", "explain", "unheard", "--json", code=1).stdout)
    assert [queue["name"] for queue in answer["queues"]] == ["q", "b"]


def test_of_an_item_that_waits_in_a_queue_which_does_not_answer_that_is_said(served: Served):
    served.agent.now = a_view(queues=(a_queue(fault="refused", seconds_since_poll=None),))
    done = served("item", "explain", "unheard", code=1)
    assert "queue q: not answering: refused; not looked into yet" in done.stdout


def test_logs_are_printed_and_followed(served: Served):
    assert served("item", "logs", "-n", "2", "item-2").stdout == "item-2 0\nitem-2 1\n"
    served.agent.released.set()
    assert served("item", "logs", "-f", "item-2").stdout == "first\nlast\n"
    assert served("item", "logs", "-f", "item-2", "--json").stdout.startswith('"')


def test_of_a_run_that_has_printed_nothing_the_way_to_the_reason_is_told(served: Served):
    served.agent.log = ()
    done = served("item", "logs", "item-2")
    assert done.stdout == ""
    assert "nothing is printed yet; `launch-async item explain item-2` says" in done.stderr
    assert served("item", "logs", "item-2", "--json").stderr == ""


@pytest.mark.parametrize("flags", [(), ("-f",)])
def test_an_item_that_is_not_open_has_no_log(served: Served, flags: tuple[str, ...]):
    done = served("item", "logs", *flags, "unheard", code=1)
    assert (done.stdout, "unheard is not open" in done.stderr) == ("", True)


def test_the_token_is_taken_from_a_file_a_variable_or_the_configuration(
    served: Served, monkeypatch: pytest.MonkeyPatch
):
    plain = ["agent", "pause", "q", "--admin", served.address]
    refused = CliRunner().invoke(main, plain)
    assert refused.exit_code == 1
    assert "--admin-token-file" in refused.stderr
    given = [*plain, "--admin-token-file", str(served.token_file)]
    assert CliRunner().invoke(main, given).exit_code == 0
    monkeypatch.setenv("LAUNCH_ASYNC_ADMIN_TOKEN", TOKEN)
    assert CliRunner().invoke(main, plain).exit_code == 0


def test_the_agents_own_flag_for_its_file_serves_its_commands_too(served: Served):
    done = CliRunner().invoke(main, ["agent", "-c", str(served.config), "status"])
    assert done.exit_code == 0
    assert "agent-1" in done.stdout


@pytest.mark.parametrize("flag", [("-q", "x"), ("-j", "2"), ("-v",), ("--check-config",)])
def test_a_flag_of_a_start_is_refused_where_it_would_do_nothing(
    served: Served, flag: tuple[str, ...]
):
    done = served("agent", *flag, "status", code=2)
    assert f"{flag[0]} is for the start of an agent" in done.stderr


def test_one_line_says_that_no_agent_answers():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        for command in (["agent", "status"], ["agent", "top"], ["item", "logs", "-f", "i"]):
            done = CliRunner().invoke(main, [*command, "--admin", address])
            assert done.exit_code == 1
            assert len(done.stderr.splitlines()) == 1
    assert f"no agent answers at http://{address} (Connection refused)" in done.stderr


@pytest.mark.parametrize(
    ("admin", "words"),
    [
        ("nonsense", "must look like"),
        ("127.0.0.1:²", "must look like"),
        ("http://127.0.0.1:8484", "must look like"),
        ("::1:8484", "must look like"),
        ("[::1:8484", "must look like"),
        ("a b:8484", "must look like"),
        ("127.0.0.1:0", "any free port"),
    ],
)
def test_an_address_that_cannot_be_asked_is_a_wrong_setting(admin: str, words: str):
    done = CliRunner().invoke(main, ["agent", "status", "--admin", admin])
    assert done.exit_code == 2
    assert words in done.stderr


def test_without_a_command_the_agent_starts_as_wandbs_does(tmp_path: Path):
    config = tmp_path / "f.yaml"
    config.write_text("queues: [q]\n")
    flags = ["-q", "a", "-q", "b", "-e", "me", "-j", "3", "-c", str(config), "-l", "-", "-v"]
    done = CliRunner().invoke(
        main, ["agent", *flags, "--check-config"], env={"HOME": str(tmp_path)}
    )
    assert done.exit_code == 0, done.output
    assert "queue a" in done.stdout
    assert "queue b" in done.stdout


class Terminal:
    """A program on a terminal of 80 columns and 24 lines."""

    def __init__(self, *command: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.program = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
        )
        os.close(slave)
        self.text = ""

    def wait_for(self, text: str) -> None:
        ends = time.monotonic() + DEADLINE_SECONDS
        while text not in self.text:
            readable, _, _ = select.select([self._master], [], [], ends - time.monotonic())
            assert readable, f"no {text!r} in {self.text!r}"
            self.text += os.read(self._master, 65536).decode(errors="replace")

    def end(self) -> int:
        """Its exit code after Ctrl-C; its last words are read, so that it can say them."""
        self.program.send_signal(signal.SIGINT)
        try:
            while os.read(self._master, 65536):
                pass
        except OSError:
            pass  # how a terminal says that nobody writes to it any more
        os.close(self._master)
        return self.program.wait(DEADLINE_SECONDS)


def test_top_follows_the_agent_on_a_small_terminal_until_ctrl_c(served: Served):
    many = tuple(an_item(number, id=f"item-{number:03}") for number in range(100))
    served.agent.now = a_view(items=many, phases={"q": {"running": 100}})
    program = str(Path(sys.executable).with_name("launch-async"))
    terminal = Terminal(program, "agent", "top", "-c", str(served.config), "--interval", "0.2")
    try:
        terminal.wait_for("more items")
        assert "item-000" in terminal.text
        served.agent.now = a_view(name="agent-2")
        terminal.wait_for("agent-2")
        terminal.wait_for("no open items")
    finally:
        code = terminal.end()
    assert code == 0


def test_top_needs_a_terminal(served: Served):
    assert "agent status --json" in served("agent", "top", code=1).stderr
