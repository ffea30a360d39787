"""What one sick cluster costs the others: a healthy cluster's queue beside a sick one's, one agent.

    scripts/cluster up
    .venv/bin/python benchmarks/kube_bulkheads.py [--rounds 3] [--seconds 8] [--sick 64]
        [--waiting 8] [--calls 40]

Real parts: our server, our agent as a process, an API server. The agent has two queues. One is of
its own cluster. The config of the other names a kubeconfig (`configFile`) that leads to the same
API server through a proxy: a cluster of its own, as far as the agent knows. Both make suspended
Jobs, each with its Secret, as fast as `--calls` per second and cluster allow; the sick queue has
`--sick` items, more than the agent keeps waiting. Each round measures the Jobs per second of the
healthy queue with both well, then, in turn, from two seconds after the proxy has become sick:

    hangs          accepts calls and says nothing; open watches bring nothing more
    answers 503    to every call, and ends the watches
    answers 429    to every call, without saying for how long
    is away        refuses connections

Then the proxy is well again, and every item must have its one Job. The ratio is of each pair in a
round; the aim is 0.9. Exits with 1 if an item is lost or doubled.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "acceptance"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kubernetes"))

from api_proxy import ApiProxy, api_proxy
from cluster_tools import REMEDY, Cluster, find_cluster
from kube_field import IMAGE, own_namespace
from kube_fleet import KubeFleet, kube_fleet

from launch_async.adapters.runners.kubernetes.names import ITEM_LABEL

WELL = "both well"
KINDS = ("hangs", "answers 503", "answers 429", "is away")
NO_CLUSTER = 2
SETTLE_SECONDS = 2.0
FIRST_SECONDS = 60.0
DRAIN_SECONDS = 180.0
UNLIMITED = 10_000
_numbers = itertools.count(1)


class Site:
    """A server, a cluster and its sick twin; one agent at a time."""

    def __init__(
        self, fleet: KubeFleet, proxy: ApiProxy, folder: Path, said: argparse.Namespace
    ) -> None:
        self._fleet = fleet
        self._cluster = fleet.cluster
        self._proxy = proxy
        self._folder = folder
        self._said = said
        self.pushed = self.lost = self.doubled = 0

    def rate(self, kind: str) -> float:
        """Jobs per second of the healthy queue."""
        number = next(_numbers)
        name = f"launch-bulk-{os.getpid()}-{number}"
        with (
            own_namespace(self._cluster, f"{name}-well") as well,
            own_namespace(self._cluster, f"{name}-sick") as sick,
        ):
            twin = self._proxy.write_kubeconfig(self._folder / f"twin-{number}", namespace=sick)
            said = self._said
            seconds = said.seconds + 2 * SETTLE_SECONDS
            counts = {well: int(said.calls * seconds) + said.calls, sick: said.sick}
            self._fill(sick, counts[sick], configFile=str(twin))
            self._fill(well, counts[well])
            with self._fleet.agent(self._config([well, sick], number)):
                self._wait_for({well: 1, sick: 1}, FIRST_SECONDS)
                with sickness(self._proxy, kind):
                    time.sleep(SETTLE_SECONDS)
                    made, began = self._count(well), time.monotonic()
                    time.sleep(said.seconds)
                    after = self._count(well)
                    measured = (after - made) / (time.monotonic() - began)
                if after >= counts[well]:
                    raise SystemExit(f"{well} ran out of items: the rate is not that of the agent")
                self._wait_for(counts, DRAIN_SECONDS)
            self._judge(counts)
        return measured

    def _fill(self, namespace: str, count: int, **place: str) -> None:
        container = {"name": "main", "resources": {"requests": {"cpu": "1m"}}}
        template = {"spec": {"containers": [container]}}
        spec = {"suspend": True, "backoffLimit": 0, "template": template}
        args: dict[str, Any] = {"metadata": {"namespace": namespace}, "spec": spec, **place}
        self._fleet.make_kube_queue(namespace, args)
        for _ in range(count):
            self._fleet.push(
                namespace,
                docker={"docker_image": IMAGE},
                resource="kubernetes",
                resource_args={"kubernetes": args},
            )

    def _config(self, queues: Sequence[str], number: int) -> str:
        calls = self._said.calls
        agent = {
            "state_dir": str(self._folder / f"state-{number}"),
            "admin": "127.0.0.1:0",
            "poll": 0.2,
            "poll_max": 0.3,
            "waiting": self._said.waiting,
            "grace": 1,
            "calls_per_second": UNLIMITED,
            "burst": UNLIMITED,
            "kubernetes": {
                "config_file": str(self._cluster.kubeconfig),
                "calls_per_second": calls,
                "burst": calls,
            },
        }
        return yaml.safe_dump({"queues": list(queues), "max_jobs": -1, "agent": agent})

    def _jobs(self, namespace: str) -> str:
        return f"/apis/batch/v1/namespaces/{namespace}/jobs"

    def _count(self, namespace: str) -> int:
        found = self._cluster.get(f"{self._jobs(namespace)}?limit=1")
        return len(found["items"]) + int(found["metadata"].get("remainingItemCount", 0))

    def _wait_for(self, counts: dict[str, int], within_seconds: float) -> None:
        """Until each namespace has so many Jobs, or time is up; what is missing counts as lost."""
        end = time.monotonic() + within_seconds
        while time.monotonic() < end:
            if all(self._count(name) >= count for name, count in counts.items()):
                return
            time.sleep(0.1)

    def _judge(self, counts: dict[str, int]) -> None:
        for namespace, count in counts.items():
            jobs = self._cluster.get(self._jobs(namespace))["items"]
            made = Counter(job["metadata"]["labels"][ITEM_LABEL] for job in jobs)
            self.pushed += count
            self.lost += count - len(made)
            self.doubled += sum(times > 1 for times in made.values())


@contextmanager
def sickness(proxy: ApiProxy, kind: str) -> Iterator[None]:
    """While the block lasts, the proxy is as `kind` says."""
    match kind:
        case "hangs":
            with proxy.freeze("."), proxy.hang("*", "."):
                yield
        case "answers 503" | "answers 429":
            with proxy.answer("*", ".", int(kind.rpartition(" ")[2])):
                proxy.cut(".", in_line=False)
                yield
        case "is away":
            with proxy.down():
                yield
        case _:
            yield


def measure(cluster: Cluster, folder: Path, said: argparse.Namespace) -> int:
    rates: dict[str, list[float]] = {kind: [] for kind in (WELL, *said.kinds)}
    with kube_fleet(folder, cluster) as fleet, api_proxy(cluster.access) as proxy:
        site = Site(fleet, proxy, folder, said)
        for one in range(said.rounds):
            turns = list(rates)
            for kind in turns if one % 2 == 0 else reversed(turns):
                rates[kind].append(site.rate(kind))
    lowest = 1.0
    for kind, figures in rates.items():
        ratios = [figure / base for figure, base in zip(figures, rates[WELL], strict=True)]
        median = statistics.median(ratios)
        lowest = min(lowest, median)
        print(f"{kind:12} {statistics.median(figures):6.1f} Jobs/s  ratio: median {median:.2f},"
              f" worst {min(ratios):.2f}")  # fmt: skip
    print(f"ratio={lowest:.2f} lost={site.lost} doubled={site.doubled} of {site.pushed}")
    return 1 if site.lost or site.doubled else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--sick", type=int, default=64, help="items of the sick cluster's queue")
    parser.add_argument("--waiting", type=int, default=8, help="as `agent.waiting`")
    parser.add_argument("--calls", type=int, default=40, help="per second and cluster")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    said = parser.parse_args()
    cluster = find_cluster()
    if cluster is None:
        print(f"no Kubernetes cluster answers: {REMEDY}")
        return NO_CLUSTER
    with tempfile.TemporaryDirectory(prefix="launch-async-bulkheads-") as folder:
        return measure(cluster, Path(folder), said)


if __name__ == "__main__":
    sys.exit(main())
