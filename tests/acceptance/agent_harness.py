"""Our agent as a user starts it, on a server of its own."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from programs import ControlPlane, Program, Shell, pause_seconds

ITEM = """query Item($entity: String!, $queue: String!, $item: ID!) {
  project(name: "model-registry", entityName: $entity) { runQueue(name: $queue) {
    runQueueItem(id: $item) { state associatedRunId message stage filePaths agentName }
  } }
}"""
ITEMS = """query Items($entity: String!, $queue: String!) {
  project(name: "model-registry", entityName: $entity) { runQueue(name: $queue) {
    runQueueItems(first: 1000) { edges { node { id } } }
  } }
}"""
RUN = """query Run($entity: String!, $project: String!, $run: String!) {
  project(name: $project, entityName: $entity) { run(name: $run) {
    state config summaryMetrics historyLineCount logLineCount stopped
    logLines(last: 1000) { edges { node { line } } }
    files(first: 100) { edges { node { name directUrl } } }
  } }
}"""
PUSH = """mutation Push($entity: String!, $queue: String!, $spec: JSONString!) {
  pushToRunQueueByName(input: {
    entityName: $entity, projectName: "model-registry", queueName: $queue, runSpec: $spec
  }) { runQueueItemId }
}"""
UPSERT_QUEUE = """mutation Upsert($entity: String!, $queue: String!, $type: String!) {
  upsertRunQueue(input: {
    entityName: $entity, projectName: "model-registry", queueName: $queue, resourceType: $type,
    resourceConfig: "{}"
  }) { success }
}"""
ENDED = {"FINISHED", "FAILED", "STOPPED"}
PROJECT = "target"


class Fleet:
    """A server, an agent's shell, and what is asked of both."""

    def __init__(self, control_plane: ControlPlane, shell: Shell) -> None:
        self.control_plane = control_plane
        self.shell = shell
        self.entity = control_plane.entity

    def make_queue(self, name: str, resource: str) -> None:
        ask = self.control_plane.ask
        ask(UPSERT_QUEUE, entity=self.entity, queue=name, type=resource)

    def make_code_job(self, name: str, script: str, requirements: str = "") -> str:
        """Create a job with the real CLI; its reference."""
        self.shell.write(f"{name}/main.py", script)
        self.shell.write(f"{name}/requirements.txt", requirements)
        words = ["--project", "jobs", "--entity", self.entity, "--name", name]
        entry = ["--entry-point", "python main.py"]
        self.shell.run("wandb", "job", "create", *words, *entry, "code", f"./{name}")
        return f"{self.entity}/jobs/{name}:latest"

    def push(self, queue: str, **spec: Any) -> str:
        whole = {"entity": self.entity, "project": PROJECT, "resource": None} | spec
        answer = self.control_plane.ask(
            PUSH, entity=self.entity, queue=queue, spec=json.dumps(whole)
        )
        return answer["pushToRunQueueByName"]["runQueueItemId"]

    def item(self, queue: str, item: str) -> dict[str, Any]:
        answer = self.control_plane.ask(ITEM, entity=self.entity, queue=queue, item=item)
        return answer["project"]["runQueue"]["runQueueItem"]

    def items(self, queue: str) -> list[str]:
        """All items of a queue, by id."""
        answer = self.control_plane.ask(ITEMS, entity=self.entity, queue=queue)
        edges = answer["project"]["runQueue"]["runQueueItems"]["edges"]
        return [edge["node"]["id"] for edge in edges]

    def wait_for_item(
        self, queue: str, item: str, states: set[str], *, within_seconds: float = 90
    ) -> dict[str, Any]:
        begin = time.monotonic()
        while (found := self.item(queue, item))["state"] not in states:
            waited = time.monotonic() - begin
            assert waited < within_seconds, f"not {states} within {within_seconds} s: {found}"
            time.sleep(pause_seconds(waited))
        return found

    def run(self, run: str, project: str = PROJECT) -> dict[str, Any] | None:
        answer = self.control_plane.ask(RUN, entity=self.entity, project=project, run=run)
        return (answer["project"] or {}).get("run")

    def file_of(self, run: str, path: str, project: str = "model-registry") -> str:
        """The content of a run's file."""
        found = self.run(run, project)
        assert found is not None
        nodes = [edge["node"] for edge in found["files"]["edges"]]
        url = next(node["directUrl"] for node in nodes if node["name"] == path)
        with urllib.request.urlopen(url, timeout=10) as reply:  # noqa: S310 (our own address)
            return reply.read().decode()

    @contextmanager
    def agent(self, config: str, *words: str) -> Iterator["RunningAgent"]:
        """An agent while the block lasts."""
        self.shell.write("launch-config.yaml", config)
        program = self.shell.start("launch-async", "agent", "-c", "launch-config.yaml", *words)
        admin = program.wait_for(r'"url": "(http://[^"]+)", "event": "admin endpoint"')[1]
        program.wait_for("agent registered")
        try:
            yield RunningAgent(program, admin)
        finally:
            program.end()


class RunningAgent:
    """An agent's process and its admin endpoint."""

    def __init__(self, program: Program, admin: str) -> None:
        self.program = program
        self.admin = admin

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.admin + path, timeout=10) as reply:  # noqa: S310
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def status(self) -> dict[str, Any]:
        return json.loads(self.get("/status")[1])

    def wait_for_status(self, name: str, value: object, *, within_seconds: float = 60) -> None:
        begin = time.monotonic()
        while (status := self.status())[name] != value:
            waited = time.monotonic() - begin
            assert waited < within_seconds, f"{name} never {value}: {status}"
            time.sleep(pause_seconds(waited))


class StatusReader:
    """Reads `/status` all the while, in a thread of its own."""

    def __init__(self, agent: RunningAgent) -> None:
        self.samples: list[dict[str, int]] = []
        self._agent = agent
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "StatusReader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._stop.wait(0.05):
            queues = self._agent.status()["queues"]
            self.samples.append({queue["name"]: queue["items"] for queue in queues})
