"""Makes queues, pushes a job that is there already and follows what was pushed: push.py FACTS."""

import io
from contextlib import redirect_stderr, redirect_stdout

import wandb
from facts import fact, tell
from wandb.cli.cli import cli
from wandb.sdk.launch import launch_add

JOB = "tester/jobs/my-code:latest"
api = wandb.Api()


def pushed(queue: str, **more: object) -> object:
    """Push the job to a queue."""
    return launch_add(job=JOB, queue_name=queue, entity="tester", project="target", **more)


@fact
def made() -> list[object]:
    queue = api.create_run_queue(
        name="made",
        type="local-process",
        entity="tester",
        config={"size": "{{n}}", "kept": [1]},
        template_variables={"n": {"schema": {"type": "integer", "minimum": 1, "default": 2}}},
    )
    read = api.run_queue("tester", "made")
    variables = [variable["name"] for variable in queue.template_variables]
    return [queue.type, read.access.lower(), read.default_resource_config, variables]


@fact
def made_twice() -> str:
    try:
        api.create_run_queue(name="made", type="local-process", entity="tester", config={})
    except Exception as error:  # noqa: BLE001 - each version has its own
        return str(error)
    return "two queues of one name"


@fact
def upserted() -> list[object]:
    queue = api.upsert_run_queue(
        name="ranked",
        resource_type="local-container",
        entity="tester",
        resource_config={"env": ["A=1"]},
        prioritization_mode="V0",
        external_links={"docs": "https://example.com"},
    )
    return [queue.prioritization_mode, queue.external_links]


@fact
def pushed_with_a_variable() -> list[object]:
    item = pushed("made", template_variables={"n": 4})
    return [item.state, [each.id for each in api.run_queue("tester", "made").items] == [item.id]]


@fact
def pushed_against_the_schema() -> str:
    try:
        return pushed("made", template_variables={"n": 0}).state
    except Exception as error:  # noqa: BLE001 - each version has its own
        return str(error)


@fact
def pushed_with_a_priority() -> str:
    return pushed("ranked", priority=0, config={"overrides": {"args": ["--x"]}}).state


@fact
def pushed_to_no_queue() -> str:
    try:
        return str(pushed("nowhere"))
    except Exception as error:  # noqa: BLE001 - each version has its own
        return str(error)


@fact
def called() -> str:
    return api.job(JOB).call({}, project="target", entity="tester", queue="ranked").state


@fact
def taken_back() -> int:
    item = pushed("ranked")
    before = len(api.run_queue("tester", "ranked").items)
    item.delete()
    return before - len(api.run_queue("tester", "ranked").items)


@fact
def jobs() -> int:
    return len(api.list_jobs("tester", "jobs"))


@fact
def queue_deleted() -> str:
    api.run_queue("tester", "ranked").delete()
    try:
        return str(api.run_queue("tester", "ranked").id)
    except Exception as error:  # noqa: BLE001 - each version has its own
        return type(error).__name__


def command(*words: str) -> str:
    """Return what the wandb command prints; a process of its own would take seconds to start."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        cli.main([*words], standalone_mode=False)
    return printed.getvalue()


@fact
def listed() -> str:
    return command("job", "list", "-p", "jobs", "-e", "tester")


@fact
def described() -> str:
    return command("job", "describe", JOB)


@fact
def launched() -> str:
    where = ("-e", "tester", "-p", "Target")
    return command("launch", "-q", "made", "-j", JOB, *where, "--set-var", "n=5")


tell()
