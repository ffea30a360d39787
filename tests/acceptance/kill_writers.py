"""Clients that write while their server is killed, and the ledger of what it acknowledged.

They behave as wandb-core does: a request is repeated until it is acknowledged, whatever became of
its earlier tries, and a refusal is final.
"""

import base64
import hashlib
import json
import random
from typing import Any

import aiohttp
import anyio
import msgspec

ENTITY = "local"
PROJECT = "killed"
WHERE = {"entityName": ENTITY, "projectName": PROJECT}
QUEUES = {"entityName": ENTITY, "projectName": "model-registry", "queueName": "q"}
REFUSALS = frozenset({400, 401, 403, 404, 409, 410, 413, 422, 501})
PAUSE_SECONDS = (0.02, 0.1)  # wandb-core waits for seconds, but its server lives longer than ours
TRY_SECONDS = 10
MAX_LINES = 5
UPLOADERS = 2  # of the runs; their config changes too
FILE_NAMES = 20  # so that most uploads replace an earlier one
MAX_FILE_BYTES = 300_000

UPSERT_BUCKET = "($input: UpsertBucketInput!) { upsertBucket(input: $input) { bucket { id } } }"
CREATE_RUN_FILES = """($input: CreateRunFilesInput!) {
  createRunFiles(input: $input) { files { uploadUrl } } }"""
CREATE_ARTIFACT = """($input: CreateArtifactInput!) {
  createArtifact(input: $input) { artifact { id state } } }"""
CREATE_ARTIFACT_FILES = """($input: CreateArtifactFilesInput!) {
  createArtifactFiles(input: $input) { files { edges { node { uploadUrl } } } } }"""
CREATE_MANIFEST = """($input: CreateArtifactManifestInput!) {
  createArtifactManifest(input: $input) { artifactManifest { file { uploadUrl } } } }"""
COMMIT_ARTIFACT = (
    "($input: CommitArtifactInput!) { commitArtifact(input: $input) { artifact { id } } }"
)
ADD_ALIASES = "($input: AddAliasesInput!) { addAliases(input: $input) { success } }"
UPSERT_QUEUE = "($input: UpsertRunQueueInput!) { upsertRunQueue(input: $input) { queueID } }"
CREATE_AGENT = """($input: CreateLaunchAgentInput!) {
  createLaunchAgent(input: $input) { launchAgentId } }"""
PUSH = """($input: PushToRunQueueByNameInput!) {
  pushToRunQueueByName(input: $input) { runQueueItemId } }"""
POP = "($input: PopFromRunQueueInput!) { popFromRunQueue(input: $input) { runQueueItemId } }"
ACK = "($input: AckRunQueueItemInput!) { ackRunQueueItem(input: $input) { success } }"
FAIL = "($input: FailRunQueueItemInput!) { failRunQueueItem(input: $input) { success } }"


class ToldRun(msgspec.Struct):
    """What the server acknowledged of one run."""

    history: list[str] = []
    console: list[str] = []
    events: list[str] = []
    summary: dict[str, Any] = {}
    config: dict[str, Any] = {}
    files: dict[str, bytes] = {}


class Ledger(msgspec.Struct):
    """What the server acknowledged."""

    runs: dict[str, ToldRun] = {}
    versions: dict[str, dict[str, bytes]] = {}
    aliases: dict[str, str] = {}
    pushed: set[str] = set()
    claimed: dict[str, str] = {}
    ended: dict[str, str] = {}

    def counts(self) -> dict[str, int]:
        """Return how many things of each kind there are."""
        told = self.runs.values()
        return {
            "history lines": sum(len(run.history) for run in told),
            "console lines": sum(len(run.console) for run in told),
            "files": sum(len(run.files) for run in told),
            "artifact versions": len(self.versions),
            "aliases": len(self.aliases),
            "pushes": len(self.pushed),
            "claims": len(self.claimed),
            "ends of items": len(self.ended),
        }


class Client:
    """Sends until the server acknowledges."""

    def __init__(self, session: aiohttp.ClientSession, *, url: str, key: str) -> None:
        self._session = session
        self._chance = seeded(url)
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"}
        self.acknowledged = 0
        self.cut = 0
        """How many requests were under way when the server died."""
        self._news = anyio.Event()

    async def send(self, method: str, address: str, **options: Any) -> bytes:
        """Return the body of the answer that acknowledges the request."""
        url = address if address.startswith("http") else self._url + address
        headers = self._headers if url != address else {}  # a signed address needs no key
        while True:
            try:
                async with self._session.request(method, url, headers=headers, **options) as answer:
                    body = await answer.read()
            except aiohttp.ClientConnectorError:
                pass  # between two lives
            except (aiohttp.ClientError, TimeoutError):
                self.cut += 1
            else:
                if answer.status < 300:
                    self.acknowledged += 1
                    self._news.set()
                    return body
                assert answer.status not in REFUSALS, (method, address, body)
            await anyio.sleep(self._chance.uniform(*PAUSE_SECONDS))

    async def hears(self, count: int) -> None:
        """Wait for so many more acknowledgements, whoever gets them."""
        enough = self.acknowledged + count
        while self.acknowledged < enough:
            self._news = anyio.Event()
            await self._news.wait()

    async def change(self, mutation: str, **given: Any) -> Any:
        """Return what a mutation of one field answers."""
        body = {"query": f"mutation{mutation}", "variables": {"input": given}}
        answer = json.loads(await self.send("POST", "/graphql", json=body))
        (data,) = answer["data"].values()
        return data

    async def ask(self, query: str, **variables: Any) -> Any:
        """Return the data of a query."""
        body = {"query": query, "variables": variables}
        return json.loads(await self.send("POST", "/graphql", json=body))["data"]

    async def stream(self, run: str, body: dict[str, Any]) -> None:
        """Tell of a run."""
        await self.send("POST", f"/files/{ENTITY}/{PROJECT}/{run}/file_stream", json=body)


class Writers:
    """Everyone who writes, until `calm`; each ends by itself."""

    def __init__(self, client: Client, *, seed: int) -> None:
        self._client = client
        self._seed = seed
        self.ledger = Ledger()
        self.calm = False

    async def write(self, *, runs: int = 8, agents: int = 3) -> None:
        """Write until all is calm and everything that was begun is acknowledged."""
        queue = {**QUEUES, "resourceType": "local-process", "resourceConfig": "{}"}
        made = await self._client.change(UPSERT_QUEUE, **queue)
        async with anyio.create_task_group() as tasks:
            for number in range(runs):
                tasks.start_soon(
                    self._live_run, f"run{number}", number < UPLOADERS, name=f"run {number}"
                )
            for number in range(2):
                tasks.start_soon(self._log_artifacts, f"data{number}", name=f"artifacts {number}")
            tasks.start_soon(self._push, name="pusher")
            for number in range(agents):
                tasks.start_soon(
                    self._agent, f"agent{number}", made["queueID"], name=f"agent {number}"
                )

    async def _live_run(self, name: str, uploads: bool) -> None:
        run = self.ledger.runs[name] = ToldRun()
        await self._configure_once(name, run)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tell, name, run, name=f"file stream of {name}")
            if uploads:
                tasks.start_soon(self._configure, name, run, name=f"config of {name}")
                tasks.start_soon(self._upload, name, run, name=f"files of {name}")
        await self._client.stream(name, {"complete": True, "exitcode": 0})

    async def _tell(self, name: str, run: ToldRun) -> None:
        chance = seeded(self._seed, f"lines of {name}")
        while not self.calm:
            history, console, events = list(run.history), list(run.console), list(run.events)
            blocks = {}
            first = len(history)
            history += [
                json.dumps({"_step": step, "x": chance.random()})
                for step in range(first, first + chance.randint(1, MAX_LINES))
            ]
            blocks["wandb-history.jsonl"] = {"offset": first, "content": history[first:]}
            first = max(0, len(console) - chance.randint(0, 1))  # a progress bar rewrites its line
            del console[first:]
            console += [f"{name} {chance.random()}" for _ in range(chance.randint(1, MAX_LINES))]
            blocks["output.log"] = {"offset": first, "content": console[first:]}
            if chance.random() < 0.3:
                events.append(json.dumps({"system.cpu": chance.random()}))
                blocks["wandb-events.jsonl"] = {"offset": len(run.events), "content": events[-1:]}
            summary = {"x": chance.random(), "lines": len(history)}
            blocks["wandb-summary.json"] = {"offset": 0, "content": [json.dumps(summary)]}
            await self._client.stream(name, {"files": blocks})
            run.history, run.console, run.events, run.summary = history, console, events, summary

    async def _configure(self, name: str, run: ToldRun) -> None:
        while not self.calm:
            await self._configure_once(name, run)

    async def _configure_once(self, name: str, run: ToldRun) -> None:
        count = run.config.get("count", {"value": 0})["value"] + 1
        config = {"count": {"value": count}, "name": {"value": name}}
        await self._client.change(
            UPSERT_BUCKET,
            name=name,
            entityName=ENTITY,
            modelName=PROJECT,
            config=json.dumps(config),
        )
        run.config = config

    async def _upload(self, name: str, run: ToldRun) -> None:
        chance = seeded(self._seed, f"files of {name}")
        while not self.calm:
            file = f"folder/{chance.randrange(FILE_NAMES)}.bin"
            body = chance.randbytes(chance.randint(0, MAX_FILE_BYTES))
            made = await self._client.change(CREATE_RUN_FILES, **WHERE, runName=name, files=[file])
            await self._client.send("PUT", made["files"][0]["uploadUrl"], data=body)
            run.files[file] = body

    async def _log_artifacts(self, name: str) -> None:
        chance = seeded(self._seed, name)
        versions: list[str] = []
        while not self.calm:
            files = {f"f{n}": chance.randbytes(chance.randint(1, 50_000)) for n in range(3)}
            artifact = await self._log_artifact(name, files)
            self.ledger.versions[artifact] = files
            versions.append(artifact)
            chosen = chance.choice(versions)
            alias = f"{name}-{chance.randrange(3)}"
            await self._client.change(
                ADD_ALIASES,
                artifactID=chosen,
                aliases=[{**WHERE, "artifactCollectionName": name, "alias": alias}],
            )
            self.ledger.aliases[alias] = chosen

    async def _log_artifact(self, name: str, files: dict[str, bytes]) -> str:
        change = self._client.change
        digest = hashlib.md5(repr(files).encode(), usedforsecurity=False).hexdigest()
        made = await change(
            CREATE_ARTIFACT,
            **WHERE,
            artifactTypeName="dataset",
            artifactCollectionName=name,
            digest=digest,
            enableDigestDeduplication=True,
        )
        artifact: str = made["artifact"]["id"]
        placed = await change(
            CREATE_ARTIFACT_FILES,
            artifactFiles=[
                {"artifactID": artifact, "name": file, "md5": _md5(body)}
                for file, body in files.items()
            ],
            storageLayout="V2",
        )
        for edge, body in zip(placed["files"]["edges"], files.values(), strict=True):
            if edge["node"]["uploadUrl"] is not None:
                await self._client.send("PUT", edge["node"]["uploadUrl"], data=body)
        contents = {
            file: {"digest": _md5(body), "size": len(body), "birthArtifactID": artifact}
            for file, body in files.items()
        }
        manifest = json.dumps({"version": 1, "contents": contents}).encode()
        slot = await change(
            CREATE_MANIFEST,
            **WHERE,
            artifactID=artifact,
            name="wandb_manifest.json",
            digest=_md5(manifest),
            type="FULL",
        )
        await self._client.send("PUT", slot["artifactManifest"]["file"]["uploadUrl"], data=manifest)
        await change(COMMIT_ARTIFACT, artifactID=artifact)
        return artifact

    async def _push(self) -> None:
        spec = {
            "entity": ENTITY,
            "project": PROJECT,
            "resource": None,
            "job": "local/jobs/j:latest",
        }
        while not self.calm:
            pushed = await self._client.change(PUSH, **QUEUES, runSpec=json.dumps(spec))
            self.ledger.pushed.add(pushed["runQueueItemId"])

    async def _agent(self, name: str, queue: str) -> None:
        ledger, change = self.ledger, self._client.change
        chance = seeded(self._seed, name)
        where = {"entityName": ENTITY, "projectName": "model-registry"}
        made = await change(CREATE_AGENT, **where, runQueues=[queue], hostname=name)
        number = 0
        while not self.calm:
            popped = await change(POP, **QUEUES, launchAgentId=made["launchAgentId"])
            if popped is None:
                await anyio.sleep(PAUSE_SECONDS[0])
                continue
            item, run, number = popped["runQueueItemId"], f"{name}-{number}", number + 1
            acked = await change(ACK, runQueueItemId=item, runName=run)
            assert acked["success"], (item, run)
            assert item not in ledger.claimed, f"{item} went to {ledger.claimed[item]} and to {run}"
            ledger.claimed[item] = run
            end = chance.choice(["FAILED", "FINISHED", None])
            if end == "FAILED":
                await change(FAIL, runQueueItemId=item, message=run, stage="run", filePaths=[])
            elif end == "FINISHED":
                await self._client.stream(run, {"complete": True, "exitcode": 0})
            if end is not None:
                ledger.ended[item] = end


def seeded(*seed: int | str) -> random.Random:
    """Return chances that are the same for the same seed."""
    return random.Random(" ".join(str(part) for part in seed))  # noqa: S311


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
