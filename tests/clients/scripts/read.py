"""Reads what train.py left with the public API, changes it and deletes: read.py FACTS."""

import json
from pathlib import Path

import wandb
from facts import fact, tell

PATH = "tester/training"
api = wandb.Api()
run = api.run(f"{PATH}/whole")


def found(**query: object) -> list[str]:
    """Return the ids of the runs that a query finds."""
    return sorted(each.id for each in api.runs(PATH, **query))


@fact
def words() -> dict[str, object]:
    return {
        "state": run.state,
        "name": run.name,
        "tags": run.tags,
        "notes": run.notes,
        "group": run.group,
        "job_type": run.job_type,
        "user": run.user.username,
    }


@fact
def config() -> object:
    return run.config


@fact
def summary() -> list[object]:
    told = run.summary
    return [told["best"], told["loss"]["min"], told["val/acc"], told["deep"]["er"]]


@fact
def defined() -> list[str]:
    told = run.rawconfig["_wandb"]["m"]
    return sorted(metric.get("1") or metric.get("2") for metric in told if metric.get("6") != [])


@fact
def last_step() -> int:
    return run.lastHistoryStep


@fact
def metadata() -> list[str]:
    return sorted(run.metadata)


@fact
def history() -> list[int]:
    return [row["_step"] for row in run.history(samples=7, pandas=False)]


@fact
def history_of_a_key() -> list[object]:
    return [row["deep.er"] for row in run.history(keys=["deep.er"], pandas=False)]


@fact
def scanned() -> list[int]:
    return [row["_step"] for row in run.scan_history(page_size=100)]


@fact
def scanned_key_in_pages() -> list[object]:
    return [row["deep.er"] for row in run.scan_history(keys=["deep.er"], page_size=100)]


@fact
def scanned_keys() -> list[object]:
    return [row["loss"] for row in run.scan_history(keys=["loss"], min_step=290, max_step=295)]


@fact
def system_metrics() -> int:
    return len(run.history(stream="system", pandas=False))


@fact
def files() -> dict[str, int]:
    return {file.name: file.size for file in run.files()}


@fact
def file_by_name() -> list[str]:
    return [file.name for file in run.files(["output.log"])]


@fact
def saved() -> str:
    with run.file("with blank %.txt").download(root="down") as file:
        return file.read()


@fact
def console() -> str:
    with run.file("output.log").download(root="down") as file:
        return file.read()


@fact
def table() -> object:
    names = [file.name for file in run.files() if file.name.endswith(".table.json")]
    with run.file(names[0]).download(root="down") as file:
        return json.load(file)["data"]


@fact
def logged_artifacts() -> list[str]:
    return [artifact.type for artifact in run.logged_artifacts()]


@fact
def used_artifacts() -> list[str]:
    return [artifact.type for artifact in run.used_artifacts()]


@fact
def runs_by_state() -> list[str]:
    return found(filters={"state": "failed"})


@fact
def runs_by_config() -> list[str]:
    return found(filters={"config.lr": 0.1})


@fact
def runs_by_summary() -> list[str]:
    return found(filters={"summary_metrics.best": {"$gt": 41}})


@fact
def runs_by_tag() -> list[str]:
    return found(filters={"tags": {"$in": ["three"]}})


@fact
def runs_by_words() -> list[str]:
    return found(filters={"$or": [{"display_name": "The whole"}, {"jobType": "nothing"}]})


@fact
def runs_in_pages() -> list[str]:
    return found(per_page=2)


@fact
def number_of_runs() -> int:
    return len(api.runs(PATH, per_page=2))


@fact
def runs_in_order() -> list[str]:
    return [next(iter(api.runs(PATH, order=order))).id for order in ("+created_at", "-created_at")]


@fact
def no_such_run() -> str:
    try:
        return str(api.run(f"{PATH}/nothing"))
    except (ValueError, wandb.Error) as error:
        return str(error)


@fact
def projects() -> list[str]:
    return [project.name for project in api.projects("tester")]


@fact
def project() -> str:
    return api.project("training", "tester").name


@fact
def viewer() -> list[str]:
    return [api.viewer.username, api.default_entity]


@fact
def updated() -> list[object]:
    changed = api.run(f"{PATH}/again")
    changed.config["late"] = True
    changed.tags.append("late")
    changed.notes = "seen"
    changed.name = "another"
    changed.group = "regrouped"
    changed.update()
    again = wandb.Api().run(f"{PATH}/again")
    return [again.config["late"], again.tags, again.notes, again.name, again.group]


@fact
def updated_summary() -> list[object]:
    changed = api.run(f"{PATH}/again")
    changed.summary["later"] = {"deep": 7}
    changed.summary.update()
    summary = wandb.Api().run(f"{PATH}/again").summary
    return [summary["later"]["deep"], summary["x"]]


@fact
def uploaded() -> list[object]:
    again = api.run(f"{PATH}/again")
    Path("extra.txt").write_text("extra")
    again.upload_file("extra.txt")
    sizes = [file.size for file in again.files(["extra.txt"])]
    again.file("extra.txt").delete()
    return [sizes, len(list(again.files(["extra.txt"])))]


@fact
def deleted() -> list[str]:
    api.run(f"{PATH}/broken").delete()
    return sorted(each.id for each in wandb.Api().runs(PATH))


tell()
