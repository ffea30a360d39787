"""The unmodified client logs, finds, uses and downloads artifacts."""

import pytest
from server_harness import LiveServer, WandbClient

pytestmark = pytest.mark.acceptance


def test_an_artifact_goes_round(live_server: LiveServer, wandb_client: WandbClient) -> None:
    done = wandb_client.python("""
import pathlib, wandb

folder = pathlib.Path("payload")
(folder / "sub").mkdir(parents=True)
(folder / "a b%.txt").write_text("alpha")
(folder / "sub" / "empty").write_text("")
pathlib.Path("far.bin").write_text("far")

def artifact():
    made = wandb.Artifact("round-trip", "dataset", description="things", metadata={"k": 1})
    made.add_dir(str(folder))
    made.add_reference(pathlib.Path("far.bin").resolve().as_uri())
    return made

with wandb.init(project="Round", id="maker") as run:
    run.log_artifact(artifact(), aliases=["best"]).wait()
    assert run.log_artifact(artifact()).wait().version == "v0"      # the same bytes
    (folder / "new.txt").write_text("new")
    second = run.log_artifact(artifact()).wait()
    assert (second.version, sorted(second.aliases)) == ("v1", ["latest"]), second.aliases

with wandb.init(project="round", id="user") as run:
    used = run.use_artifact("round-trip:best")
    assert used.version == "v0" and used.metadata == {"k": 1} and used.description == "things"
    assert used.size == 8 and used.file_count == 3, (used.size, used.file_count)
    got = pathlib.Path(used.download(root="out"))
    assert (got / "a b%.txt").read_text() == "alpha"
    assert (got / "sub" / "empty").read_text() == ""
    assert (got / "far.bin").read_text() == "far"

api = wandb.Api()
first = api.artifact("round/round-trip:v0")
assert first.logged_by().id == "maker"
assert [run.id for run in first.used_by()] == ["user"]
assert sorted(file.name for file in first.files()) == ["a b%.txt", "far.bin", "sub/empty"]
assert [v.version for v in api.artifacts("dataset", "round/round-trip")] == ["v1", "v0"]
made = [a.name for a in api.run("round/maker").logged_artifacts()]
assert made == ["round-trip:v0", "round-trip:v1"]
assert [a.name for a in api.run("round/user").used_artifacts()] == ["round-trip:v0"]
entry = first.get_entry("a b%.txt")
assert pathlib.Path(entry.download(root="single")).read_text() == "alpha"
assert first.verify(root="out") is None
first.aliases.append("gold")
first.metadata["more"] = 2
first.save()
assert set(api.artifact("round/round-trip:gold").aliases) == {"best", "gold"}
assert [t.name for t in api.artifact_types("round")] == ["dataset"]
second = api.artifact("round/round-trip:v1")
second.delete(delete_aliases=True)
assert api.artifact("round/round-trip:latest").version == "v0"
print("ALL WELL")
""")
    assert "ALL WELL" in done.stdout, done.stdout
    blobs = live_server.rows(
        "select md5 from artifact_blobs b join artifact_files f using (md5) "
        "where f.name in ('a b%.txt', 'new.txt') and b.present"
    )
    assert len({row.md5 for row in blobs}) == 2, "each content is stored once"


def test_artifacts_outlive_their_run(wandb_client: WandbClient) -> None:
    done = wandb_client.python(
        """
import wandb
with wandb.init(project="outlive", id="gone") as run:
    made = wandb.Artifact("kept", "dataset")
    with made.new_file("x") as file:
        file.write("x")
    run.log_artifact(made).wait()
wandb.Api().run("outlive/gone").delete()
kept = wandb.Api().artifact("outlive/kept:latest")
kept.download(root="out")
assert kept.logged_by() is None
print("ALL WELL")
""",
        WANDB_CACHE_DIR=str(wandb_client.home / "other-cache"),
    )
    assert "ALL WELL" in done.stdout, done.stdout
