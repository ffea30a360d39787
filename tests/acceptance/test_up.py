"""`launch-async up`: signals, crashes, and what a person reads when something is wrong."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from agent_harness import ENDED, Fleet
from programs import BIN, ControlPlane, Program, Shell, program_environment

pytestmark = pytest.mark.acceptance

STEPS = 40
TRAIN = f"""
import time, wandb
with wandb.init() as run:
    for step in range({STEPS}):
        run.log({{"loss": 1 / (step + 1)}})
        print(f"step {{step}}", flush=True)
        time.sleep(0.5)
"""
SLEEP = "import time\nprint('asleep', flush=True)\ntime.sleep(600)\n"
BRIEF = "import time\nprint('working', flush=True)\ntime.sleep(3)\nraise SystemExit(5)\n"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Up:
    """`launch-async up` on one folder and port, through several lives."""

    def __init__(
        self, folder: Path, programs: ExitStack, make_state: Callable[[Path], Path]
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir(mode=0o700, parents=True)
        make_state(self.data / "agent")
        self.port = free_port()
        self._programs = programs

    def start(self, *words: str) -> Program:
        self.folder.mkdir(exist_ok=True)
        where = ["--data", str(self.data), "--port", str(self.port), "--admin", "127.0.0.1:0"]
        command = [str(BIN / "launch-async"), "up", *where, *words]
        env = program_environment(self.folder / "home", url="", key="")
        program = self._programs.enter_context(Program.start(command, env=env, cwd=self.folder))
        program.wait_for("control plane")
        program.wait_for("agent registered")
        return program

    @contextmanager
    def fleet(self, program: Program) -> Iterator[Fleet]:
        url = f"http://localhost:{self.port}"
        key = (self.data / "api-key").read_text().strip()
        control_plane = ControlPlane(self.folder, program, url=url, key=key)
        env = program_environment(self.folder / "home", url=url, key=key)
        with ExitStack() as programs:
            yield Fleet(control_plane, Shell(self.folder / "work", env=env, programs=programs))

    def job_pid(self, run_id: str) -> int:
        started = self.data / "agent" / "runs" / run_id / "started.json"
        return json.loads(started.read_text())["job_pid"]


@pytest.fixture
def up(tmp_path: Path, made_environments: Callable[[Path], Path]) -> Iterator[Up]:
    with ExitStack() as programs:
        yield Up(tmp_path / "up", programs, made_environments)


def test_up_is_steered_with_the_token_in_its_folder(up: Up):
    program = up.start()
    address = program.wait_for(r'"url": "http://([^"]+)", "event": "admin endpoint"')[1]
    token = up.data / "admin-token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert f"export LAUNCH_ASYNC_ADMIN_TOKEN=$(cat {token})" in program.output
    with up.fleet(program) as fleet:
        ask = ["launch-async", "agent", "--admin", address]
        fleet.shell.run(*ask[:2], "pause", "process", *ask[2:], code=1)
        ask += ["--admin-token-file", str(token)]
        assert "is paused" in fleet.shell.run(*ask[:2], "pause", "process", *ask[2:])
        kept = token.read_text()
        fleet.shell.run(*ask[:2], "drain", *ask[2:])
    assert program.wait(within_seconds=30) == 0
    assert "paused by hand since an earlier life" in up.start().output
    assert (token.read_text(), kept in program.output) == (kept, False)


@pytest.mark.docker
def test_after_sigkill_the_next_start_adopts_what_runs_and_says_what_was_killed(
    up: Up, wandb_image: str
):
    first = up.start()
    with up.fleet(first) as fleet:
        train = fleet.make_code_job("train", TRAIN, requirements="wandb==0.31.*\n")
        sleep = fleet.make_code_job("sleep", SLEEP)
        process = fleet.push("process", job=train)
        running = {"process": fleet.wait_for_item("process", process, {"RUNNING"})}
        victim = fleet.push("process", job=sleep)
        overrides = {"args": ["python", "-c", TRAIN]}
        container = fleet.push("docker", docker={"docker_image": wandb_image}, overrides=overrides)
        pushed = {"process": process, "docker": container}
        running["docker"] = fleet.wait_for_item("docker", container, {"RUNNING"})
        victim_run = fleet.wait_for_item("process", victim, {"CLAIMED"})["associatedRunId"]
        first.wait_for(rf'"pid".*"run": "{victim_run}"')
        first.kill()
        os.kill(up.job_pid(victim_run), signal.SIGKILL)
        second = up.start()
        second.wait_for("item adopted")
        for queue, item in pushed.items():
            assert fleet.wait_for_item(queue, item, ENDED)["state"] == "FINISHED"
            run_id = running[queue]["associatedRunId"]
            run = fleet.run(run_id)
            assert run is not None
            assert (run["state"], run["historyLineCount"]) == ("finished", STEPS)
            assert second.output.count(f'"run": "{run_id}", "phase": "running"') <= 1
            assert f'"run": "{run_id}", "queue": "{queue}", "event": "run started"' not in (
                second.output
            )
        killed = fleet.wait_for_item("process", victim, ENDED)
        assert killed["state"] == "FAILED"
        assert "SIGKILL" in killed["message"]
        second.wait_for("item done(.|\n)*item done(.|\n)*item done")
        third_life = up.data / "agent" / "runs"
        assert not list(third_life.iterdir()), "ended runs leave nothing behind"


def test_the_first_sigterm_waits_for_items_and_the_second_does_not(up: Up):
    first = up.start()
    with up.fleet(first) as fleet:
        brief = fleet.make_code_job("brief", BRIEF)
        sleep = fleet.make_code_job("sleep", SLEEP)
        ends = fleet.push("process", job=brief)
        first.wait_for("run started")
        first.interrupt()
        assert first.wait(within_seconds=20) == 0
        second = up.start()
        ended = fleet.item("process", ends)
        assert (ended["state"], "code 5" in ended["message"]) == ("FAILED", True)
        item = fleet.push("process", job=sleep)
        run_id = fleet.wait_for_item("process", item, {"CLAIMED"})["associatedRunId"]
        second.wait_for("run started")
        second.interrupt()
        second.wait_for("stopping")
        second.interrupt()
        assert second.wait(within_seconds=10) == 0
        os.kill(up.job_pid(run_id), 0)  # let go, not ended
        third = up.start()
        third.wait_for("item adopted")
        os.kill(up.job_pid(run_id), signal.SIGTERM)
        assert fleet.wait_for_item("process", item, ENDED)["state"] == "FAILED"


def said_by(folder: Path, *words: str, code: int) -> str:
    env = program_environment(folder / "home", url="http://127.0.0.1:9", key="k" * 40)
    with ExitStack() as programs:
        shell = Shell(folder, env=env, programs=programs)
        return shell.run("launch-async", *words, code=code, within_seconds=60)


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, text
    return lines[0]


def test_a_taken_port_is_one_line(tmp_path: Path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        data = ["--data", str(tmp_path / "d")]
        said = one_line(said_by(tmp_path, "up", *data, "--port", port, code=2))
        assert f"cannot listen on 127.0.0.1:{port}" in said
        assert "--port" in said
        admin = ["--admin", f"127.0.0.1:{port}", "--port", "0"]
        said = said_by(tmp_path, "up", *data, *admin, code=2)
        assert f"cannot listen on 127.0.0.1:{port}" in said
        assert "Traceback" not in said
        listen = ["--listen", f"127.0.0.1:{port}"]
        said = one_line(said_by(tmp_path, "server", *data, *listen, code=2))
        assert "--listen" in said


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    data = str(tmp_path / "file" / "data")
    for words in (["up"], ["up", "--run", "."], ["server"]):
        said = one_line(said_by(tmp_path, *words, "--data", data, code=2))
        assert "file/data" in said
        assert "--data" in said


def test_a_broken_config_is_one_line_with_its_place(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("queues: [q]\nmax_job: 1\n")
    said = said_by(tmp_path, "agent", "-c", "c.yaml", code=2)
    assert (
        said.strip() == "launch-async: c.yaml:2:1: unknown key `max_job`; did you mean `max_jobs`?"
    )
    said = one_line(said_by(tmp_path, "agent", "-c", "none.yaml", code=2))
    assert "none.yaml: cannot be read" in said
    said = one_line(said_by(tmp_path, "agent", code=2))
    assert "no queue to poll: name one with -q" in said


def test_a_folder_without_code_and_a_bad_setting_are_one_line(tmp_path: Path):
    data = ["--data", str(tmp_path / "d"), "--port", "0", "--admin", "127.0.0.1:0"]
    said = said_by(tmp_path, "up", *data, "--run", "nosuch", code=2)
    assert (
        one_line(said)
        == "launch-async: nosuch is not a folder; give the folder that holds the job's code"
    )
    said = said_by(tmp_path, "up", *data, "--run", ".", "--set", "lr", code=2)
    assert "--set 'lr' must look like KEY=VALUE" in said


def test_a_key_that_the_server_refuses_is_one_line_and_exit_3(tmp_path: Path):
    with ControlPlane.start(tmp_path / "server") as control_plane, ExitStack() as programs:
        env = program_environment(tmp_path / "home", url=control_plane.url, key="x" * 40)
        shell = Shell(tmp_path / "work", env=env, programs=programs)
        words = ["agent", "-q", "nosuch", "-l", "agent.log"]
        shell.write("launch-config.yaml", "agent: {state_dir: state, admin: ''}\n")
        words += ["-c", "launch-config.yaml"]
        said = one_line(shell.run("launch-async", *words, code=3, within_seconds=30))
        assert "refused the API key" in said
        key = {"WANDB_API_KEY": control_plane.key}
        said = one_line(shell.run("launch-async", *words, code=3, within_seconds=30, **key))
        assert "no queue nosuch in the entity local" in said


def test_an_agent_waits_for_a_service_that_is_down_and_can_be_stopped_meanwhile(tmp_path: Path):
    env = program_environment(
        tmp_path / "home", url=f"http://127.0.0.1:{free_port()}", key="k" * 40
    )
    with ExitStack() as programs:
        shell = Shell(tmp_path / "work", env=env, programs=programs)
        shell.write("launch-config.yaml", "agent: {state_dir: state, admin: ''}\n")
        agent = shell.start("launch-async", "agent", "-q", "q", "-c", "launch-config.yaml")
        agent.wait_for("the service does not answer yet", within_seconds=60)
        agent.interrupt()
        assert agent.wait(within_seconds=5) == 0
        assert "Traceback" not in agent.output
