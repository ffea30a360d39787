"""What fuzz tests share: a server that has one of each thing, and what every answer must keep."""

import hashlib
import json
import os
import time
from io import BytesIO
from typing import Any

from artifact_harness import b64
from fuzz_values import ENTITY, PROJECT, RUN, SPEC
from hypothesis import HealthCheck, settings
from launch_harness import Launch
from server_harness import Http, Reply

from client_documents import client_document

MORE = int(os.environ.get("LAUNCH_ASYNC_FUZZ") or 1)
FUZZ = settings(max_examples=40 * MORE, deadline=None, suppress_health_check=list(HealthCheck))
ANSWER_SECONDS = 10
TRACES = (b"Traceback (most", b'File "', b".py\\", b"sqlalchemy", b"asyncpg", b"sqlite3")
ALIVE = "{ viewer { username } }"


def check(status: int, body: bytes, *, asked: Any, began: float) -> None:
    """Check what holds for every answer, taken or refused."""
    shown = f"{asked!r:.3000}"
    assert status < 500, (status, body[:2000], shown)
    assert time.monotonic() - began < ANSWER_SECONDS, shown
    assert not any(trace in body for trace in TRACES), (body[:3000], shown)


class Asked:
    """A GraphQL request, which a report shows the beginning of."""

    def __init__(self, body: Any) -> None:
        self.body = body

    def __repr__(self) -> str:
        return f"{self.body!r:.3000}"


async def ask(http: Http, body: Any) -> Reply:
    """POST a GraphQL request, whatever it is, and check the answer."""
    headers = {"Authorization": f"Bearer {http.server.key}"}
    # In a stream, as aiohttp warns of large bodies that are none.
    data = BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    began = time.monotonic()
    reply = await http.send("POST", "/graphql", data=data, headers=headers)
    check(reply.status, reply.body, asked=body, began=began)
    assert reply.status != 401, f"{body!r:.3000}"  # or what follows would test nothing
    answer = reply.json()
    if reply.status == 200:
        assert isinstance(answer["data"], dict), answer
    else:
        messages = [error["message"] for error in answer["errors"]]
        assert messages, answer
        assert all(isinstance(message, str) and message for message in messages), answer
    return reply


async def still_serves(http: Http) -> None:
    """Check that reads and writes still work."""
    assert (await http.data(ALIVE))["viewer"]["username"] == ENTITY
    reply = await http.stream("after", {"files": {"output.log": {"offset": 0, "content": ["x"]}}})
    assert reply.status == 200


async def seed(http: Http) -> None:
    """Make one or two of each thing; their names are those of fuzz_values."""
    launch = Launch(http)
    variables = {"n": {"schema": {"type": "integer", "default": 1}}}
    await launch.queue(args={"a": "{{n}}"}, variables=variables)
    agent = await launch.agent("q")
    for _ in range(4):
        await launch.push(spec={**SPEC, "job": f"{ENTITY}/p/j:latest"})
    item = await launch.popped_id(agent=agent)
    assert item is not None
    assert await launch.ack(item, RUN)
    await http.data(
        client_document("UpsertBucket.core"),
        entity=ENTITY,
        project=PROJECT,
        name=RUN,
        config='{"a": {"value": 1}}',
        tags=["t"],
    )
    lines = [json.dumps({"_step": step, "x": step, "_timestamp": 1.5}) for step in range(20)]
    blocks = {
        "wandb-history.jsonl": {"offset": 0, "content": lines},
        "wandb-events.jsonl": {"offset": 0, "content": ['{"system.cpu": 1}']},
        "wandb-summary.json": {"offset": 0, "content": ['{"x": 19, "loss": {"min": 0.5}}']},
        "output.log": {"offset": 0, "content": ["2030-01-01T00:00:00 hello", "plain"]},
    }
    assert (await http.stream(RUN, {"files": blocks}, PROJECT)).status == 200
    for run in ("r2", "r3"):
        assert (await http.stream(run, {"complete": True, "exitcode": 1}, PROJECT)).status == 200
    made = await http.data(
        client_document("CreateRunFiles.core"),
        entity=ENTITY,
        project=PROJECT,
        run=RUN,
        files=["f0", "media/a.txt"],
    )
    for file in made["createRunFiles"]["files"]:
        assert (await http.send("PUT", file["uploadUrl"], data=b"some bytes")).status == 200
    await _artifact(http, "c1", b"one")
    await _artifact(http, "c2", b"two")


async def _artifact(http: Http, client_id: str, body: bytes) -> None:
    where = {"entityName": ENTITY, "projectName": PROJECT}
    given = {
        **where,
        "runName": RUN,
        "artifactTypeName": "dataset",
        "artifactCollectionName": "data",
        "digest": hashlib.md5(body, usedforsecurity=False).hexdigest(),
        "aliases": [{"artifactCollectionName": "data", "alias": "latest"}],
        "tags": [{"tagName": "t"}],
        "clientID": client_id,
        "sequenceClientID": "s1",
    }
    made = await http.data(client_document("CreateArtifact.core"), input=given)
    artifact = made["createArtifact"]["artifact"]["id"]
    files = [{"artifactID": artifact, "name": "f0", "md5": b64(body)}]
    placed = await http.data(
        client_document("CreateArtifactFiles.core"),
        input={"artifactFiles": files, "storageLayout": "V2"},
    )
    node = placed["createArtifactFiles"]["files"]["edges"][0]["node"]
    if node["uploadUrl"] is not None:
        assert (await http.send("PUT", node["uploadUrl"], data=body)).status == 200
    contents = {"f0": {"digest": b64(body), "size": len(body), "birthArtifactID": artifact}}
    manifest = json.dumps({"version": 1, "contents": contents}).encode()
    slot = await http.data(
        client_document("CreateArtifactManifest.core"),
        **where,
        artifactID=artifact,
        name="wandb_manifest.json",
        runName=RUN,
        digest=b64(manifest),
        manifestType="FULL",
        includeUpload=True,
    )
    url = slot["createArtifactManifest"]["artifactManifest"]["file"]["uploadUrl"]
    assert (await http.send("PUT", url, data=manifest)).status == 200
    await http.data(client_document("CommitArtifact.core"), artifactID=artifact)
