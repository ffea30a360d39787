"""A server and our agent on a queue of Kubernetes, each a process of its own, for tests."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from cluster_tools import Cluster

sys.path.insert(0, str(Path(__file__).parents[1] / "acceptance"))

from agent_harness import Fleet
from programs import ControlPlane, Shell, program_environment

UPSERT = """mutation Upsert($entity: String!, $queue: String!, $config: JSONString!) {
  upsertRunQueue(input: {
    entityName: $entity, projectName: "model-registry", queueName: $queue,
    resourceType: "kubernetes", resourceConfig: $config
  }) { success }
}"""
TRAIN = """\
import wandb
with wandb.init(config={"lr": 0.1}) as run:
    for step in range(3):
        run.log({"loss": 1.0 / (step + 1)})
    print("trained with", run.config.lr)
"""


class KubeFleet(Fleet):
    """Its pods use the machine's network: the server listens on the loopback."""

    def __init__(self, server: ControlPlane, shell: Shell, cluster: Cluster) -> None:
        super().__init__(server, shell)
        self.cluster = cluster

    def make_kube_queue(self, namespace: str, args: dict[str, Any] | None = None) -> str:
        """A queue, named as the namespace, whose Jobs' pods reach this machine's loopback."""
        config = {"resource_args": {"kubernetes": args or job_args(namespace)}}
        ask = self.control_plane.ask
        ask(UPSERT, entity=self.entity, queue=namespace, config=json.dumps(config))
        return namespace

    def config(self, namespace: str, state_dir: Path, **agent: Any) -> str:
        """The agent's launch-config.yaml, for the namespace's queue."""
        ours = {
            "state_dir": str(state_dir),
            "admin": "127.0.0.1:0",
            "poll": 0.2,
            "poll_max": 0.2,
            "heartbeat": 1,
            "kubernetes": {
                "config_file": str(self.cluster.kubeconfig),
                "namespaces": [namespace],
                "calls_per_second": 200,
            },
        }
        return yaml.safe_dump({"queues": [namespace], "max_jobs": -1, "agent": ours | agent})

    def push_script(self, queue: str, image: str, script: str, **args: Any) -> str:
        """Push an item that runs a script of Python; `args` is its own resource config."""
        return self.push(
            queue,
            docker={"docker_image": image},
            resource="kubernetes",
            resource_args={"kubernetes": args},
            overrides={"entry_point": ["python", "-c", script]},
        )


def job_args(namespace: str) -> dict[str, Any]:
    """The resource config of a Job whose pods reach this machine's loopback."""
    spec = {"hostNetwork": True, "containers": [{"imagePullPolicy": "IfNotPresent"}]}
    return {
        "metadata": {"namespace": namespace},
        "spec": {"template": {"spec": spec}},
    }


@contextmanager
def kube_fleet(folder: Path, cluster: Cluster) -> Iterator[KubeFleet]:
    with ExitStack() as stack:
        server = stack.enter_context(ControlPlane.start(folder / "server"))
        env = program_environment(folder / "home", url=server.url, key=server.key)
        yield KubeFleet(server, Shell(folder / "work", env=env, programs=stack), cluster)
