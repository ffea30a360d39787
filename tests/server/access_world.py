"""A team with one of everything, and everybody who may ask for it."""

import base64
import hashlib
import itertools
import json
from collections.abc import Mapping
from typing import Any

import msgspec
from server_harness import Http

from launch_async.server.access import Role
from launch_async.server.ids import encode_id, encode_run_id
from launch_async.server.people import keys_of, set_member
from launch_async.server.users import create_api_key, create_team, create_user

PROJECT = "model-registry"  # queues are looked for here; runs and artifacts may be here too
RUN, OTHER_RUN = "r1", "r2"
BYTES = b"content"
MD5 = hashlib.md5(BYTES, usedforsecurity=False).digest()
NUMBERS = itertools.count(1)

SPEC_JOB = "x/jobs/job:latest"


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What there is in a team, by its names and ids, and the key of each who may ask."""

    entity: str
    """Also the mark by which the team's things are known in an answer."""
    stranger: str
    """Somebody else's own entity."""
    keys: Mapping[str, str | None]
    values: Mapping[str, Any]


async def make_world(http: Http) -> World:
    """Make a team of its own on a server."""
    return await _Builder(http, f"acme{next(NUMBERS)}x").build()


class _Builder:
    def __init__(self, http: Http, entity: str) -> None:
        self.http = http
        self.entity = entity
        self.stranger = f"b-{entity.removeprefix('acme')}"
        self.keys: dict[str, str | None] = {"nobody": None, "operator": http.server.key}
        self.values: dict[str, Any] = {}

    async def build(self) -> World:
        await self._people()
        await self._queues()
        await self._items()
        await self._run()
        await self._artifacts()
        return World(entity=self.entity, stranger=self.stranger, keys=self.keys, values=self.values)

    async def _people(self) -> None:
        async with self.http.server.services.store.write() as connection:
            people = {
                role: await create_user(connection, f"{self.entity}-{role.word}") for role in Role
            }
            team = await create_team(connection, self.entity, admin_user_id=people[Role.ADMIN])
            for role, user in people.items():
                await set_member(connection, team, user, role)
                self.keys[role.word] = await create_api_key(connection, user)
            (key,) = await keys_of(connection, people[Role.MEMBER], limit=1)
            self.values["key_id"] = encode_id("ApiKey", key.id)
            self.values["viewer_id"] = encode_id("User", people[Role.VIEWER])
            stranger = await create_user(connection, self.stranger)
            self.keys["stranger"] = await create_api_key(connection, stranger)

    async def _queues(self) -> None:
        config = await self._done(
            """mutation M($e: String!, $v: JSONString) {
              createDefaultResourceConfig(input: {entityName: $e, resource: "local-process",
                config: "{}", templateVariables: $v}) { defaultResourceConfigID } }""",
            e=self.entity,
            v='{"n": {"schema": {"type": "integer"}}}',
        )
        self.values["config"] = config["defaultResourceConfigID"]
        queue = await self._done(
            """mutation M($e: String!, $p: String!, $c: ID!) {
              createRunQueue(input: {entityName: $e, projectName: $p, queueName: "q",
                access: PROJECT, defaultResourceConfigID: $c}) { queueID } }""",
            e=self.entity,
            p=PROJECT,
            c=self.values["config"],
        )
        self.values["queue"] = queue["queueID"]
        place = await self._done(
            "query Q($e: String!, $p: String!) { project(entityName: $e, name: $p) { id } }",
            e=self.entity,
            p=PROJECT,
        )
        self.values["project_id"] = place["id"]
        agent = await self._done(
            """mutation M($e: String!, $p: String!, $q: ID!) {
              createLaunchAgent(input: {entityName: $e, projectName: $p, runQueues: [$q],
                hostname: "h"}) { launchAgentId } }""",
            "member",
            e=self.entity,
            p=PROJECT,
            q=self.values["queue"],
        )
        self.values["agent"] = agent["launchAgentId"]

    async def _items(self) -> None:
        """One item per state that a mutation asks for; a run's keys come with two of them."""
        spec = {"entity": self.entity, "project": PROJECT, "job": SPEC_JOB}
        self.values["spec"] = json.dumps(spec)
        for _ in range(5):
            pushed = await self._done(
                """mutation M($e: String!, $p: String!, $s: JSONString!) {
                  pushToRunQueueByName(input: {entityName: $e, projectName: $p, queueName: "q",
                    runSpec: $s}) { runQueueItemId } }""",
                e=self.entity,
                p=PROJECT,
                s=self.values["spec"],
            )
        self.values["pending"] = pushed["runQueueItemId"]
        for who, run in (("own_run", RUN), ("other_run", OTHER_RUN)):
            popped = await self._pop()
            self.keys[who] = popped["runSpec"]["_wandb_api_key"]
            self.values[f"item of {run}"] = popped["runQueueItemId"]
            ack = """mutation M($i: ID!, $r: String!) {
              ackRunQueueItem(input: {runQueueItemId: $i, runName: $r}) { success } }"""
            await self._done(ack, "member", i=popped["runQueueItemId"], r=run)
        self.values["ended"] = (await self._pop())["runQueueItemId"]
        await self._done(
            """mutation M($i: ID!) { failRunQueueItem(input: {runQueueItemId: $i, message: "m",
              stage: "run"}) { success } }""",
            "member",
            i=self.values["ended"],
        )
        self.values["leased"] = (await self._pop())["runQueueItemId"]
        await self._done(
            """mutation M($i: ID!) { updateRunQueueItemWarning(input: {runQueueItemId: $i,
              message: "w", stage: "run"}) { success } }""",
            "member",
            i=self.values[f"item of {RUN}"],
        )

    async def _pop(self) -> dict[str, Any]:
        return await self._done(
            """mutation M($e: String!, $p: String!, $a: ID!) {
              popFromRunQueue(input: {entityName: $e, projectName: $p, queueName: "q",
                launchAgentId: $a}) { runQueueItemId runSpec } }""",
            "member",
            e=self.entity,
            p=PROJECT,
            a=self.values["agent"],
        )

    async def _run(self) -> None:
        for who, run in (("own_run", RUN), ("other_run", OTHER_RUN)):
            upsert = """mutation M($e: String!, $p: String!, $r: String!) {
              upsertBucket(input: {entityName: $e, modelName: $p, name: $r}) { inserted } }"""
            await self._done(upsert, who, e=self.entity, p=PROJECT, r=run)
        self.values["run"] = encode_run_id(RUN, PROJECT, self.entity)
        body = {
            "files": {
                "wandb-history.jsonl": {"content": ['{"a":1,"_step":0}']},
                "output.log": {"content": ["2026-11-22T14:51:36.686115 hello"]},
            }
        }
        path = f"/files/{self.entity}/{PROJECT}/{RUN}/file_stream"
        headers = {"Authorization": f"Bearer {self.keys['own_run']}"}
        assert (await self.http.send("POST", path, json=body, headers=headers)).status == 200
        await self._done(
            """mutation M($e: String!, $p: String!, $r: String!) {
              notifyScriptableRunAlert(input: {entityName: $e, projectName: $p, runName: $r,
                title: "t", text: "x"}) { success } }""",
            "own_run",
            e=self.entity,
            p=PROJECT,
            r=RUN,
        )
        made = await self._done(
            """mutation M($e: String!, $p: String!, $r: String!) {
              createRunFiles(input: {entityName: $e, projectName: $p, runName: $r,
                files: ["f.txt", "wandb-metadata.json"]}) { files { id uploadUrl } } }""",
            "own_run",
            e=self.entity,
            p=PROJECT,
            r=RUN,
        )
        file, metadata = made["files"]
        await self._put(file["uploadUrl"], BYTES)
        await self._put(metadata["uploadUrl"], b'{"git": {"remote": "r", "commit": "c"}}')
        self.values["file"] = file["id"]

    async def _artifacts(self) -> None:
        """A committed version, and one whose commit is all that it lacks."""
        for name, digest in (("artifact", "d" * 32), ("uploaded", "e" * 32)):
            self.values[name] = await self._upload(digest, client_id=f"{self.entity}-{name}")
        commit = """mutation M($a: ID!) { commitArtifact(input: {artifactID: $a}) {
          artifact { artifactSequence { id } } } }"""
        committed = await self._done(commit, "own_run", a=self.values["artifact"])
        self.values["collection"] = committed["artifact"]["artifactSequence"]["id"]
        await self._done(
            """mutation M($a: ID!, $e: String!, $p: String!, $r: String!) {
              useArtifact(input: {artifactID: $a, entityName: $e, projectName: $p, runName: $r})
              { artifact { id } } }""",
            "own_run",
            a=self.values["artifact"],
            e=self.entity,
            p=PROJECT,
            r=RUN,
        )
        await self._done(
            """mutation M($a: ID!) { updateArtifact(input: {artifactID: $a,
              tagsToAdd: [{tagName: "t"}]}) { artifact { id } } }""",
            "own_run",
            a=self.values["artifact"],
        )

        await self._links()

    async def _links(self) -> None:
        """A portfolio with a link, and a file whose parts only have to be joined."""
        linked = await self._done(
            """mutation M($a: ID!) { linkArtifact(input: {artifactID: $a,
              artifactPortfolioName: "links"})
              { artifactMembership { artifactCollection { id } } } }""",
            "own_run",
            a=self.values["artifact"],
        )
        self.values["portfolio"] = linked["artifactMembership"]["artifactCollection"]["id"]
        await self._done(
            """mutation M($e: String!, $p: String!) {
              createArtifactCollectionTagAssignments(input: {entityName: $e, projectName: $p,
                artifactCollectionName: "links", tags: [{tagName: "t"}]}) { tags { id } } }""",
            e=self.entity,
            p=PROJECT,
        )
        body = self.entity.encode()
        md5 = hashlib.md5(body, usedforsecurity=False)
        placed = await self._done(
            """mutation M($a: ID!, $m: String!, $h: String!) {
              createArtifactFiles(input: {artifactFiles: [{artifactID: $a, name: "big", md5: $m,
                uploadPartsInput: [{partNumber: 1, hexMD5: $h}]}]})
              { files { edges { node { storagePath uploadMultipartUrls {
                uploadID uploadUrlParts { uploadUrl } } } } } } }""",
            "own_run",
            a=self.values["uploaded"],
            m=base64.b64encode(md5.digest()).decode(),
            h=md5.hexdigest(),
        )
        node = placed["files"]["edges"][0]["node"]
        upload = node["uploadMultipartUrls"]
        await self._put(upload["uploadUrlParts"][0]["uploadUrl"], body)
        self.values |= {"storage_path": node["storagePath"], "upload": upload["uploadID"]}
        self.values["part"] = md5.hexdigest()

    async def _upload(self, digest: str, *, client_id: str) -> str:
        made = await self._done(
            """mutation M($e: String!, $p: String!, $r: String!, $d: String!, $c: ID!) {
              createArtifact(input: {entityName: $e, projectName: $p, runName: $r, digest: $d,
                artifactTypeName: "dataset", artifactCollectionName: "data", clientID: $c,
                aliases: [{artifactCollectionName: "data", alias: "latest"}]})
              { artifact { id } } }""",
            "own_run",
            e=self.entity,
            p=PROJECT,
            r=RUN,
            d=digest,
            c=client_id,
        )
        artifact: str = made["artifact"]["id"]
        md5 = base64.b64encode(MD5).decode()
        placed = await self._done(
            """mutation M($a: ID!, $m: String!) {
              createArtifactFiles(input: {artifactFiles: [{artifactID: $a, name: "f", md5: $m}]})
              { files { edges { node { uploadUrl } } } } }""",
            "own_run",
            a=artifact,
            m=md5,
        )
        url = placed["files"]["edges"][0]["node"]["uploadUrl"]
        if url is not None:
            await self._put(url, BYTES)
        body = json.dumps({"contents": {"f": {"digest": md5, "size": len(BYTES)}}}).encode()
        manifest = await self._done(
            """mutation M($a: ID!, $d: String!) {
              createArtifactManifest(input: {artifactID: $a, name: "wandb_manifest.json",
                digest: $d}) { artifactManifest { id file { uploadUrl } } } }""",
            "own_run",
            a=artifact,
            d=base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
        )
        self.values["manifest"] = manifest["artifactManifest"]["id"]
        await self._put(manifest["artifactManifest"]["file"]["uploadUrl"], body)
        return artifact

    async def _put(self, url: str, body: bytes) -> None:
        assert (await self.http.send("PUT", url, data=body)).status == 200

    async def _done(self, query: str, who: str = "admin", **variables: Any) -> Any:
        """Ask as one of the team; return what the one field of the answer holds."""
        reply = await self.http.ask(query, self.keys[who], **variables)
        answer = reply.json()
        assert reply.status == 200, answer
        (value,) = answer["data"].values()
        return value
