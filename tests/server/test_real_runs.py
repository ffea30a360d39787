"""The unmodified client trains against our server, in ways that tests/clients does not."""

import json

import pytest
from server_harness import LiveServer, WandbClient

pytestmark = pytest.mark.acceptance

RUN = "select * from runs where name = :name"
LINES = (
    "select body from run_history join runs on runs.id = run_id where name = :name order by line"
)

TRAIN = """
import sys, wandb
settings = wandb.Settings(x_stats_sampling_interval=1)
with wandb.init(project="everything", id="whole", config={"lr": 0.1, "nested": {"a": 1}},
                tags=["t1"], group="g", job_type="train", notes="some notes",
                settings=settings) as run:
    run.define_metric("deep.er", summary="max")
    run.define_metric("epoch", hidden=True)
    for step in range(25):
        run.log({"loss": 1 / (step + 1), "deep": {"er": step}})
        print("line", step)
    print("to stderr", file=sys.stderr)
    run.log({"after": 1, "page": wandb.Html("<b>hello</b>")}, step=100)
    run.log({"table": wandb.Table(columns=["a"], data=[[1], [2]])}, step=101)
    run.summary["best"] = 42
    run.alert("Loss is low", "very low", level="WARN", wait_duration=60)
    with open("with blank %.txt", "w") as file:
        file.write("saved")
    run.save("with blank %.txt")
    artifact = wandb.Artifact("made", type="dataset")
    artifact.add_file("with blank %.txt")
    run.log_artifact(artifact).wait()
"""

READ = """
import json, sys, wandb
api = wandb.Api()
run = api.run("tester/everything/whole")
run.wait_until_finished()
assert run.state == "finished", run.state
assert run.config == {"lr": 0.1, "nested": {"a": 1}}, run.config
defined = run.rawconfig["_wandb"]["m"]
assert "deep.er" in [metric.get("1") for metric in defined], defined
assert run.summary["best"] == 42
assert run.summary["deep"]["er"]["max"] == 24, run.summary["deep"]
assert [row["_step"] for row in run.history(pandas=False, samples=5)] == [2, 8, 14, 20, 101]
assert [row["deep.er"] for row in run.history(keys=["deep.er"], pandas=False)] == list(range(25))
assert run.history(keys=["loss"], x_axis="deep.er", samples=2, pandas=False)[-1] == {
    "deep.er": 24, "loss": 1 / 25}
steps = [*range(25), 100, 101]
assert [row["_step"] for row in run.scan_history(page_size=10)] == steps
assert [row["loss"] for row in run.scan_history(keys=["loss"], min_step=20)] == [
    1 / (step + 1) for step in range(20, 25)]
assert [row["_step"] for row in run.scan_history(min_step=3, max_step=6)] == [3, 4, 5]
assert run.lastHistoryStep == 101
assert run.history(keys=["page"], pandas=False)[0]["page"]["_type"] == "html-file"
events = run.history(stream="system", pandas=False)
assert any(name.startswith("system.") for name in events[-1]), events
assert run.system_metrics == events[-1]
lines = list(run.console_logs())
told = [line.content for line in lines]
assert [line for line in told if line.startswith("line")] == [f"line {n}" for n in range(25)]
assert [line.level for line in lines if line.content == "to stderr"] == ["error"], lines
assert [line.content for line in run.console_logs(last=1)] == told[-1:]
names = sorted(file.name for file in run.files())
assert {"config.yaml", "output.log", "requirements.txt", "wandb-metadata.json",
        "wandb-summary.json", "with blank %.txt"} <= set(names), names
assert [file.name for file in run.files(pattern="%.YAML")] == ["config.yaml"]
assert len([name for name in names if name.startswith("media/html/page_")]) == 1, names
with run.file("with blank %.txt").download(root="down") as file:
    assert file.read() == "saved"
assert run.metadata["program"].endswith("train.py")
logged = {artifact.type: artifact for artifact in run.logged_artifacts()}
assert set(logged) == {"dataset", "run_table"}, logged
run.use_artifact(logged["dataset"])
assert [artifact.name for artifact in run.used_artifacts()] == ["made:v0"]
assert (run.user.username, run.entity) == ("tester", "tester")
assert (run.job_type, run.group) == ("train", "g")
assert run.created_at <= run.heartbeatAt

run.config["late"] = True
run.tags.append("late")
run.notes = "seen"
run.name = "renamed"
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
for filters in ({"state": "finished"}, {"config.lr": {"$lt": 0.2}}, {"config.nested.a.value": 1},
                {"config.nested.a": 1, "tags": {"$in": ["late"]}, "display_name": "renamed"},
                {"$or": [{"summary_metrics.best": {"$gte": 42}}, {"jobType": "none"}]},
                {"$and": [{"username": "tester"}, {"createdAt": {"$gt": "2020-01-01"}}]},
                {"display_name": {"$regex": "^ren.*d$"}, "config.none": {"$exists": False}}):
    for order in ("+created_at", "-summary_metrics.best", "+config.lr.value", "-heartbeat_at"):
        found = api.runs("tester/everything", filters=filters, order=order)
        assert [run.name for run in found] == ["renamed"], (filters, order)
        assert len(found) == 1
assert list(api.runs("tester/everything", filters={"config.lr": {"$gt": 0.2}})) == []
try:
    list(api.runs("tester/everything", filters={"loss": 1}))
except Exception as error:
    assert "runs have no field 'loss' here" in str(error), error
else:
    raise AssertionError("a filter was ignored")
assert "everything" in [project.name for project in api.projects("tester")]
assert api.default_entity == "tester" and api.viewer.username == "tester"
again.file("extra.txt").delete()
assert "extra.txt" not in [file.name for file in wandb.Api().run("tester/everything/whole").files()]
again.delete(delete_artifacts=True)
assert list(wandb.Api().runs("tester/everything")) == []
assert wandb.Api().artifact_exists("tester/everything/made:v0") is False
print("all read")
"""

GOING_ON = """
import wandb
def steps(name):
    return [row["x"] for row in wandb.Api().run("tester/branches/" + name).scan_history(keys=["x"])]
with wandb.init(project="branches", id="root") as run:
    for step in range(6):
        run.log({"x": step})
with wandb.init(project="branches", id="fork", fork_from="root?_step=2") as run:
    assert run.starting_step == 3, run.starting_step
    run.log({"x": 30})
assert steps("root") == [0, 1, 2, 3, 4, 5]
assert steps("fork") == [0, 1, 2, 30], steps("fork")
with wandb.init(project="branches", resume_from="root?_step=3") as run:
    run.log({"x": 40})
    run.log({"x": 50})
assert steps("root") == [0, 1, 2, 3, 40, 50], steps("root")
assert wandb.Api().run("tester/branches/root").summary["x"] == 50
run = wandb.init(project="branches", id="auto", resume="auto")
run.log({"x": 1})
run.mark_preempting()
run.finish(exit_code=1)
assert wandb.Api().run("tester/branches/auto").state == "preempted"
with wandb.init(project="branches", id="auto", resume="auto") as run:
    assert run.resumed and run.starting_step == 1
    run.log({"x": 2})
assert steps("auto") == [1, 2]
print("ALL WELL")
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
    assert steps == [*range(25), 100, 101]
    files = live_server.rows("select name, size, uploaded_at from run_files")
    assert {"config.yaml", "output.log", "wandb-summary.json", "with blank %.txt"} <= {
        file.name for file in files
    }
    assert all(file.uploaded_at and file.size is not None for file in files)
    assert live_server.rows("select title, severity from run_alerts") == [("Loss is low", "WARN")]

    read = wandb_client.python(READ)
    assert read.returncode == 0, read.stdout
    assert "all read" in read.stdout


def test_a_run_goes_on_from_where_it_was_told_to(
    live_server: LiveServer, wandb_client: WandbClient
) -> None:
    done = wandb_client.python(GOING_ON)
    assert "ALL WELL" in done.stdout, done.stdout
    (run,) = live_server.rows(RUN, name="auto")
    assert (run.state, run.history_lines) == ("finished", 2)


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


def test_wandb_verify_misses_only_https_and_sweeps(wandb_client: WandbClient) -> None:
    printed = wandb_client.wandb("verify").stdout
    checks = [line for line in printed.splitlines() if line.startswith("Checking ")]
    failed = [line.strip("❌").strip(".") for line in checks if line.endswith("❌")]
    assert failed == [
        "Checking requests to base url",
        "Checking requests made over signed URLs",
        "Checking sweep creation and agent execution",
    ], printed
    assert len([line for line in checks if line.endswith("✅")]) == 7, printed
    assert printed.count("over https") == 2, printed
    assert "Cannot query field 'upsertSweep'" in printed, printed
