"""`make run` as a newcomer types it: a fresh clone, a fresh HOME, and what is true afterwards."""

import json
import re
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from programs import program_environment

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
STEPS = 300
LIMIT_SECONDS = 400

Make = Callable[..., str]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer") / "launch-async"
    subprocess.run(["git", "clone", "--quiet", ROOT.as_uri(), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def make(clone: Path) -> Make:
    def run(*words: str, code: int = 0, **env: str) -> str:
        clean = program_environment(clone.parent / "home", url="", key="")
        kept = {name: value for name, value in clean.items() if not name.startswith("WANDB_")}
        ports = [f"PORT={free_port()}", f"ADMIN=127.0.0.1:{free_port()}"]
        done = subprocess.run(
            ["make", "run", *ports, *words],
            cwd=clone,
            env=kept | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    return run


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def the_only(database: Path, sql: str, *values: Any) -> sqlite3.Row:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        [row] = connection.execute(sql, values).fetchall()
        return row


def check_the_run(clone: Path, printed: str) -> None:
    """What was printed is true: the run and its item are in the database, whole."""
    database = clone / ".launch-async" / "launch-async.db"
    run_id = re.findall(r"/runs/(\w+)", printed)[-1]
    run = the_only(database, "SELECT * FROM runs WHERE name = ?", run_id)
    assert (run["state"], run["exit_code"], run["history_lines"]) == ("finished", 0, STEPS)
    steps = "SELECT count(*) n, min(step) low, max(step) high FROM run_history WHERE run_id = ?"
    assert tuple(the_only(database, steps, run["id"])) == (STEPS, 1, STEPS)
    config = json.loads(run["config"])
    assert (config["lr"]["value"], config["seed"]["value"]) == (0.05, 1)
    summary = json.loads(run["summary"])
    assert summary["steps"] == STEPS
    first = "SELECT body FROM run_history WHERE run_id = ? AND step = 1"
    assert summary["final_loss"] < json.loads(the_only(database, first, run["id"])["body"])["loss"]
    said = "SELECT group_concat(body, char(10)) said FROM run_console WHERE run_id = ?"
    console = the_only(database, said, run["id"])["said"]
    assert f"step {STEPS}/{STEPS}" in console
    assert f"done: final loss {summary['final_loss']:.4f}" in console
    item = the_only(database, "SELECT * FROM queue_items WHERE run_name = ?", run_id)
    assert item["state"] == "FINISHED"
    for part in ("finished after", "lr=0.05", f"logged   {STEPS} steps"):
        assert part in printed
    assert f"final_loss={summary['final_loss']:.4g}" in printed


def test_make_run_trains_a_job_and_says_what_is_true(clone: Path, make: Make) -> None:
    printed = make()
    check_the_run(clone, printed)
    assert "building" in printed
    again = make()
    assert "install" not in again
    check_the_run(clone, again)


@pytest.mark.docker
def test_make_run_with_docker_trains_in_a_container(
    clone: Path, make: Make, python_image: str
) -> None:
    check_the_run(clone, make("TARGET=docker"))


def test_without_an_index_the_installation_says_so_in_one_line(clone: Path, make: Make) -> None:
    closed = f"http://127.0.0.1:{free_port()}/simple"
    printed = make(code=2, PIP_INDEX_URL=closed, **forget(clone))
    lines = [line for line in printed.splitlines() if not line.startswith("make")]
    assert len(lines) == 2, printed
    assert "pip cannot reach its package index" in lines[1]


def forget(clone: Path) -> dict[str, str]:
    """Make the next start install again."""
    (clone / ".venv" / ".installed").unlink(missing_ok=True)
    return {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
