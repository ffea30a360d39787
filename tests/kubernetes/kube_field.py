"""Where faults strike runs on Kubernetes: a server, an agent behind the proxy, and a witness.

```
server --- agent --- ApiProxy (faults, counts) --- API server --- Audit (saw everything)
                                                       |
                                       nodes without containers, and a real one
```

The proxy is also between the agent and its cluster in each further life of the agent. Nothing here
holds the cluster: a test asks for `cluster_share` or `cluster_alone`, what is between tests may
find it stopped and started again.
"""

import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent_harness import ENDED, RunningAgent
from api_proxy import ApiProxy, api_proxy
from cluster_tools import Cluster, Kwok, Refused, has_condition, sharing, wait_until
from kube_audit import Audit, label_of
from kube_fleet import KubeFleet, kube_fleet

IMAGE = "registry.example/team/image:1"
"""Nobody pulls it: kwok's nodes have no containers."""
CALLS_PER_SECOND = 100
"""The agent's budget; as many may come at once after a quiet time."""
WARNINGS = """query Warnings($entity: String!, $queue: String!, $item: ID!) {
  project(name: "model-registry", entityName: $entity) { runQueue(name: $queue) {
    runQueueItem(id: $item) { warnings { message } }
  } }
}"""
_numbers = itertools.count(1)


class Field:
    """One namespace, one queue on kwok's nodes and one on real ones, one state folder."""

    def __init__(
        self,
        fleet: KubeFleet,
        *,
        proxy: ApiProxy,
        audit: Audit,
        kwok: Kwok,
        namespace: str,
        folder: Path,
    ) -> None:
        self.fleet = fleet
        self.cluster = fleet.cluster
        self.proxy = proxy
        self.audit = audit
        self.namespace = namespace
        self.folder = folder
        self.state_dir = folder / "state"
        self.watched = f"/{namespace}/(jobs|pods)$"
        """What the agent lists and watches, for the proxy's faults."""
        self.queue, self.real_queue = namespace, f"{namespace}-real"
        self._kwok = kwok
        self._queues: dict[str, str] = {}
        for queue, pod in ((self.queue, kwok.pod()), (self.real_queue, {})):
            self.fleet.make_kube_queue(queue, self._args(pod))

    def _args(self, pod: dict[str, Any]) -> dict[str, Any]:
        container = {"name": "main", "resources": {"requests": {"cpu": "1m"}}}
        spec = {"terminationGracePeriodSeconds": 1, "containers": [container], **pod}
        return {
            "metadata": {"namespace": self.namespace},
            "spec": {"backoffLimit": 0, "template": {"spec": spec}},
        }

    def run(self, *, exit_code: int = 3, runs_for: str = "600s", **play: Any) -> str:
        """Push an item whose pod goes like this, as `Kwok.play`; its id."""
        told = self._kwok.play(exit_code=exit_code, runs_for=runs_for, **play)
        template = {"metadata": {"annotations": told}}
        return self.push(self.queue, {"template": template})

    def push(self, queue: str, spec: dict[str, Any], image: str = IMAGE) -> str:
        item = self.fleet.push(
            queue,
            docker={"docker_image": image},
            resource="kubernetes",
            resource_args={"kubernetes": {"spec": spec}},
        )
        self._queues[item] = queue
        return item

    @contextmanager
    def life(self, *, kubeconfig: Path | None = None, **agent: Any) -> Iterator[RunningAgent]:
        """One life of the field's agent; it may be killed in the block."""
        with self.fleet.agent(self.config(kubeconfig=kubeconfig, **agent)) as running:
            try:
                yield running
            finally:
                print(running.program.output)  # noqa: T201 - shown with a failure

    def config(self, *, kubeconfig: Path | None = None, max_jobs: int = -1, **agent: Any) -> str:
        """The agent's configuration; `agent` has more of its section."""
        ours = {
            "state_dir": str(self.state_dir),
            "admin": "127.0.0.1:0",
            "poll": 0.2,
            "poll_max": 0.3,
            "heartbeat": 0.5,
            "waiting": 64,
            "grace": 1,
            "kubernetes": {
                "config_file": str(kubeconfig or self.kubeconfig),
                "namespaces": [self.namespace],
                "calls_per_second": CALLS_PER_SECOND,
                "burst": CALLS_PER_SECOND,
            },
        }
        queues = [self.queue, self.real_queue]
        return json.dumps({"max_jobs": max_jobs, "queues": queues, "agent": ours | agent})

    @property
    def kubeconfig(self) -> Path:
        return self.proxy.write_kubeconfig(self.folder / "kubeconfig", namespace=self.namespace)

    def item(self, item: str) -> dict[str, Any]:
        return self.fleet.item(self._queues.get(item, self.queue), item)

    def end_of(self, item: str, *, within_seconds: float = 40.0) -> dict[str, Any]:
        queue = self._queues.get(item, self.queue)
        return self.fleet.wait_for_item(queue, item, ENDED, within_seconds=within_seconds)

    def warnings(self, item: str) -> list[str]:
        """What the item's user was warned of."""
        queue = self._queues.get(item, self.queue)
        ask = self.fleet.control_plane.ask
        said = ask(WARNINGS, entity=self.fleet.entity, queue=queue, item=item)
        found = said["project"]["runQueue"]["runQueueItem"]["warnings"]
        return [one["message"] for one in found]

    def wait_until_running(self, *items: str, within_seconds: float = 60.0) -> None:
        """By the cluster's word; the first may have ended again before the last one runs."""
        begun = {"Running", "Failed", "Succeeded"}

        def all_begun() -> bool:
            return all(begun & set(self.audit.phases(item)) for item in items)

        assert self.audit.wait_for(all_begun, within_seconds=within_seconds), "they do not run"

    def wait_until_over(self, *items: str, within_seconds: float = 60.0) -> None:
        """By the cluster's word, whatever the agent knows of it."""

        def all_over() -> bool:
            return all({"Failed", "Succeeded"} & set(self.audit.phases(item)) for item in items)

        assert self.audit.wait_for(all_over, within_seconds=within_seconds), "they go on"

    def wait_until_told_over(self, *items: str, within_seconds: float = 120.0) -> None:
        """Until the cluster says of their Jobs that they are over: its controllers may take long
        to come back themselves."""

        def over(path: str) -> bool:
            with suppress(OSError, Refused):
                job = self.cluster.get(path)
                return has_condition(job, "Complete") or has_condition(job, "Failed")
            return False

        jobs = [self.job(item) for item in items]
        wait_until(
            lambda: all(map(over, jobs)), seconds=within_seconds, what=lambda: "their Jobs go on"
        )

    def wait_for_watches(self) -> None:
        """Jobs and pods are watched."""
        wait_until(lambda: self.proxy.streams >= 2)

    def pod(self, item: str) -> str:
        """The name of the item's youngest pod."""
        pods = self.audit.pods[label_of(item)].values()
        name: str = max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])["metadata"][
            "name"
        ]
        return name

    def job(self, item: str) -> str:
        """The path of the item's Job."""
        pods = self.audit.pods[label_of(item)].values()
        [name] = {pod["metadata"]["labels"]["job-name"] for pod in pods}
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{name}"

    def queued_since(self, known: Sequence[str]) -> list[str]:
        """Items that the queue of kwok's nodes has beside these and those that were pushed."""
        return [
            one
            for one in self.fleet.items(self.queue)
            if one not in known and one not in self._queues
        ]

    def successor(self, item: str, known: Sequence[str]) -> str:
        """The item that an item of the same queue was queued again as."""
        [after] = wait_until(lambda: self.queued_since(known), what=lambda: f"{item} has none")
        self._queues[after] = self.queue
        return after

    def end_pod(self, item: str, *, exit_code: int) -> None:
        """Make it end, as its node tells of it."""
        ended = {"exitCode": exit_code, "reason": "Error", "finishedAt": _now()}
        status = {
            "phase": "Failed" if exit_code else "Succeeded",
            "containerStatuses": [
                {
                    "name": "main",
                    "image": IMAGE,
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"terminated": ended},
                }
            ],
        }
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.pod(item)}/status"
        self.cluster.call("PATCH", path, {"status": status}, kind="merge-patch+json")

    def evict(self, item: str) -> None:
        """As who drains a node does."""
        pod = self.pod(item)
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        meta = {"name": pod, "namespace": self.namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
        self.cluster.call("POST", path, body)

    def assert_made_once(self, items: Sequence[str]) -> None:
        """I1: one Job, one pod, whatever happened to who asked for them."""
        jobs = {item: len(self.audit.jobs[label_of(item)]) for item in items}
        pods = {item: len(self.audit.pods[label_of(item)]) for item in items}
        assert jobs == pods == dict.fromkeys(items, 1)

    def assert_settled(self, agent: RunningAgent, *, within_seconds: float = 30.0) -> None:
        """I3, I4 and I6: no slot is held, no Secret is left, and no key is in what is left."""
        agent.wait_for_status("items", [], within_seconds=within_seconds)
        status = agent.status()
        assert status["drift"] == 0
        assert all(not limit["used"] for limit in status["limits"]), status["limits"]
        root = f"/api/v1/namespaces/{self.namespace}"
        self.assert_no_secrets()
        key = self.fleet.control_plane.key
        jobs = self.cluster.get(f"/apis/batch/v1/namespaces/{self.namespace}/jobs")["items"]
        assert key not in json.dumps([jobs, self.cluster.get(f"{root}/pods")])
        assert key not in agent.program.output

    def assert_no_secrets(self) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/secrets"
        wait_until(lambda: not self.cluster.get(path)["items"], what=lambda: "Secrets are left")

    def wait_for_readiness(self, agent: RunningAgent, *, ready: bool) -> str:
        """What the backends' checks say."""
        shown: list[str] = [""]

        def look() -> bool:
            said = agent.get("/readyz?verbose")[1]
            shown[0] = "\n".join(line for line in said.splitlines() if "backend/kube" in line)
            return ("[-]" not in shown[0]) == ready

        wait_until(look, what=lambda: f"readyz stayed {shown[0]}")
        return shown[0]


class Told:
    """What an agent's log says from now on."""

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent
        self._from = len(agent.program.output)

    def count(self, words: str) -> int:
        return self._agent.program.output[self._from :].count(words)

    def reason_of(self, item: str) -> str | None:
        """How the agent calls the item's end; None: it has not ended."""
        lines = self._agent.program.output[self._from :].splitlines()
        events = [json.loads(line) for line in lines if '"item done"' in line]
        return next((one["reason"] for one in events if one["item"] == item), None)


@contextmanager
def kube_field(folder: Path, cluster: Cluster, kwok: Kwok) -> Iterator[Field]:
    """No life of the agent has begun in it yet."""
    with (
        own_namespace(cluster, f"launch-field-{os.getpid()}-{next(_numbers)}") as namespace,
        kube_fleet(folder, cluster) as fleet,
        api_proxy(cluster.access) as proxy,
        Audit(cluster, namespace).running() as audit,
    ):
        yield Field(fleet, proxy=proxy, audit=audit, kwok=kwok, namespace=namespace, folder=folder)


@contextmanager
def own_namespace(cluster: Cluster, name: str) -> Iterator[str]:
    """A namespace for longer than a test, with none of its pods left behind."""
    with sharing(alone=False):
        metadata = {"name": name, "labels": {"launch-async-test": "true"}}
        cluster.call("POST", "/api/v1/namespaces", {"metadata": metadata})
        cluster.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default")
    try:
        yield name
    finally:
        with sharing(alone=False):
            jobs = f"/apis/batch/v1/namespaces/{name}/jobs"
            with suppress(TimeoutError):  # a thousand of them; the namespace takes the rest along
                cluster.call("DELETE", f"{jobs}?propagationPolicy=Background")
                cluster.call("DELETE", f"/api/v1/namespaces/{name}/pods?gracePeriodSeconds=1")
            cluster.delete(f"/api/v1/namespaces/{name}")


def busiest_second(moments: Sequence[float]) -> int:
    """The most that came within any second; moments are in turn."""
    first = most = 0
    for last, moment in enumerate(moments):
        while moments[first] < moment - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
