"""The unmodified client trains against our server."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from server_harness import LiveServer, WandbClient

pytestmark = pytest.mark.acceptance

RUN = "select * from runs where name = :name"
LINES = (
    "select body from run_history join runs on runs.id = run_id where name = :name order by line"
)

TRAIN = """
import wandb
with wandb.init(project="everything", id="whole", config={"lr": 0.1, "nested": {"a": 1}},
                tags=["t1"], group="g", job_type="train", notes="some notes") as run:
    for step in range(25):
        run.log({"loss": 1 / (step + 1), "deep": {"er": step}})
        print("line", step)
    run.summary["best"] = 42
    run.alert("Loss is low", "very low", level="WARN")
    with open("with blank %.txt", "w") as file:
        file.write("saved")
    run.save("with blank %.txt")
"""

READ = """
import json, sys, wandb
api = wandb.Api()
run = api.run("tester/everything/whole")
assert run.state == "finished", run.state
assert run.config == {"lr": 0.1, "nested": {"a": 1}}, run.config
assert run.summary["best"] == 42
assert run.summary["deep"]["er"] == 24
assert [row["_step"] for row in run.history(pandas=False, samples=5)] == [4, 9, 14, 19, 24]
assert [row["deep.er"] for row in run.history(keys=["deep.er"], pandas=False)] == list(range(25))
assert [row["_step"] for row in run.scan_history(page_size=10)] == list(range(25))
assert [row["loss"] for row in run.scan_history(keys=["loss"], min_step=20)] == [
    1 / (step + 1) for step in range(20, 25)]
assert run.lastHistoryStep == 24
lines = [line.content for line in run.console_logs()]
assert [line for line in lines if line.startswith("line")] == [f"line {n}" for n in range(25)]
names = sorted(file.name for file in run.files())
assert names == ["config.yaml", "output.log", "requirements.txt", "wandb-metadata.json",
                 "wandb-summary.json", "with blank %.txt"] or "code" in str(names), names
with run.file("with blank %.txt").download(root="down") as file:
    assert file.read() == "saved"
assert run.metadata["program"].endswith("train.py")

run.config["late"] = True
run.tags.append("late")
run.notes = "seen"
run.update()
run.summary["later"] = 7
run.summary.update()
with open("extra.txt", "w") as file:
    file.write("extra")
assert run.upload_file("extra.txt").name == "extra.txt"
again = wandb.Api().run("tester/everything/whole")
assert again.config["late"] is True and again.config["lr"] == 0.1
assert (again.tags, again.notes, again.state) == (["t1", "late"], "seen", "finished")
assert again.summary["later"] == 7 and again.summary["best"] == 42
assert again.file("extra.txt").size == 5
assert [r.name for r in api.runs("tester/everything", filters={"state": "finished"})] == ["whole"]
assert "everything" in [project.name for project in api.projects("tester")]
assert api.default_entity == "tester" and api.viewer.username == "tester"
again.file("extra.txt").delete()
assert "extra.txt" not in [file.name for file in wandb.Api().run("tester/everything/whole").files()]
print("all read")
"""


@pytest.fixture(scope="module", autouse=True)
def endless(
    tmp_path_factory: pytest.TempPathFactory, live_server: LiveServer
) -> Iterator[subprocess.Popen[str]]:
    """A run that asks for its own stop and then goes on for ever."""
    client = WandbClient(tmp_path_factory.mktemp("endless"), live_server.server)
    process = client.start(
        client.command("""
import signal, time, wandb
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
settings = wandb.Settings(x_file_stream_transmit_interval=1)
run = wandb.init(project="stopped", id="endless", settings=settings)
print("started", flush=True)
wandb.Api().run("tester/stopped/endless").stop()
while True:
    run.log({"x": 1})
    time.sleep(0.1)
""")
    )
    yield process
    with process:
        process.kill()


def test_a_run_leaves_everything_it_told(
    live_server: LiveServer, wandb_client: WandbClient
) -> None:
    done = wandb_client.python(TRAIN)
    assert done.returncode == 0, done.stdout
    (run,) = live_server.rows(RUN, name="whole")
    assert (run.state, run.exit_code) == ("finished", 0)
    assert json.loads(run.config)["lr"] == {"value": 0.1}
    assert (run.tags, run.group_name, run.notes) == ('["t1"]', "g", "some notes")
    assert json.loads(run.summary)["best"] == 42
    steps = [json.loads(body)["_step"] for (body,) in live_server.rows(LINES, name="whole")]
    assert steps == list(range(25))
    files = live_server.rows("select name, size, uploaded_at from run_files")
    assert {"config.yaml", "output.log", "wandb-summary.json", "with blank %.txt"} <= {
        file.name for file in files
    }
    assert all(file.uploaded_at and file.size is not None for file in files)
    assert live_server.rows("select title, severity from run_alerts") == [("Loss is low", "WARN")]

    read = wandb_client.python(READ)
    assert read.returncode == 0, read.stdout
    assert "all read" in read.stdout


def test_an_exit_code_arrives(live_server: LiveServer, wandb_client: WandbClient) -> None:
    ends = {3: "import sys; sys.exit(3)", 1: "raise ValueError('boom')", 4: "run.finish(4)"}
    scripts = [
        f"""
import os
os.environ["WANDB_X_FILE_STREAM_NO_GZIP"] = "false"
import wandb
run = wandb.init(project="ends", id="exit{code}")
run.log({{"x": 1}})
{last_line}
"""
        for code, last_line in ends.items()
    ]
    done = wandb_client.together(
        *(wandb_client.command(script, f"end{n}") for n, script in enumerate(scripts))
    )
    for code, process in zip(ends, done, strict=True):
        (run,) = live_server.rows(RUN, name=f"exit{code}")
        assert (run.state, run.exit_code) == ("failed", code), process.stdout


def test_a_run_is_resumed_where_it_left_off(
    live_server: LiveServer, wandb_client: WandbClient
) -> None:
    command = wandb_client.command("""
import sys, wandb
for mode in sys.argv[1:]:
    try:
        run = wandb.init(project="resumed", id="again", resume=mode)
    except wandb.Error as error:
        print("refused", mode, error)
        continue
    with run:
        print("at step", run.starting_step)
        run.log({"x": 1})
        run.log({"x": 2})
""")
    missing = wandb_client.run([*command, "must"])
    assert "refused must" in missing.stdout
    assert "does not exist" in missing.stdout or "not been initialized" in missing.stdout
    assert live_server.rows(RUN, name="again") == []
    first = wandb_client.run([*command, "allow"])
    assert first.returncode == 0, first.stdout
    assert "at step 0" in first.stdout
    second = wandb_client.run([*command, "allow", "must", "never"])
    assert second.returncode == 0, second.stdout
    steps = [line for line in second.stdout.splitlines() if line.startswith("at step")]
    assert steps == ["at step 2", "at step 4"]
    assert "refused never" in second.stdout
    lines = [json.loads(body)["_step"] for (body,) in live_server.rows(LINES, name="again")]
    assert lines == [0, 1, 2, 3, 4, 5]
    (run,) = live_server.rows(RUN, name="again")
    assert (run.state, run.history_lines) == ("finished", 6)


def test_a_config_that_is_no_strict_json_is_taken(
    live_server: LiveServer, wandb_client: WandbClient
) -> None:
    done = wandb_client.python("""
import math, wandb
odd = {"lr": math.nan, "top": math.inf, "half": "\\ud800", "zero": chr(0), "big": 10**30}
with wandb.init(project="odd", id="nan", config=odd) as run:
    run.log({"loss": math.nan, "big": 10**30})
    run.log({"loss": 1.0})
    run.summary["best"] = math.inf
found = wandb.Api().run("tester/odd/nan")
assert found.config["top"] == math.inf and found.config["big"] == 1e30
assert found.lastHistoryStep == 1
with wandb.init(project="odd", id="nan", resume="must") as run:
    assert run.starting_step == 2
print("ALL WELL")
""")
    assert "ALL WELL" in done.stdout, done.stdout


def test_a_wrong_key_is_told_to_the_user(wandb_client: WandbClient) -> None:
    wrong = "0" * 40
    wandb_client.environment["WANDB_API_KEY"] = wrong
    login, done, api = wandb_client.together(
        wandb_client.cli("login", "--verify", wrong),
        wandb_client.command('import wandb; wandb.init(project="p", id="never")', "init"),
        wandb_client.command("import wandb; wandb.Api()", "api"),
    )
    assert login.returncode != 0
    assert "this server does not know it" in login.stdout, login.stdout
    assert done.returncode != 0
    assert "this server does not know it" in done.stdout, done.stdout
    assert api.returncode != 0
    assert "invalid" in api.stdout, api.stdout


def test_a_right_key_logs_in(wandb_client: WandbClient, live_server: LiveServer) -> None:
    key = live_server.server.key
    login = wandb_client.wandb("login", "--verify", key)
    assert login.returncode == 0, login.stdout
    assert "tester" in login.stdout


def test_an_offline_run_is_synced(live_server: LiveServer, wandb_client: WandbClient) -> None:
    done = wandb_client.python(
        """
import wandb
with wandb.init(project="offline", id="away", config={"a": 1}) as run:
    for step in range(5):
        run.log({"x": step})
""",
        WANDB_MODE="offline",
    )
    assert done.returncode == 0, done.stdout
    assert live_server.rows(RUN, name="away") == []
    (folder,) = (wandb_client.home / "wandb").glob("offline-run-*")
    synced = wandb_client.wandb("sync", str(folder))
    assert synced.returncode == 0, synced.stdout
    (run,) = live_server.rows(RUN, name="away")
    assert (run.state, run.history_lines, json.loads(run.config)["a"]["value"]) == (
        "finished",
        5,
        1,
    )


def test_a_run_is_stopped_from_the_server(
    live_server: LiveServer, wandb_client: WandbClient, endless: subprocess.Popen[str]
) -> None:
    """Begun before the other tests: the client looks whether it shall stop every 15 seconds."""
    done = wandb_client.wait(endless)
    assert "started" in done.stdout, done.stdout
    assert done.returncode != 0, done.stdout
    (run,) = live_server.rows(RUN, name="endless")
    assert (run.state, run.exit_code, run.stop_requested) == ("failed", 255, 1), done.stdout
