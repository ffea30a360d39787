"""Drains a Kubernetes queue while its agent is killed, and its cluster's own parts if so wanted.

    scripts/cluster up
    .venv/bin/python benchmarks/kube_chaos.py [--seed 7] [--items 200] [--kills 50]
        [--without-journal] [--at-once 40]
    .venv/bin/python benchmarks/kube_chaos.py --kills 0 --apiserver-restarts 1 --etcd-restarts 1
        --at-once 200 --shortest 40

Server, agent, API server, etcd, controllers and scheduler are real; pods run on nodes without
containers (kwok). Every kill is a SIGKILL, at a moment that the seed decides: after so many pods
have begun, or in the first second of a life, and then often as an item enters a certain phase.
With `--without-journal` each life finds an empty journal. What happened is counted by a witness of
its own, a watch that goes to the API server itself: an item is doubled when more than one Job or
pod was ever made for it, lost when none was or its queue never learned an end, wrong when the
queue's word is not how its pod ended.

Without a journal nobody knows of items that were taken and not launched: operating.md says to
cancel those and to push them again, and so it is done here once all others have ended.

The last line tells; anything but nought of each, a Secret or a Job of ours that is left, a slot
that is held, or a key in a log or a file exits 1.
"""

import argparse
import base64
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "acceptance"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kubernetes"))

from agent_harness import ENDED, PROJECT, RunningAgent
from chaos_lives import CONFIG_FILE, PROGRESS_SECONDS, Kill, Lives, items_of, plan
from cluster_tools import REMEDY, Cluster, Kwok, find_cluster, script, sharing
from kube_audit import WATCHES, label_of
from kube_chaos_parts import Part, faults_of, parts
from kube_field import Field, kube_field
from programs import Program

NO_CLUSTER = 2
DRAIN_SECONDS = 300.0
STILL_SECONDS = 8.0
"""After which an item that nobody has counts as stranded."""
MAX_GROWTH = 1.10
"""Of memory: an agent that has seen all of it beside one that has seen nothing."""
LAPSE = "UPDATE queue_items SET lease_expires_at = ? WHERE state = 'LEASED'"
LONG_AGO = "2000-01-01 00:00:00.000000"
CANCEL = """mutation Cancel($item: ID!) {
  cancelRunQueueItem(input: { runQueueItemId: $item }) { success }
}"""
BEGIN = """mutation Begin($run: String!, $entity: String!, $project: String!) {
  upsertBucket(input: { name: $run, entityName: $entity, modelName: $project }) { bucket { id } }
}"""


class KubeChaos:
    """One field, and the lives of its agent."""

    def __init__(self, field: Field, *, at_once: int, without_journal: bool) -> None:
        self.field = field
        self.pushed: dict[str, Part] = {}
        self.again: list[str] = []
        """Items that were stranded, cancelled and pushed again."""
        self.output: list[str] = []
        self.lives = Lives(field.fleet.shell, self.output.append)
        self._without_journal = without_journal
        self._by_label: dict[str, Part] = {}
        self._told: set[tuple[str, str]] = set()
        field.audit.on_pod = self.speak_for
        field.fleet.shell.write(CONFIG_FILE, field.config(max_jobs=at_once, waiting=16))

    def push(self, todo: Sequence[Part]) -> None:
        for part in todo:
            item = self.field.run(runs_for=f"{part.seconds}s", exit_code=part.code)
            self.pushed[item] = self._by_label[label_of(item)] = part

    def speak_for(self, pod: Mapping[str, Any]) -> None:
        """Tell the service of a run as a pod's program would, which is not there."""
        labels, phase = pod["metadata"]["labels"], pod["status"].get("phase", "")
        part = self._by_label.get(labels["launch-async/item"])
        words = {"Running": "begin", "Succeeded": "end", "Failed": "end"}.get(phase)
        run = labels["launch-async/run"]
        if part is None or not part.told or words is None or (run, words) in self._told:
            return
        self._told.add((run, words))
        plane = self.field.fleet.control_plane
        if words == "begin" or (run, "begin") not in self._told:
            plane.ask(BEGIN, run=run, entity=plane.entity, project=PROJECT)
        if words == "end":
            _end_run(self.field, run, part.code)

    def begin_life(self) -> Program:
        if self._without_journal:
            for path in self.field.state_dir.glob("journal.sqlite*"):
                path.unlink()
            self._lapse()
        return self.lives.begin()

    def suffer(self, kills: Sequence[Kill], components: Sequence[str]) -> None:
        """Live and die as planned; a last life goes on."""
        restarts = iter(components)

        def strike(kill: Kill) -> None:
            if kill.whom == "agent":
                self.lives.end(kill=True)
                self.begin_life()
            else:
                self._restart(next(restarts))

        self.begin_life()
        self.lives.suffer(kills, wait_for=self._wait_for, strike=strike)
        if any(kill.whom == "agent" for kill in kills):
            self.lives.end(kill=True)
            self._lapse()
            self.begin_life()

    def items(self) -> Mapping[str, dict[str, Any]]:
        """All items, as their queue has them."""
        return items_of(self.field.fleet, self.field.queue)

    def drain(self) -> RunningAgent:
        """Until every item has ended and the agent is done with all; or until time is up."""
        running = self.lives.running()
        end, still = time.monotonic() + DRAIN_SECONDS, time.monotonic()
        before: set[str] = set()
        while time.monotonic() < end:
            held = {one["id"] for one in running.status()["items"]}
            open_ = {one for one, said in self.items().items() if said["state"] not in ENDED}
            open_ -= set(self.again)
            if not held and not open_:
                return running
            if open_ != before or held:
                before, still = open_, time.monotonic()
            elif time.monotonic() - still > STILL_SECONDS:
                self._push_again(open_)
            time.sleep(0.3)
        print("not drained in time:", running.get("/status")[1][:4000], file=sys.stderr)
        return running

    def _push_again(self, stranded: set[str]) -> None:
        """What operating.md says of a lost journal; nothing was ever launched for these."""
        for item in stranded:
            state = self.field.item(item)["state"]
            if not self._without_journal or state != "CLAIMED":
                continue
            if self.field.audit.jobs.get(label_of(item)):
                continue
            self.field.fleet.control_plane.ask(CANCEL, item=item)
            self.again.append(item)
            self.push([self.pushed[item]])

    def _restart(self, component: str) -> None:
        """As other tests do it: alone, and for as short as can be."""
        with sharing(alone=True):
            running = self.field.audit.running_now()
            began = time.monotonic()
            script("restart", component, "KILL")
        seconds = time.monotonic() - began
        print(f"{component} killed with {running} pods running, back after {seconds:.1f} s")

    def _lapse(self) -> None:
        """A minute passes for leases that nobody knows of any more."""
        path = self.field.fleet.control_plane.folder / "launch-async.db"
        with closing(sqlite3.connect(path, timeout=20)) as database, database:
            database.execute(LAPSE, (LONG_AGO,))

    def _wait_for(self, begun: int) -> None:
        def enough() -> bool:
            return sum(map(bool, self.field.audit.pods.values())) >= begun

        if begun:
            self.field.audit.wait_for(enough, within_seconds=PROGRESS_SECONDS)


def leftovers_of(chaos: KubeChaos, agent: RunningAgent, *, restarts: int) -> list[str]:
    """What breaks I3, I4 or I6, in words; and a witness that may have missed something.

    After a restart of the API server a watch begins anew with a list: nobody made anything while it
    was away.
    """
    field = chaos.field
    root = f"/api/v1/namespaces/{field.namespace}"
    jobs = field.cluster.get(f"/apis/batch/v1/namespaces/{field.namespace}/jobs")["items"]
    pods = field.cluster.get(f"{root}/pods")["items"]
    secrets = field.cluster.get(f"{root}/secrets")["items"]
    wrong = [f"Secret {one['metadata']['name']} is left" for one in secrets]
    wrong += [
        f"Job {one['metadata']['name']} is still marked as ours"
        for one in jobs
        if "launch-async/identity" in one["metadata"].get("labels", {})
    ]
    status = agent.status()
    wrong += [f"slots are held: {one}" for one in status["limits"] if one["used"]]
    wrong += [f"drift of {status['drift']}"] if status["drift"] else []
    key = field.fleet.control_plane.key
    if key in json.dumps([jobs, pods]) or any(key in output for output in chaos.output):
        wrong.append("the key is in a manifest or a log")
    for path in field.state_dir.rglob("*"):
        if path.is_file() and key.encode() in path.read_bytes():
            wrong.append(f"the key is in {path}")
    if field.audit.gaps > restarts * WATCHES:
        wrong.append(f"the witness was away {field.audit.gaps} times")
    return wrong


def rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--without-journal", action="store_true")
    parser.add_argument("--apiserver-restarts", type=int, default=0)
    parser.add_argument("--etcd-restarts", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=40, help="jobs that run at once at most")
    parser.add_argument("--shortest", type=float, default=0.0, help="seconds of the shortest pod")
    parser.add_argument("--longest", type=float, default=10.0, help="seconds of others beyond")
    said = parser.parse_args()
    cluster = find_cluster()
    if cluster is None or not cluster.is_ours:
        print(f"only a cluster of scripts/cluster will do: {REMEDY}; unset KUBECONFIG")
        sys.exit(NO_CLUSTER)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it started ends with it
    script("kwok-up", str(Kwok.nodes))
    print("kube_chaos:", *sys.argv[1:], f"(--seed {said.seed})", flush=True)
    with tempfile.TemporaryDirectory(prefix="launch-async-chaos-") as folder:
        sys.exit(0 if run(cluster, Path(folder), said) else 1)


def run(cluster: Cluster, folder: Path, said: argparse.Namespace) -> bool:
    began = time.monotonic()
    components = ["apiserver"] * said.apiserver_restarts + ["etcd"] * said.etcd_restarts
    random.Random(f"{said.seed} components").shuffle(components)
    kills = plan(said.seed, items=said.items, kills=said.kills, server_kills=len(components))
    if not said.kills:  # all of them run when the first part of the cluster goes
        kills = [msgspec.structs.replace(kill, begun=said.items) for kill in kills]
    with kube_field(folder, cluster, Kwok()) as field:
        chaos = KubeChaos(field, at_once=said.at_once, without_journal=said.without_journal)
        chaos.push(parts(said.seed, said.items, longest=said.longest, shortest=said.shortest))
        print(f"{said.items} items pushed after {time.monotonic() - began:.0f} s", flush=True)
        try:
            chaos.suffer(kills, components)
            print(f"last kill after {time.monotonic() - began:.0f} s", flush=True)
            agent = chaos.drain()
            after = rss_mb(agent.program.process.pid)
            time.sleep(1)  # a watch tells the witness of what it saw last
            wrong = leftovers_of(chaos, agent, restarts=len(components))
            code = chaos.lives.end(kill=False)
            growth = after / idle_rss(chaos)
            if growth > MAX_GROWTH:
                wrong.append(f"memory: {growth:.2f} of an idle agent's")
        finally:
            chaos.lives.drop()
        faults = faults_of(
            chaos.pushed,
            items=chaos.items(),
            jobs={item: len(field.audit.jobs[label_of(item)]) for item in chaos.pushed},
            ends={item: ends_of(field, item) for item in chaos.pushed},
            again=chaos.again,
            journal=not said.without_journal,
        )
    counts = {name: len(numbers) for name, numbers in faults.items()}
    for one in wrong:
        print("left:", one)
    print(
        f"agent killed {chaos.lives.killed} times, restarts {components};",
        f"pushed again {len(chaos.again)}, wrong={counts['wrong']} left={len(wrong)} exit={code},",
        f"memory {after:.0f} MiB, {growth:.2f} of an idle agent's,",
        f"in {time.monotonic() - began:.0f} s",
    )
    print(f"lost={counts['lost']} doubled={counts['doubled']} of {said.items}", flush=True)
    return not any(counts.values()) and not wrong and code == 0


def idle_rss(chaos: KubeChaos) -> float:
    """Of a life that has nothing to do."""
    program = chaos.begin_life()
    program.wait_for("agent registered")
    time.sleep(2)
    rss = rss_mb(program.process.pid)
    chaos.lives.end(kill=False)
    return rss


def ends_of(field: Field, item: str) -> list[int | None]:
    """The exit code of each pod that was ever made for it."""
    codes: list[int | None] = []
    for pod in field.audit.pods[label_of(item)].values():
        statuses = pod["status"].get("containerStatuses") or [{}]
        ended = statuses[0].get("state", {}).get("terminated")
        codes.append(None if ended is None else ended["exitCode"])
    return codes


def _end_run(field: Field, run: str, code: int) -> None:
    plane = field.fleet.control_plane
    login = base64.b64encode(f"api:{plane.key}".encode()).decode()
    request = urllib.request.Request(
        f"{plane.url}/files/{plane.entity}/{PROJECT}/{run}/file_stream",
        json.dumps({"complete": True, "exitcode": code}).encode(),
        {"Authorization": f"Basic {login}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10):
        pass


if __name__ == "__main__":
    main()
