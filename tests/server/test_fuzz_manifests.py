"""An artifact's manifest is JSON of the client's, and comes where no schema checks it."""

import base64
import json
import secrets
import time
from typing import Any

import pytest
from artifact_harness import ArtifactClient, b64
from fuzz_harness import FUZZ, check
from fuzz_values import JSON_TEXTS, JSON_VALUES, ODD, TEXTS
from hypothesis import given
from hypothesis import strategies as st
from server_harness import Http

from client_documents import client_document
from launch_async.server.ids import encode_id

pytestmark = pytest.mark.anyio

BODY = b"some bytes"
FILES = """query($id: ID!) { artifact(id: $id) {
  state size fileCount files(first: 100) { edges { node { name sizeBytes md5 directUrl } } }
} }"""
ODD_ENTRIES: dict[str, list[Any]] = {
    "digest": [*ODD, "====", base64.b64encode(bytes(15)).decode(), b64(b"never uploaded")],
    "size": [*ODD, 2**50, 2**63, -(2**63), 1e300],
    "ref": [*ODD, "s3://bucket/key", "file:///etc/passwd", "x" * 5000],
    "birthArtifactID": [*ODD, encode_id("Artifact", 1), encode_id("Artifact", 9**17), "===="],
    "extra": [*ODD, {"etag": "\0"}],
    "local_path": ODD,
}


def entries() -> st.SearchStrategy[Any]:
    """Return a strategy of a manifest's entries."""
    good = {"digest": b64(BODY), "size": len(BODY)}
    one = st.fixed_dictionaries(
        {}, optional={key: st.sampled_from(odd) for key, odd in ODD_ENTRIES.items()}
    ).map(lambda odd: {**good, **odd})
    return st.just(good) | one | st.sampled_from(JSON_VALUES)


def manifests() -> st.SearchStrategy[bytes]:
    """Return a strategy of manifests, most of them JSON objects."""
    contents = st.dictionaries(st.sampled_from(["f0", *TEXTS]), entries(), max_size=4)
    whole = st.fixed_dictionaries(
        {"contents": contents},
        optional={"version": st.sampled_from(ODD), "storagePolicyConfig": st.sampled_from(ODD)},
    )
    texts = whole.map(json.dumps) | st.sampled_from([*JSON_TEXTS, '{"contents": []}', "{}"])
    return texts.map(lambda text: text.encode(errors="surrogatepass")) | st.binary(max_size=20)


@FUZZ
@given(manifests())
async def test_any_manifest_is_taken_or_refused(http: Http, manifest: bytes) -> None:
    artifacts = ArtifactClient(http)
    made = await artifacts.create(digest=secrets.token_hex(16))
    (slot,) = await artifacts.place(made["id"], BODY)
    if slot["uploadUrl"] is not None:
        assert (await http.send("PUT", slot["uploadUrl"], data=BODY)).status == 200
    slot = await http.data(
        client_document("CreateArtifactManifest.core"),
        entityName="tester",
        projectName="art",
        artifactID=made["id"],
        name="wandb_manifest.json",
        runName="r1",
        manifestType="FULL",
        digest=b64(manifest),
        includeUpload=True,
    )
    url = slot["createArtifactManifest"]["artifactManifest"]["file"]["uploadUrl"]
    began = time.monotonic()
    put = await http.send("PUT", url, data=manifest)
    check(put.status, put.body, asked=manifest, began=began)
    status, answer = await artifacts.commit(made["id"])
    check(status, json.dumps(answer).encode(), asked=manifest, began=began)
    read = await http.data(FILES, id=made["id"])
    assert read["artifact"]["state"] == ("COMMITTED" if status == 200 else "PENDING")
    for edge in read["artifact"]["files"]["edges"]:
        if (address := edge["node"]["directUrl"]) is not None and address.startswith("http"):
            reply = await http.send("GET", address)
            check(reply.status, reply.body[:1000], asked=manifest, began=began)
