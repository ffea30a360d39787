"""How fast Jobs are made on a real API server, and what thousands of live ones cost the agent.

    scripts/cluster up && scripts/cluster kwok-up
    .venv/bin/python benchmarks/kubernetes_jobs.py [--rounds 5] [--items 500] [--theirs 100]
        [--live 5000] [--wandb FOLDER/bin/wandb]

W&B's agent needs what `pip install "wandb[launch]"` brings: name a program of such an environment.

port     Jobs, each with its Secret, made 32 at once: `Runner.launch` beside a raw loop of the same
         client that sends the same documents, by turns, in namespaces of their own. The ratio is of
         each pair of rounds. Nobody watches in the raw loop.
agents   items wait in 10 queues; an agent starts, and it counts from the first Job to the last one.
         Ours and W&B's, each on queues of its own on one server; W&B's gets fewer items, as it is
         slower, and nothing of ours runs beside it.
live     as many items as `--live`, whose pods run on nodes without containers (kwok). When all run,
         the agent is left alone for a minute: its memory, its CPU and its calls to the API server.

`port` and `agents` have etcd and the API server alone, if the cluster is this machine's own: no
controller works on the Jobs that were made while others still are. In another cluster they are
suspended instead. The agent's budgets of calls per second are lifted. Server, API server, etcd and
agent share this machine's processors. Everything has a time limit.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import structlog
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "acceptance"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kubernetes"))

from agent_harness import Fleet
from cluster_tools import REMEDY, Cluster, Kwok, find_cluster, sharing, wait_until
from kube_fleet import UPSERT
from kube_orders import an_order
from programs import BIN, ControlPlane, Program, Shell, program_environment
from vs_wandb_agent import OURS, REGISTERED, THEIRS, usage

from launch_async.adapters.runners.kubernetes.clusters import connector
from launch_async.adapters.runners.kubernetes.manifest import make_manifest
from launch_async.adapters.runners.kubernetes.policy import KubernetesPolicy
from launch_async.adapters.runners.kubernetes.runner import KubernetesRunner
from launch_async.adapters.runners.kubernetes.secret_bodies import secret_body
from launch_async.ports.runner import LaunchOrder
from launch_async.wire.kubernetes.cluster import KubeCluster

AT_ONCE = 32
CALLS = 10_000
QUEUES = 10
START_SECONDS = 60.0
LIVE_SECONDS = 60.0
IMAGE = "registry.example/team/image:tag"
PREFIX = f"launch-bench-{os.getpid()}"
CONTROLLERS = ("kubelet", "scheduler", "kcm")


@contextmanager
def without_controllers(cluster: Cluster) -> Iterator[None]:
    """Only etcd and the API server; somebody else's cluster stays as it is."""
    if not cluster.is_ours:
        yield
        return
    for component in CONTROLLERS:
        cluster.stop(component)
    try:
        yield
    finally:
        for component in reversed(CONTROLLERS):
            cluster.start(component)


@contextmanager
def namespace(cluster: Cluster, name: str) -> Iterator[str]:
    """One of the benchmark's own, that goes with all that is in it."""
    full = f"{PREFIX}-{name}"
    cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": full}})
    try:
        yield full
    finally:
        jobs = f"/apis/batch/v1/namespaces/{full}/jobs"
        cluster.call("DELETE", f"{jobs}?propagationPolicy=Background")
        cluster.call("DELETE", f"/api/v1/namespaces/{full}/pods?gracePeriodSeconds=0")
        cluster.delete(f"/api/v1/namespaces/{full}")


def wait_removed(cluster: Cluster) -> None:
    """Until the namespaces of this run are gone, which takes controllers."""
    for one in cluster.get("/api/v1/namespaces")["items"]:
        name = one["metadata"]["name"]
        if name.startswith(PREFIX):
            cluster.wait_gone(f"/api/v1/namespaces/{name}", seconds=600)


def job_args(name: str, **spec: Any) -> dict[str, Any]:
    """A Job of one small container, in namespace `name`, for both agents."""
    container = {"name": "main", "command": ["true"], "resources": {"requests": {"cpu": "1m"}}}
    pod = {"containers": [container], **spec.pop("pod", {})}
    template = {"metadata": {"annotations": spec.pop("annotations", {})}, "spec": pod}
    return {"metadata": {"namespace": name}, "spec": {**spec, "template": template}}


def count_all(cluster: Cluster, path: str) -> int:
    """How many there are, for the price of one."""
    found = cluster.get(f"{path}?limit=1")
    count: int = len(found["items"]) + found["metadata"].get("remainingItemCount", 0)
    return count


def count_jobs(cluster: Cluster, name: str) -> int:
    return count_all(cluster, f"/apis/batch/v1/namespaces/{name}/jobs")


def orders(cluster: Cluster, name: str, count: int) -> Sequence[LaunchOrder]:
    args = job_args(name, suspend=not cluster.is_ours)
    return [an_order(args, run_id=f"run{one:05}", item_id=f"item-{one}") for one in range(count)]


async def at_once(count: int, work: Any, todo: Sequence[LaunchOrder]) -> float:
    """Run `work` of all, `count` at a time; seconds."""
    left = iter(todo)
    began = time.monotonic()

    async def take() -> None:
        for order in left:
            await work(order)

    with anyio.fail_after(600):
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(take)
    return time.monotonic() - began


async def raw_rate(cluster: Cluster, name: str, count: int) -> float:
    """Jobs and Secrets per second, each pair by two plain calls."""
    api = KubeCluster(
        config_file=cluster.kubeconfig, environ={}, calls_per_second=CALLS, burst=CALLS
    )
    await api.open()

    async def make(order: LaunchOrder) -> None:
        manifest = make_manifest(
            order, KubernetesPolicy(), image=IMAGE, default_namespace=name, pull_secret=False
        )
        made = json.loads(await api.create(f"/apis/batch/v1/namespaces/{name}/jobs", manifest.body))
        secret = secret_body(manifest, order, made["metadata"]["uid"])
        await api.create(f"/api/v1/namespaces/{name}/secrets", secret)

    try:
        return count / await at_once(AT_ONCE, make, orders(cluster, name, count))
    finally:
        await api.close()


async def port_rate(cluster: Cluster, name: str, count: int) -> float:
    """The same through the port, with the informers that will follow them."""
    with tempfile.TemporaryDirectory() as folder:
        runner = KubernetesRunner(
            connect=connector(
                config_file=cluster.kubeconfig,
                context=None,
                environ={},
                calls_per_second=CALLS,
                burst=CALLS,
            ),
            folder=Path(folder),
        )
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runner.serve)
                seconds = await at_once(AT_ONCE, runner.launch, orders(cluster, name, count))
                tasks.cancel_scope.cancel()
        finally:
            await runner.close()
    return count / seconds


def port(cluster: Cluster, rounds: int, count: int) -> None:
    ratios: list[float] = []
    print(f"{'port: Jobs and Secrets per second':40} {'launch':>10} {'raw loop':>10}", flush=True)
    for one in range(rounds):
        rates = {}
        turns = [port_rate, raw_rate]
        for turn in turns if one % 2 else reversed(turns):
            with namespace(cluster, f"port-{one}-{turn.__name__.replace('_', '-')}") as name:
                rates[turn] = anyio.run(turn, cluster, name, count)
        ratios.append(rates[port_rate] / rates[raw_rate])
        print(f"{'':40} {rates[port_rate]:10.0f} {rates[raw_rate]:10.0f}", flush=True)
    print(f"  ratio: median {statistics.median(ratios):.2f}, worst {min(ratios):.2f}", flush=True)


class Drained(NamedTuple):
    """Jobs per second from the first to the last; the agent's CPU per item, and its RSS in MiB."""

    rate: float
    cpu_ms: float
    rss: float


class Field:
    """A server, a cluster, and one agent at a time."""

    def __init__(
        self,
        cluster: Cluster,
        server: ControlPlane,
        wandb: str,
        folder: Path,
        stack: ExitStack,
    ) -> None:
        self.cluster = cluster
        self._wandb = wandb
        self.server = server
        self._shells: dict[str, Shell] = {}
        for name in (OURS, THEIRS):
            env = program_environment(folder / name, url=server.url, key=server.key)
            self._shells[name] = Shell(folder / name / "work", env=env, programs=stack)
            config = Path(env["HOME"]) / ".kube" / "config"  # the only one that W&B's reads
            config.parent.mkdir(parents=True)
            config.write_bytes(cluster.kubeconfig.read_bytes())
        self._fleet = Fleet(server, self._shells[OURS])

    def fill(self, prefix: str, count: int, args: dict[str, Any]) -> Sequence[str]:
        """So many items, in turn, in ten queues."""
        queues = [f"{prefix}-{one}" for one in range(QUEUES)]
        config = json.dumps({"resource_args": {"kubernetes": args}})
        for queue in queues:
            self.server.ask(UPSERT, entity=self.server.entity, queue=queue, config=config)
        for one in range(count):
            self._fleet.push(
                queues[one % QUEUES],
                docker={"docker_image": IMAGE},
                resource="kubernetes",
                resource_args={"kubernetes": args},
            )
        return queues

    @contextmanager
    def agent(self, name: str, queues: Sequence[str]) -> Iterator[Program]:
        shell = self._shells[name]
        if name == OURS:
            agent = {
                "state_dir": f"state-{queues[0]}",
                "admin": "",
                "calls_per_second": CALLS,
                "burst": CALLS,
                "waiting": AT_ONCE,
                "kubernetes": {"calls_per_second": CALLS, "burst": CALLS},
            }
            said = {"queues": list(queues), "max_jobs": -1, "agent": agent}
            shell.write("c.yaml", yaml.safe_dump(said))
            command = [str(BIN / "launch-async"), "agent", "-c", "c.yaml"]
        else:
            words = [word for queue in queues for word in ("-q", queue)]
            command = [self._wandb, "launch-agent", *words, "-e", self.server.entity]
            command += ["-j", "-1"]
        program = Program(command, env=shell.env, cwd=shell.folder)
        try:
            program.wait_for(REGISTERED[name], within_seconds=START_SECONDS)
            yield program
        finally:
            program.kill()

    def drain(self, name: str, label: str, count: int, within: float) -> Drained:
        """An agent takes so many items from ten queues."""
        with namespace(self.cluster, label) as space:
            queues = self.fill(label, count, job_args(space, suspend=not self.cluster.is_ours))
            with self.agent(name, queues) as agent:
                rate, made = self.watch(space, count, within)
                cpu, rss = usage(agent.process.pid)
            if made < count:
                print(f"  {name}: {made} of {count} after {within:.0f} s; it said:")
                print(agent.output[-3000:], flush=True)
            return Drained(rate, 1000 * cpu / max(made, 1), rss)

    def watch(self, space: str, count: int, within: float) -> tuple[float, int]:
        deadline = time.monotonic() + within
        first = 0.0
        at_first = made = 0
        while made < count and time.monotonic() < deadline:
            made = count_jobs(self.cluster, space)
            if made and not first:
                first, at_first = time.monotonic(), made
            time.sleep(0.1)
        span = max(time.monotonic() - first, 0.1) if first else within
        return (made - at_first) / span, made


def agents(field: Field, items: int, theirs: int) -> None:
    a = field.drain(OURS, "ours", items, 300.0)
    b = field.drain(THEIRS, "theirs", theirs, 300.0)
    print(f"{'agents: Jobs of 10 queues':40} {OURS:>12} {THEIRS:>12}")
    print(f"{'items':40} {items:12} {theirs:12}")
    print(f"{'Jobs per second':40} {a.rate:12.1f} {b.rate:12.1f}")
    print(f"{'CPU per item, ms, with the start':40} {a.cpu_ms:12.1f} {b.cpu_ms:12.1f}")
    print(f"{'RSS, MiB':40} {a.rss:12.0f} {b.rss:12.0f}")
    print(f"  ratio of rates: {a.rate / max(b.rate, 1e-9):.1f}", flush=True)


def live(field: Field, count: int) -> None:
    kwok = Kwok()
    with namespace(field.cluster, "live") as space:
        field.cluster.wait_for(f"/api/v1/namespaces/{space}/serviceaccounts/default")
        args = job_args(space, pod=kwok.pod(), annotations=kwok.play(runs_for="3600s"))
        queues = field.fill("live", count, args)
        with field.agent(OURS, queues) as agent:
            rate, made = field.watch(space, count, 600.0)
            print(f"{'live: Jobs per second, with their pods':40} {rate:12.1f} ({made} made)")
            pods = f"/api/v1/namespaces/{space}/pods"
            wait_until(lambda: pods_run(field.cluster, pods, count), seconds=600)
            before, began = usage(agent.process.pid), time.monotonic()
            time.sleep(LIVE_SECONDS)
            after, seconds = usage(agent.process.pid), time.monotonic() - began
            share = 100 * (after[0] - before[0]) / seconds
            print(f"{'live: RSS of the agent, MiB':40} {after[1]:12.0f}")
            print(f"{'live: CPU of the agent, % of one':40} {share:12.1f}", flush=True)


def pods_run(cluster: Cluster, path: str, count: int) -> bool:
    """Whether there are so many, and none that waits."""
    waiting = cluster.get(f"{path}?fieldSelector=status.phase%3DPending&limit=1")
    return count_all(cluster, path) >= count and not waiting["items"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--live", type=int, default=5000)
    parser.add_argument("--theirs", type=int, default=100)
    parser.add_argument("--wandb", default=str(BIN / "wandb"), help="of wandb[launch]")
    said = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    cluster = find_cluster()
    if cluster is None:
        sys.exit(f"no Kubernetes cluster answers: {REMEDY}")
    with sharing(alone=True), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stack.callback(wait_removed, cluster)
        server = stack.enter_context(ControlPlane.start(Path(folder) / "server"))
        field = Field(cluster, server, said.wandb, Path(folder), stack)
        with without_controllers(cluster):
            if said.rounds:
                port(cluster, said.rounds, said.items)
            if said.items and said.theirs:
                agents(field, said.items, said.theirs)
        if said.live:
            wait_removed(cluster)
            live(field, said.live)


if __name__ == "__main__":
    main()
