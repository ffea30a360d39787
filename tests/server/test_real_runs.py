"""The unmodified client trains against our server."""

import json
import subprocess

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


@pytest.mark.parametrize(
    ("last_line", "exit_code"),
    [("import sys; sys.exit(3)", 3), ("raise ValueError('boom')", 1), ("run.finish(4)", 4)],
)
def test_an_exit_code_arrives(
    live_server: LiveServer, wandb_client: WandbClient, last_line: str, exit_code: int
) -> None:
    name = f"exit{exit_code}"
    done = wandb_client.python(
        f"""
import wandb
run = wandb.init(project="ends", id="{name}")
run.log({{"x": 1}})
{last_line}
""",
        WANDB_X_FILE_STREAM_NO_GZIP="false",
    )
    (run,) = live_server.rows(RUN, name=name)
    assert (run.state, run.exit_code) == ("failed", exit_code), done.stdout


def test_a_run_is_resumed_where_it_left_off(
    live_server: LiveServer, wandb_client: WandbClient
) -> None:
    script = """
import sys, wandb
with wandb.init(project="resumed", id="again", resume=sys.argv[1]) as run:
    print("at step", run.starting_step)
    run.log({"x": 1})
    run.log({"x": 2})
"""
    command = wandb_client.command(script)
    missing = wandb_client.run([*command, "must"])
    assert missing.returncode != 0
    assert "does not exist" in missing.stdout or "not been initialized" in missing.stdout
    assert live_server.rows(RUN, name="again") == []
    for mode, step in (("allow", 0), ("allow", 2), ("must", 4)):
        done = wandb_client.run([*command, mode])
        assert done.returncode == 0, done.stdout
        assert f"at step {step}" in done.stdout
    lines = [json.loads(body)["_step"] for (body,) in live_server.rows(LINES, name="again")]
    assert lines == [0, 1, 2, 3, 4, 5]
    refused = wandb_client.run([*command, "never"])
    assert refused.returncode != 0
    (run,) = live_server.rows(RUN, name="again")
    assert (run.state, run.history_lines) == ("finished", 6)


def test_a_wrong_key_is_told_to_the_user(wandb_client: WandbClient) -> None:
    wrong = "0" * 40
    login = wandb_client.wandb("login", "--verify", wrong, WANDB_API_KEY=wrong)
    assert login.returncode != 0
    assert "this server does not know it" in login.stdout, login.stdout
    done = wandb_client.python(
        'import wandb; wandb.init(project="p", id="never")', WANDB_API_KEY=wrong
    )
    assert done.returncode != 0
    assert "this server does not know it" in done.stdout, done.stdout
    api = wandb_client.python("import wandb; wandb.Api()", WANDB_API_KEY=wrong)
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
    live_server: LiveServer, wandb_client: WandbClient
) -> None:
    command = wandb_client.command("""
import signal, time, wandb
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
settings = wandb.Settings(x_file_stream_transmit_interval=1)
run = wandb.init(project="stopped", id="endless", settings=settings)
print("started", flush=True)
while True:
    run.log({"x": 1})
    time.sleep(0.1)
""")
    with subprocess.Popen(
        command,
        env=wandb_client.environment,
        cwd=wandb_client.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("started"):
                break
        stop = wandb_client.home / "stop.py"
        stop.write_text('import wandb; wandb.Api().run("tester/stopped/endless").stop()')
        stopped = wandb_client.run([command[0], str(stop)])
        assert stopped.returncode == 0, stopped.stdout
        output, _ = process.communicate(timeout=50)
    assert process.returncode != 0, output
    (run,) = live_server.rows(RUN, name="endless")
    assert (run.state, run.exit_code) == ("failed", 255)
