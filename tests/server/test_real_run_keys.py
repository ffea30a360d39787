"""The unmodified client under a run's own key: everything that a launched script does."""

import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from launch_harness import Launch, spec
from server_harness import Http, LiveServer, WandbClient

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from proxy import Proxy

pytestmark = pytest.mark.acceptance

JOB = "tester/jobs/keyed:latest"
MAKE_INPUT = """
import wandb
with wandb.init(project="inputs", id="maker") as run:
    made = wandb.Artifact("numbers", "dataset")
    with made.new_file("n.txt") as file:
        file.write("1 2 3")
    run.log_artifact(made)
"""
TRAIN = """
import pathlib, wandb

with wandb.init(config={"lr": 0.1}) as run:
    numbers = run.use_artifact("tester/inputs/numbers:latest")
    assert pathlib.Path(numbers.download(), "n.txt").read_text() == "1 2 3"
    for step in range(3):
        run.log({"loss": 1 / (step + 1)})
    pathlib.Path("notes.txt").write_text("kept")
    run.save("notes.txt")
    run.alert(title="hello", text="world")
    made = wandb.Artifact("model", "model", metadata={"k": 1})
    with made.new_file("weights.bin") as file:
        file.write("w")
    logged = run.log_artifact(made, aliases=["candidate"]).wait()
    logged.aliases.append("best")
    logged.metadata["k"] = 2
    logged.save()
    run.summary["done"] = True
    api = wandb.Api()
    assert api.run(run.path).id == run.id
    assert api.artifact("tester/inputs/numbers:v0").version == "v0"
    run.config["late"] = 1
"""
BRIEF = """
import wandb
with wandb.init() as run:
    run.log({"a": 1})
    run.log({"a": 2})
"""


def test_a_whole_launched_run_lives_on_its_own_key(
    live_server: LiveServer, wandb_client: WandbClient
) -> None:
    make_job(wandb_client)
    assert wandb_client.python(MAKE_INPUT).returncode == 0
    key = live_server.call(launched, live_server, "keyed")

    done = wandb_client.python(
        TRAIN,
        WANDB_API_KEY=key,
        WANDB_ENTITY="tester",
        WANDB_PROJECT="fresh",
        WANDB_RUN_ID="keyed",
        WANDB_LAUNCH="True",
        WANDB_DISABLE_JOB_CREATION="false",
        WANDB_CONFIG=json.dumps({"lr": 0.5}),
        WANDB_ARTIFACTS=json.dumps({"_wandb_job": JOB}),
    )

    assert done.returncode == 0, done.stdout
    complaint = re.search(r"\b(401|403)\b|Fatal|ERROR", done.stdout)  # no part of a time or a port
    assert complaint is None, done.stdout
    rows = live_server.rows(
        "select state, history_lines, summary, config from runs where name = 'keyed'"
    )
    ((state, lines, summary, config),) = rows
    assert (state, lines) == ("finished", 3)
    assert json.loads(summary)["done"] is True
    assert json.loads(config)["late"]["value"] == 1
    assert json.loads(config)["lr"]["value"] == 0.5
    files = live_server.rows(
        "select f.name from run_files f join runs on runs.id = run_id "
        "where runs.name = 'keyed' and uploaded_at is not null"
    )
    assert {"notes.txt", "output.log", "config.yaml"} <= {row.name for row in files}
    assert live_server.rows("select title from run_alerts") == [("hello",)]
    aliases = live_server.rows(
        "select alias from artifact_aliases join artifact_collections c on c.id = collection_id "
        "where c.name = 'model'"
    )
    assert {row.alias for row in aliases} == {"latest", "candidate", "best"}
    used = live_server.rows(
        "select c.name from artifact_runs r join artifacts a on a.id = r.artifact_id "
        "join artifact_collections c on c.id = a.collection_id "
        "where r.run_name = 'keyed' and r.role = 'input' order by c.name"
    )
    assert [row.name for row in used] == ["keyed", "numbers"]
    ((job,),) = live_server.rows(
        "select metadata from artifacts a join artifact_collections c on c.id = a.collection_id "
        "where c.name = 'keyed'"
    )
    assert "input_types" in json.loads(job), "a partial job is completed by its first run"
    assert live_server.call(status_of, live_server, key) == 401


def test_a_run_whose_last_answer_is_lost_ends_without_a_complaint(
    live_server: LiveServer, wandb_client: WandbClient
) -> None:
    key = live_server.call(launched, live_server, "unheard")
    address = urlsplit(live_server.server.url)
    assert address.hostname is not None
    assert address.port is not None
    proxy = Proxy((address.hostname, address.port))
    with proxy.running(), proxy.lose('"complete":true', times=1) as lost:
        done = wandb_client.python(
            BRIEF,
            WANDB_API_KEY=key,
            WANDB_BASE_URL=f"http://127.0.0.1:{proxy.port}",
            WANDB_ENTITY="tester",
            WANDB_PROJECT="fresh",
            WANDB_RUN_ID="unheard",
        )
    assert lost.hits == 1
    assert done.returncode == 0, done.stdout
    complaint = re.search(r"\b(401|403)\b|Fatal|ERROR", done.stdout)
    assert complaint is None, done.stdout
    told = proxy.operations.count("POST /files/tester/fresh/unheard/file_stream")
    assert told >= 2, "the end was not told again"
    rows = live_server.rows("select state, history_lines from runs where name = 'unheard'")
    assert rows == [("finished", 2)]


async def launched(live_server: LiveServer, run: str) -> str:
    """Push, pop and ack an item as a person and an agent do; return the key of its run."""
    async with aiohttp.ClientSession() as session:
        launch = Launch(Http(session, live_server.server))
        await launch.queue("keyed")
        await launch.push("keyed", spec=spec(job=JOB, project="fresh"))
        popped: dict[str, Any] | None = await launch.pop("keyed")
        assert popped is not None
        assert await launch.ack(popped["runQueueItemId"], run)
        return popped["runSpec"]["_wandb_api_key"]


async def status_of(live_server: LiveServer, key: str) -> int:
    async with aiohttp.ClientSession() as session:
        return (await Http(session, live_server.server).ask("{ viewer { id } }", key)).status


def make_job(client: WandbClient) -> None:
    folder = client.home / "code"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "requirements.txt").write_text("wandb\n")
    words = ["-p", "jobs", "-n", "keyed", "-E", "train.py"]
    made = client.wandb("job", "create", "code", str(folder), *words)
    assert made.returncode == 0, made.stdout
