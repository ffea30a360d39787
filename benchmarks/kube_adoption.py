"""How long an agent takes to adopt the Jobs that ran when it was killed, and with how many calls.

    scripts/cluster up
    .venv/bin/python benchmarks/kube_adoption.py [--runs 1000]

Real parts: our server, our agent as a process, an API server with its controllers and scheduler;
pods run on nodes without containers (kwok). When all run, the agent gets SIGKILL and starts again;
then once more with its journal deleted. Timed from the start of the process to the moment at which
its status shows every item as running, as its pods do; counted are the calls that a proxy before
the API server sees, all in all and in the busiest second. Ends with `lost=0 doubled=0 of N`, or
exits with 1: also when it takes longer than 30 s, or a second has more calls than the agent's
budget allows.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "acceptance"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kubernetes"))

from agent_harness import RunningAgent
from cluster_tools import REMEDY, Kwok, find_cluster, script
from kube_audit import label_of
from kube_field import CALLS_PER_SECOND, Field, busiest_second, kube_field

LAUNCH_SECONDS = 600.0
ADOPTED_SECONDS = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000, help="at most as many as a page shows")
    said = parser.parse_args()
    cluster = find_cluster()
    if cluster is None or not cluster.is_ours:
        print(f"only a cluster of scripts/cluster will do: {REMEDY}; unset KUBECONFIG")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it started ends with it
    script("kwok-up", str(Kwok.nodes))
    with (
        tempfile.TemporaryDirectory(prefix="launch-async-adoption-") as folder,
        kube_field(Path(folder), cluster, Kwok()) as field,
    ):
        return measure(field, said.runs)


def measure(field: Field, count: int) -> int:
    items = [field.run(runs_for="7200s") for _ in range(count)]
    began = time.monotonic()
    with field.fleet.agent(field.config()) as agent:
        field.wait_until_running(*items, within_seconds=LAUNCH_SECONDS)
        wait_for_running(agent, count, LAUNCH_SECONDS)
        print(f"{'launched, all pods running':28} {time.monotonic() - began:6.1f} s", flush=True)
        agent.program.kill()
    good = True
    for name in ("adopted by the journal", "adopted without a journal"):
        if name.endswith("without a journal"):
            for path in field.state_dir.glob("journal.sqlite*"):
                path.unlink()
        calls, began = len(field.proxy.requests), time.monotonic()
        with field.fleet.agent(field.config()) as agent:
            wait_for_running(agent, count, 120.0)
            seconds = time.monotonic() - began
            made = field.proxy.requests[calls:]
            agent.program.kill()
        most = busiest_second([one.at for one in made])
        counts = Counter(f"{one.verb} {one.resource}" for one in made).most_common(6)
        print(f"{name:28} {seconds:6.1f} s   {len(made)} calls, {most} in the busiest second:",
              ", ".join(f"{times} {call}" for call, times in counts), flush=True)  # fmt: skip
        good &= seconds < ADOPTED_SECONDS and most <= 2 * CALLS_PER_SECOND
    made_of = [len(field.audit.jobs[label_of(item)]) for item in items]
    lost = sum(field.item(item)["state"] not in {"CLAIMED", "RUNNING"} for item in items)
    doubled = sum(times != 1 for times in made_of)
    print(f"lost={lost} doubled={doubled} of {count}")
    return 0 if good and not lost and not doubled else 1


def wait_for_running(agent: RunningAgent, count: int, within_seconds: float) -> None:
    """Until the agent knows of so many runs that they run."""
    end = time.monotonic() + within_seconds
    while True:
        items = json.loads(agent.get(f"/status?items={count}")[1])["items"]
        seen = sum(one["phase"] == "running" and "running" in one["detail"] for one in items)
        if seen == count:
            return
        if time.monotonic() > end:
            raise SystemExit(f"{seen} of {count} seen running within {within_seconds:.0f} s")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
