"""Logs, finds, uses, downloads, changes and deletes artifacts: round_trip.py FACTS."""

import os
from datetime import timedelta
from pathlib import Path

import wandb
from facts import fact, tell

PROJECT = "trips"
FAR = Path("far.bin")
payload = Path("payload")
(payload / "sub").mkdir(parents=True)
(payload / "a b%.txt").write_text("alpha")
(payload / "sub" / "empty").write_text("")
FAR.write_text("far")


def dataset() -> wandb.Artifact:
    """Return an artifact of what is in the folder, and of a reference."""
    made = wandb.Artifact("round", "dataset", description="things", metadata={"k": 1})
    made.add_dir(str(payload))
    made.add_reference(FAR.resolve().as_uri())
    return made


with wandb.init(project=PROJECT, id="maker") as run:

    @fact
    def first() -> list[object]:
        logged = run.log_artifact(dataset(), aliases=["best"]).wait()
        return [logged.version, sorted(logged.aliases), logged.state]

    @fact
    def the_same_again() -> str:
        return run.log_artifact(dataset()).wait().version

    @fact
    def second() -> list[object]:
        (payload / "new.txt").write_text("new")
        logged = run.log_artifact(dataset()).wait()
        return [logged.version, sorted(logged.aliases)]

    @fact
    def built_on_another() -> list[object]:
        draft = run.use_artifact("round:v0").new_draft()
        draft.remove("sub/empty")
        with draft.new_file("added") as file:
            file.write("added")
        logged = run.log_artifact(draft).wait()
        return [logged.version, sorted(logged.manifest.entries)]

    @fact
    def grown() -> list[object]:
        for name in ("one", "two"):
            more = wandb.Artifact("grown", "dataset", incremental=name == "two")
            with more.new_file(name) as file:
                file.write(name)
            logged = run.log_artifact(more).wait()
        return [logged.version, sorted(logged.manifest.entries)]

    @fact
    def table() -> str:
        tables = wandb.Artifact("tables", "table")
        tables.add(wandb.Table(columns=["a"], data=[[1], [2]]), "numbers")
        return run.log_artifact(tables).wait().version


os.environ["WANDB_CACHE_DIR"] += "-empty"  # what is downloaded now comes from the server

with wandb.init(project=PROJECT, id="user") as run:

    @fact
    def used() -> list[object]:
        found = run.use_artifact("round:best")
        return [found.version, found.metadata, found.description, found.size, found.file_count]

    @fact
    def downloaded() -> list[str]:
        root = Path(run.use_artifact("round:best").download(root="out"))
        names = ("a b%.txt", "sub/empty", "far.bin")
        return [(root / name).read_text() for name in names]

    @fact
    def table_read() -> object:
        return run.use_artifact("tables:latest").get("numbers").data


api = wandb.Api()
PATH = "tester/trips"


@fact
def lineage() -> list[object]:
    found = api.artifact(f"{PATH}/round:v0")
    return [found.logged_by().id, sorted(run.id for run in found.used_by())]


@fact
def names_of_files() -> list[str]:
    return sorted(file.name for file in api.artifact(f"{PATH}/round:v0").files())


@fact
def one_entry() -> str:
    entry = api.artifact(f"{PATH}/round:v1").get_entry("new.txt")
    return Path(entry.download(root="single")).read_text()


@fact
def verified() -> None:
    api.artifact(f"{PATH}/round:v0").verify(root="out")


@fact
def found_in_other_letters() -> str:
    return api.artifact("tester/Trips/round:v1").version


@fact
def versions() -> list[str]:
    return [found.version for found in api.artifacts("dataset", f"{PATH}/round")]


@fact
def types() -> list[str]:
    return sorted(kind.name for kind in api.artifact_types(PATH))


@fact
def type_by_name() -> str:
    return api.artifact_type("dataset", PATH).name


@fact
def collections() -> list[str]:
    return [found.name for found in api.artifact_collections(PATH, "dataset")]


@fact
def collection() -> list[object]:
    found = api.artifact_collection("dataset", f"{PATH}/round")
    return [found.name, found.is_sequence()]


@fact
def aliases() -> list[str]:
    return sorted(api.artifact_collection("dataset", f"{PATH}/round").aliases)


@fact
def existence() -> list[bool]:
    return [
        api.artifact_exists(f"{PATH}/round:v0"),
        api.artifact_exists(f"{PATH}/round:v9"),
        api.artifact_collection_exists(f"{PATH}/round", "dataset"),
        api.artifact_collection_exists(f"{PATH}/nothing", "dataset"),
    ]


@fact
def of_runs() -> list[object]:
    logged = [made.name for made in api.run(f"{PATH}/maker").logged_artifacts()]
    return [logged, sorted(made.name for made in api.run(f"{PATH}/user").used_artifacts())]


@fact
def missing() -> str:
    try:
        return str(api.artifact(f"{PATH}/nothing:v0"))
    except (ValueError, wandb.Error) as error:
        return str(error)


@fact
def changed() -> list[object]:
    found = api.artifact(f"{PATH}/round:v0")
    found.aliases.append("gold")
    found.aliases.remove("best")
    found.metadata["more"] = 2
    found.description = "other things"
    found.save()
    again = wandb.Api().artifact(f"{PATH}/round:gold")
    return [sorted(again.aliases), again.metadata, again.description]


@fact
def tagged() -> list[str]:
    found = api.artifact(f"{PATH}/round:v0")
    found.tags = ["one", "two"]
    found.save()
    found.tags = ["two"]
    found.save()
    return wandb.Api().artifact(f"{PATH}/round:v0").tags


@fact
def kept_for() -> list[object]:
    found = api.artifact(f"{PATH}/round:v1")
    before = found.ttl
    found.ttl = timedelta(days=7)
    found.save()
    return [before, wandb.Api().artifact(f"{PATH}/round:v1").ttl.days]


@fact
def deleted() -> list[str]:
    api.artifact(f"{PATH}/round:v2").delete(delete_aliases=True)
    left = [found.version for found in wandb.Api().artifacts("dataset", f"{PATH}/round")]
    return [*left, wandb.Api().artifact(f"{PATH}/round:latest").version]


@fact
def collection_tagged() -> list[str]:
    found = api.artifact_collection("dataset", f"{PATH}/round")
    found.tags = ["a", "b"]
    found.save()
    found.tags = ["b", "c"]
    found.save()
    return sorted(wandb.Api().artifact_collection("dataset", f"{PATH}/round").tags)


@fact
def collection_retyped() -> list[str]:
    found = api.artifact_collection("dataset", f"{PATH}/round")
    found.change_type("thing")
    found.save()
    api.artifact_collection("thing", f"{PATH}/round").change_type("dataset")
    return sorted(kind.name for kind in wandb.Api().artifact_types(PATH))


@fact
def collection_renamed() -> list[str]:
    found = api.artifact_collection("dataset", f"{PATH}/round")
    found.name = "square"
    found.description = "a collection"
    found.save()
    again = wandb.Api().artifact_collection("dataset", f"{PATH}/square")
    return [again.name, again.description]


@fact
def collection_deleted() -> list[str]:
    api.artifact_collection("table", f"{PATH}/tables").delete()
    return [found.name for found in wandb.Api().artifact_collections(PATH, "table")]


@fact
def outlived() -> str:
    wandb.Api().run(f"{PATH}/maker").delete()
    return wandb.Api().artifact(f"{PATH}/square:gold").version


@fact
def maker_afterwards() -> object:
    return wandb.Api().artifact(f"{PATH}/square:gold").logged_by()


tell()
