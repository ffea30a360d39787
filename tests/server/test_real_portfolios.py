"""The unmodified client links versions, makes one with others, and changes collections."""

import pytest
from server_harness import WandbClient

pytestmark = pytest.mark.acceptance


def test_portfolios_shared_versions_and_collections(wandb_client: WandbClient) -> None:
    done = wandb_client.python("""
import datetime, pathlib, wandb

pathlib.Path("d/sub").mkdir(parents=True)
pathlib.Path("d/a.txt").write_text("alpha")
pathlib.Path("d/sub/b.txt").write_text("beta")

def artifact(name, **more):
    made = wandb.Artifact(name, "dataset", **more)
    made.add_dir("d")
    return made

def part(name, text):
    made = wandb.Artifact("shared", "dataset")
    with made.new_file(name) as file:
        file.write(text)
    return made

with wandb.init(project="links", id="maker") as run:
    first = run.log_artifact(artifact("data"), aliases=["gold"], tags=["t1"]).wait()
    linked = run.link_artifact(first, "shown", aliases=["prod"])
    assert (linked.qualified_name, linked.is_link) == ("tester/links/shown:v0", True), linked.name
    assert sorted(linked.aliases) == ["latest", "prod"]
    elsewhere = run.link_artifact(first, "tester/Elsewhere/shown")
    assert elsewhere.qualified_name == "tester/Elsewhere/shown:v0"
    run.upsert_artifact(part("one", "1"), distributed_id="together")
    run.upsert_artifact(part("two", "22"), distributed_id="together")
    whole = run.finish_artifact(part("three", "333"), distributed_id="together").wait()
    assert (whole.version, whole.size, whole.file_count) == ("v0", 6, 3)
    mortal = artifact("mortal")
    mortal.ttl = datetime.timedelta(days=3)
    run.log_artifact(mortal).wait()
    hashed = wandb.Artifact("hashed", "dataset", digest_algorithm="XXH128")
    hashed.add_file("d/a.txt")
    assert run.log_artifact(hashed).wait().version == "v0"
    far = wandb.Artifact("far", "dataset")
    far.add_reference(whole.get_entry("two").ref_url(), name="other")
    far.add_reference("oss://bucket/key", name="bucket")
    run.log_artifact(far).wait()

api = wandb.Api()
whole = api.artifact("links/shared:latest")
assert sorted(whole.manifest.entries) == ["one", "three", "two"]
assert whole.digest == whole.manifest.digest()
whole.download(root="whole")
assert whole.verify(root="whole") is None

shown = api.artifact("links/shown:prod")
assert (shown.source_name, shown.source_artifact.name) == ("data:v0", "data:v0")
shown.aliases.append("stage")
shown.save()
assert sorted(api.artifact("links/data:v0").aliases) == ["gold", "latest"]
links = [each.qualified_name for each in api.artifact("links/data:v0").linked_artifacts]
assert links == ["tester/links/shown:v0", "tester/Elsewhere/shown:v0"], links
assert pathlib.Path(shown.download(root="shown"), "a.txt").read_text() == "alpha"
portfolio = api.artifact_collection("dataset", "links/shown")
assert not portfolio.is_sequence()
assert sorted(portfolio.aliases) == ["latest", "prod", "stage"]
assert [each.name for each in portfolio.artifacts()] == ["shown:v0"]

dataset = api.artifact_type("dataset", "links")
found = dataset.collections(filters={"name": {"$regex": "^s"}}, order="name")
names = [each.name for each in found]
assert names == ["shared", "shown"], names
sequence = api.artifact_collection("dataset", "links/mortal")
sequence.name, sequence.description, sequence.type = "lasting", "changed", "model"
sequence.tags = ["x", "y"]
sequence.save()
sequence.tags = ["y"]
sequence.save()
sequence = api.artifact_collection("model", "links/lasting")
assert (sequence.description, sequence.tags) == ("changed", ["y"])

lasting = api.artifact("links/lasting:v0")
assert (lasting.ttl, lasting.type) == (datetime.timedelta(days=3), "model")
lasting.ttl, lasting.description, lasting.tags = None, "for ever", ["kept"]
lasting.save()
lasting = api.artifact("links/lasting:v0")
assert (lasting.ttl, lasting.description, lasting.tags) == (None, "for ever", ["kept"])

far = api.artifact("links/far:latest")
assert far.manifest.entries["bucket"].ref == "oss://bucket/key"
assert pathlib.Path(far.get_entry("other").download(root="far")).read_text() == "22"

entry = lasting.get_entry("a.txt")
(file,) = lasting.files(["a.txt"])
entry._download_url = file.direct_url.replace("signature=", "signature=0")  # as if expired
assert pathlib.Path(entry.download(root="fallback", skip_cache=True)).read_text() == "alpha"

shown.unlink()
assert not api.artifact_exists("links/shown:v0") and api.artifact_exists("links/data:v0")
try:
    api.artifact("links/data:v0").delete()
except wandb.errors.CommError as error:
    assert "has the aliases gold" in str(error), error
else:
    raise SystemExit("a version with an alias was deleted")
api.artifact_collection("dataset", "links/data").delete()
assert not api.artifact_exists("Elsewhere/shown:latest")
print("ALL WELL")
""")
    assert "ALL WELL" in done.stdout, done.stdout
