"""Text is kept, found and sorted alike on both databases, whatever is in it."""

from typing import Any

import pytest
from artifact_harness import ArtifactClient
from hypothesis import given
from hypothesis import strategies as st
from server_harness import USERNAME, Http

from client_documents import client_document
from launch_async.server.store.texts import storable

pytestmark = pytest.mark.anyio

NAMES = ["a", "B", "Z", "b", "z", "Ä", "ä", "é", "_", "-", "10", "9", "\N{GRINNING FACE}"]
UPSERT = client_document("UpsertBucket.core")
RUN = """query Run($name: String!) { project(name: "proj", entityName: "tester") {
  run(name: $name) { displayName notes } } }"""


@given(st.text(st.characters(codec=None)))
def test_what_is_stored_is_text_of_the_same_length(text: str) -> None:
    kept = storable(text)
    assert "\0" not in kept
    assert len(kept.encode().decode()) == len(text)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_good_text_is_stored_as_it_is(text: str) -> None:
    assert storable(text) == text


async def test_nul_in_a_runs_words_does_not_stop_it(http: Http) -> None:
    about = {"name": "r1", "project": "proj", "entity": USERNAME}
    await http.data(UPSERT, **about, displayName="a\0b", notes="\0")
    run = (await http.data(RUN, name="r1"))["project"]["run"]
    assert (run["displayName"], run["notes"]) == ("a\ufffdb", "\ufffd")
    assert (await http.data(RUN, name="r\0"))["project"]["run"] is None


@pytest.mark.parametrize("name", ["r\0", "r" * 129, "r" * 100_000])
async def test_a_run_name_that_cannot_be_kept_is_a_400(http: Http, name: str) -> None:
    reply = await http.ask(UPSERT, name=name, project="proj", entity=USERNAME)
    assert reply.status == 400
    assert (await http.data(RUN, name=name))["project"] is None


@pytest.mark.parametrize("changes", [{"digest": "d" * 129}, {"clientID": "c" * 257}])
async def test_text_that_is_too_long_is_refused_with_its_length(
    http: Http, changes: dict[str, Any]
) -> None:
    given = {
        "entityName": USERNAME,
        "projectName": "art",
        "artifactTypeName": "dataset",
        "artifactCollectionName": "data",
        "digest": "d" * 32,
        "digestAlgorithm": "MANIFEST_MD5",
        "aliases": [],
        "enableDigestDeduplication": True,
    } | changes
    reply = await http.ask(client_document("CreateArtifact.core"), input=given)
    assert reply.status == 400
    assert "characters" in reply.json()["errors"][0]["message"]


async def test_names_come_by_code_points(http: Http) -> None:
    client = ArtifactClient(http)
    await client.log({name: name.encode() for name in NAMES})
    query = """{ project(name: "art", entityName: "tester") {
      artifact(name: "data:latest") { files(first: 50) { edges { node { name } } } } } }"""
    data = await http.data(query)
    edges = data["project"]["artifact"]["files"]["edges"]
    assert [edge["node"]["name"] for edge in edges] == sorted(NAMES)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("%.TXT", ["A.txt", "b.TXT"]),
        ("a_txt", ["A.txt"]),
        (r"100\%", ["100%"]),
        (r"%\_%", ["under_score"]),
        ("%", ["A.txt", "b.TXT", "100%", "under_score"]),
    ],
)
async def test_a_pattern_of_files_means_the_same(
    http: Http, pattern: str, found: list[str]
) -> None:
    await http.data(UPSERT, name="r1", project="proj", entity=USERNAME)
    made = await http.data(
        client_document("CreateRunFiles.core"),
        entity=USERNAME,
        project="proj",
        run="r1",
        files=["A.txt", "b.TXT", "100%", "under_score"],
    )
    for each in made["createRunFiles"]["files"]:
        assert (await http.send("PUT", each["uploadUrl"], data=b"x")).status == 200
    query = """query F($p: String!) { project(name: "proj", entityName: "tester") {
      run(name: "r1") { files(pattern: $p, first: 9) { edges { node { name } } } } } }"""
    edges = (await http.data(query, p=pattern))["project"]["run"]["files"]["edges"]
    assert [edge["node"]["name"] for edge in edges] == found
