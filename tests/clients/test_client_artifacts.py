"""Artifacts of every version of the client: logged, found, downloaded, changed and deleted."""

from typing import Any

import pytest
from clients_harness import Client, LivePlane

pytestmark = pytest.mark.acceptance

Facts = dict[str, Any]


@pytest.fixture(scope="module")
def trip(client: Client) -> Facts:
    """Let one client do everything that artifacts are for."""
    return client.facts("round_trip")


def test_every_document_is_valid_and_no_answer_a_fault(trip: Facts, plane: LivePlane) -> None:
    assert plane.graphql.invalid() == {}
    assert max(plane.graphql.asked.values()) < 500


def test_other_content_makes_a_version_and_the_same_none(trip: Facts) -> None:
    assert trip["first"] == ["v0", ["best", "latest"], "COMMITTED"]
    assert trip["the_same_again"] == "v0"
    assert trip["second"] == ["v1", ["latest"]]


def test_a_draft_builds_on_another_version(trip: Facts) -> None:
    assert trip["built_on_another"] == ["v2", ["a b%.txt", "added", "far.bin"]]


def test_an_incremental_version_adds_to_the_one_before(trip: Facts) -> None:
    assert trip["grown"] == ["v1", ["one", "two"]]


def test_an_artifact_that_is_used_has_what_was_logged(trip: Facts) -> None:
    assert trip["used"] == ["v0", {"k": 1}, "things", 8, 3]


def test_files_and_references_are_downloaded(trip: Facts) -> None:
    assert trip["downloaded"] == ["alpha", "", "far"]
    assert trip["one_entry"] == "new"
    assert trip["verified"] is None
    assert trip["names_of_files"] == ["a b%.txt", "far.bin", "sub/empty"]


def test_a_table_goes_round(trip: Facts) -> None:
    assert trip["table_read"] == [[1], [2]]


def test_lineage_knows_who_made_and_who_used_it(trip: Facts) -> None:
    maker, users = trip["lineage"]
    assert maker == "maker"
    assert "user" in users
    assert trip["of_runs"] == [
        ["round:v0", "round:v1", "round:v2", "grown:v0", "grown:v1", "tables:v0"],
        ["round:v0", "tables:v0"],
    ]


def test_versions_collections_and_types_are_listed(trip: Facts) -> None:
    assert trip["versions"] == ["v2", "v1", "v0"]
    assert trip["types"] == ["dataset", "table"]
    assert trip["type_by_name"] == "dataset"
    assert sorted(trip["collections"]) == ["grown", "round"]
    assert trip["collection"] == ["round", True]


def test_a_collection_knows_its_aliases(trip: Facts, client: Client) -> None:
    if client.version == "0.23":
        assert "Field is frozen" in trip["aliases"]  # this client freezes what it then sets
    else:
        assert trip["aliases"] == ["best", "latest"]


def test_a_project_is_found_in_any_letters(trip: Facts) -> None:
    """Agents write its name in lower case."""
    assert trip["found_in_other_letters"] == "v1"


def test_what_is_not_there_is_not_found(trip: Facts) -> None:
    assert trip["existence"] == [True, False, True, False]
    assert "not found" in trip["missing"]


def test_a_version_can_be_changed(trip: Facts) -> None:
    assert trip["changed"] == [["gold"], {"k": 1, "more": 2}, "other things"]
    assert trip["tagged"] == ["two"]
    assert trip["kept_for"] == [None, 7]


def test_a_version_can_be_deleted_and_the_one_before_is_the_latest(trip: Facts) -> None:
    assert trip["deleted"] == ["v1", "v0", "v1"]


def test_a_collection_can_be_tagged_retyped_renamed_and_deleted(trip: Facts) -> None:
    assert trip["collection_tagged"] == ["b", "c"]
    assert "thing" in trip["collection_retyped"]
    assert trip["collection_renamed"] == ["square", "a collection"]
    assert trip["collection_deleted"] == []


def test_an_artifact_outlives_its_run(trip: Facts, client: Client) -> None:
    assert trip["outlived"] == "v0"
    if client.version == "0.23":  # this client takes the user who is told instead for a run
        assert "AttributeError" in trip["maker_afterwards"]
    else:
        assert trip["maker_afterwards"] is None


def test_each_content_is_stored_once(trip: Facts, plane: LivePlane) -> None:
    rows = plane.rows(
        "select distinct b.md5 from artifact_blobs b join artifact_files f on f.md5 = b.md5 "
        "where f.name in ('a b%.txt', 'new.txt') and b.present"
    )
    assert len(rows) == 2
