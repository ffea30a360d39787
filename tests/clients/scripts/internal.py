"""Does by the client's inner API what its agent and its commands do: internal.py FACTS.

That API ends with 0.28; 0.31 does the same in Go, or not at all.
"""

import os
from pathlib import Path

import wandb
from facts import fact, tell
from wandb.sdk.internal.internal_api import Api

os.environ.update(WANDB_ENTITY="tester", WANDB_PROJECT="inner", WANDB_RUN_ID="r1")
api = Api()
SPEC = {"entity": "tester", "project": "inner", "docker": {"docker_image": "img:1"}}
# Before 0.28 the client is told whether the server knows agents at all.
GORILLA = {} if wandb.__version__.startswith("0.28") else {"gorilla_agent_support": True}


@fact
def run_upserted() -> list[object]:
    run, inserted, *messages = api.upsert_run(
        name="r1", project="inner", entity="tester", config={"lr": {"value": 1}}, tags=["t"]
    )
    api.set_current_run_id("r1")
    return [run["name"], run["project"]["entity"]["name"], inserted, *messages]


@fact
def viewer() -> list[object]:
    person, server = api.viewer_server_info()
    return [api.viewer()["username"], person["entity"], sorted(server)]


@fact
def newest_client() -> bool:
    return api.max_cli_version() >= "0.31"


@fact
def projects() -> list[object]:
    api.upsert_project("other", entity="tester", description="another")
    names = sorted(project["name"] for project in api.list_projects("tester"))
    return [names, api.project("inner", "tester")["name"]]


@fact
def runs() -> list[str]:
    return [run["name"] for run in api.list_runs("inner", "tester")]


@fact
def run_seen() -> list[object]:
    resume = api.run_resume_status("tester", "inner", "r1")
    stopped = api.check_stop_requested("inner", "tester", "r1")
    api.stop_run(resume["id"])
    return [
        resume["name"],
        api.get_run_state("tester", "inner", "r1"),
        stopped,
        api.check_stop_requested("inner", "tester", "r1"),
    ]


@fact
def rewound() -> str:
    return api.rewind_run(
        run_name="r1", entity="tester", project="inner", metric_name="_step", metric_value=1.0
    )["name"]


@fact
def alerted() -> bool:
    return api.notify_scriptable_run_alert("title", "text", level="WARN", wait_duration=1)


@fact
def pushed_files() -> list[object]:
    Path("wandb-metadata.json").write_text('{"program": "t.py", "git": {"commit": "c"}}')
    with Path("wandb-metadata.json").open("rb") as file:
        api.push({"wandb-metadata.json": file}, run="r1", entity="tester", project="inner")
    urls = api.download_urls("inner", run="r1", entity="tester")
    info = api.get_run_info("tester", "inner", "r1")
    Path("wandb-metadata.json").unlink()  # it would be good enough
    one = api.download_url("inner", "wandb-metadata.json", run="r1", entity="tester")
    path, _ = api.download_write_file(one, out_dir=".")
    return [sorted(urls), info["program"], info["git"]["commit"], Path(path).exists()]


@fact
def team() -> bool:
    return api.entity_is_team("tester")


@fact
def queue() -> list[object]:
    api.upsert_run_queue("inner", "tester", "local-container", {"resource_args": {}})
    found = api.get_project_run_queues("tester", "model-registry")
    return [[each["name"] for each in found], found[0]["access"]]


def agent() -> str:
    """Register an agent of the queue."""
    made = api.create_launch_agent(
        "tester", "model-registry", ["inner"], {"max_jobs": 1}, wandb.__version__, **GORILLA
    )
    return made["launchAgentId"]


@fact
def agent_seen() -> list[object]:
    number = agent()
    success = api.update_launch_agent_status(number, "RUNNING", **GORILLA)["success"]
    seen = api.get_launch_agent(number, **GORILLA)
    return [success, seen["agentStatus"], seen["stopPolling"], bool(seen["name"])]


def popped() -> dict[str, object] | None:
    """Pop an item as an agent does."""
    return api.pop_from_run_queue("inner", "tester", "model-registry", agent_id=agent())


@fact
def item_acked() -> list[object]:
    api.push_to_run_queue("inner", SPEC, None, "model-registry")
    item = popped()
    return [
        item["runSpec"]["docker"],
        api.ack_run_queue_item(item["runQueueItemId"], "r2"),
        popped(),
    ]


@fact
def item_failed() -> list[object]:
    api.push_to_run_queue("inner", SPEC, None, "model-registry")
    item = popped()["runQueueItemId"]
    return [
        api.update_run_queue_item_warning(item, "beware", "Kubernetes", ["warnings.log"]),
        api.fail_run_queue_item(item, "it broke", "run", ["error.log"]),
    ]


tell()
