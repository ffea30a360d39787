"""Of several replicas one acts: the Lease, the state folder's holder, and what the loser does.

The API server is a real one, behind a proxy that fails as a test says.
"""

import os
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from anyio.abc import TaskGroup
from api_proxy import ApiProxy
from cluster_tools import Cluster, wait_until
from kube_fleet import KubeFleet, kube_fleet

from launch_async.adapters.leases.holder import held_folder
from launch_async.adapters.leases.kubernetes import IDENTITY_ANNOTATION, KubeLease, LeaseLost
from launch_async.compose.lease import held_lease
from launch_async.config.kubernetes import KubernetesSection, LeaseSection
from launch_async.config.model import AgentSection, LaunchConfig
from launch_async.domain.errors import AgentUnfit, gravest
from launch_async.wire.kubernetes.cluster import KubeCluster

pytestmark = pytest.mark.anyio

SECONDS = 2
"""How long a Lease lasts here."""
RENEW = 0.2


class Replicas:
    """Those that share the Lease `agent` of one namespace."""

    def __init__(self, api: KubeCluster, cluster: Cluster, namespace: str) -> None:
        self._api = api
        self._cluster = cluster
        self.path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/agent"
        self.heard: list[str] = []

    def lease(self, holder: str, *, seconds: int = SECONDS) -> KubeLease:
        return KubeLease(
            self._api,
            name="agent",
            holder=holder,
            duration_seconds=seconds,
            renew_seconds=RENEW,
        )

    async def acquire(self, lease: KubeLease, identity: str = "", earlier: str = "") -> str:
        return await lease.acquire(
            identity=identity, otherwise="new", earlier=earlier, waits=self.heard.append
        )

    @property
    def holder(self) -> str | None:
        spec: dict[str, Any] = self._cluster.get(self.path)["spec"]
        return spec.get("holderIdentity")

    def change(self, **spec: Any) -> None:
        self._cluster.call("PATCH", self.path, {"spec": spec}, kind="merge-patch+json")

    def delete(self) -> None:
        self._cluster.delete(self.path)


@pytest.fixture
async def replicas(
    cluster: Cluster, proxy: ApiProxy, namespace: str, tmp_path: Path
) -> AsyncGenerator[Replicas]:
    config = proxy.write_kubeconfig(tmp_path / "kubeconfig", namespace=namespace)
    api = KubeCluster(config_file=config, environ=os.environ, call_seconds=1.0)
    yield Replicas(api, cluster, namespace)
    await api.close()


@asynccontextmanager
async def kept(lease: KubeLease) -> AsyncGenerator[TaskGroup]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lease.keep)
        yield tasks
        tasks.cancel_scope.cancel()


async def test_one_has_it_and_the_other_hears_who_until_it_is_released(replicas: Replicas):
    first, second = replicas.lease("first"), replicas.lease("second")
    assert await replicas.acquire(first, identity="me") == "me"
    async with kept(first):
        with anyio.move_on_after(SECONDS * 1.5):
            await replicas.acquire(second)
            pytest.fail("two have it")
        assert "first holds the Lease" in replicas.heard[-1]
    await first.release()
    with anyio.fail_after(SECONDS * 0.8):  # it does not wait for the duration
        assert await replicas.acquire(second) == "me"
    assert replicas.holder == "second"


async def test_a_silent_holder_is_waited_for_as_long_as_its_lease_lasts(replicas: Replicas):
    await replicas.acquire(replicas.lease("silent"))
    began = anyio.current_time()
    with anyio.fail_after(SECONDS * 3):
        await replicas.acquire(replicas.lease("second"))
    assert anyio.current_time() - began >= SECONDS


async def test_of_many_that_try_at_once_one_has_it(replicas: Replicas):
    have: list[str] = []

    async def tries(name: str) -> None:
        await replicas.acquire(replicas.lease(name))
        have.append(name)

    with anyio.move_on_after(SECONDS * 0.8):
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(tries, f"replica-{number}")
    assert have == [replicas.holder]


async def test_a_life_takes_at_once_what_the_dead_life_before_it_had(replicas: Replicas):
    await replicas.acquire(replicas.lease("earlier life"))
    with anyio.fail_after(SECONDS * 0.8):
        await replicas.acquire(replicas.lease("this life"), earlier="earlier life")


async def test_who_cannot_renew_it_ends_before_another_may_begin(
    replicas: Replicas, proxy: ApiProxy
):
    lease = replicas.lease("first")
    await replicas.acquire(lease)
    began = anyio.current_time()
    with proxy.down(), pytest.raises(LeaseLost, match="could not be renewed in time"):
        await lease.keep()
    assert anyio.current_time() - began < SECONDS
    assert lease.end_seconds == pytest.approx(SECONDS / 3)


async def test_an_answer_that_never_comes_does_not_make_it_last_longer(
    replicas: Replicas, proxy: ApiProxy
):
    lease = replicas.lease("first")
    await replicas.acquire(lease)
    began = anyio.current_time()
    with proxy.hang("patch", "leases"), pytest.raises(LeaseLost):
        await lease.keep()
    assert anyio.current_time() - began < SECONDS


async def test_a_renewal_whose_answer_was_lost_counts(replicas: Replicas, proxy: ApiProxy):
    lease = replicas.lease("first")
    await replicas.acquire(lease)
    with proxy.lose("patch", "leases", times=2) as lost:
        async with kept(lease):
            await anyio.sleep(SECONDS)
            assert lost.hits == 2
            assert replicas.holder == "first"


async def test_a_holder_that_was_replaced_or_whose_lease_is_gone_has_lost_it(replicas: Replicas):
    lease = replicas.lease("first")
    await replicas.acquire(lease)
    replicas.change(holderIdentity="second")
    with anyio.fail_after(SECONDS * 0.6), pytest.raises(LeaseLost, match="held by second"):
        await lease.keep()
    replicas.delete()
    await replicas.acquire(lease)
    replicas.delete()
    with anyio.fail_after(SECONDS * 0.6), pytest.raises(LeaseLost, match="was deleted"):
        await lease.keep()


async def test_what_somebody_else_writes_to_it_costs_its_holder_nothing(
    replicas: Replicas,
):
    lease = replicas.lease("first")
    await replicas.acquire(lease)
    async with kept(lease):
        for number in range(5):
            replicas.change(leaseTransitions=number)
            await anyio.sleep(RENEW)
        assert replicas.holder == "first"


async def test_a_release_takes_nothing_from_who_has_it_now(replicas: Replicas):
    lease = replicas.lease("first")
    await replicas.acquire(lease)
    replicas.change(holderIdentity="second")
    await lease.release()
    assert replicas.holder == "second"


async def test_another_agents_lease_is_refused_with_the_remedy(replicas: Replicas):
    first = replicas.lease("first")
    await replicas.acquire(first, identity="one")
    await first.release()
    with pytest.raises(AgentUnfit, match=r"agent one's.*agent two's: name another Lease"):
        await replicas.acquire(replicas.lease("second"), identity="two")


async def test_an_outage_is_waited_out_by_who_waits(replicas: Replicas, proxy: ApiProxy):
    with anyio.move_on_after(SECONDS), proxy.down():
        await replicas.acquire(replicas.lease("first"))
    assert "cannot be read" in replicas.heard[0]
    with anyio.fail_after(SECONDS * 4):
        await replicas.acquire(replicas.lease("first"))


async def test_a_state_folder_has_one_holder_and_remembers_the_last(tmp_path: Path):
    heard: list[str] = []
    again: list[str] = []

    async def hold() -> None:
        async with held_folder(tmp_path, waits=heard.append, look_seconds=0.01) as second:
            again.append(second.earlier)

    async with (
        anyio.create_task_group() as tasks,
        held_folder(tmp_path, waits=heard.append, look_seconds=0.01) as first,
    ):
        assert first.earlier == ""
        first.keep()
        tasks.start_soon(hold)
        with anyio.fail_after(10):
            while not heard:
                await anyio.sleep(0.01)
        assert not again
    assert again == [first.name]
    assert "another agent uses the state folder" in heard[0]


def config_of(proxy: ApiProxy, folder: Path, namespace: str) -> LaunchConfig:
    kubeconfig = proxy.write_kubeconfig(folder / "kubeconfig", namespace=namespace)
    lease = LeaseSection(name="agent", duration=3, renew=RENEW)
    kubernetes = KubernetesSection(config_file=str(kubeconfig), lease=lease)
    agent = AgentSection(state_dir=str(folder / "state"), kubernetes=kubernetes)
    return LaunchConfig(queues=("q",), agent=agent)


async def test_the_identity_goes_with_the_lease_from_one_state_folder_to_the_next(
    cluster: Cluster, proxy: ApiProxy, namespace: str, tmp_path: Path
):
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/agent"
    identities: list[str] = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        config = config_of(proxy, folder, namespace)
        async with held_lease(config, os.environ, waits=lambda why: None):
            identities.append((folder / "state/identity").read_text())
        assert "holderIdentity" not in cluster.get(path)["spec"]
    kept_there = cluster.get(path)["metadata"]["annotations"][IDENTITY_ANNOTATION]
    assert identities == [kept_there, kept_there]


async def test_what_does_not_end_with_its_lease_is_ended_with_the_process(
    proxy: ApiProxy, namespace: str, tmp_path: Path
):
    config = config_of(proxy, tmp_path, namespace)
    ended = anyio.Event()
    codes: list[int] = []

    def end_process(code: int) -> None:
        codes.append(code)

    began = 0.0
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - it is what comes out of the block
        async with held_lease(config, os.environ, waits=print, end_process=end_process):
            began = anyio.current_time()
            with proxy.down(), anyio.CancelScope(shield=True), anyio.move_on_after(10):
                while not codes:
                    await anyio.sleep(0.02)
                ended.set()
    assert isinstance(gravest(caught.value), LeaseLost)
    assert ended.is_set()
    assert codes == [1]
    assert anyio.current_time() - began < 3 + RENEW


def test_no_renewal_in_time_is_no_setting():
    with pytest.raises(msgspec.ValidationError, match="less than three times renew"):
        msgspec.convert({"name": "a", "duration": 5, "renew": 2}, LeaseSection)


@pytest.fixture(scope="module")
def fleet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeFleet]:
    with kube_fleet(tmp_path_factory.mktemp("lease"), cluster) as made:
        yield made


@pytest.mark.acceptance
def test_an_agent_that_slept_through_its_lease_ends_and_the_other_goes_on(
    fleet: KubeFleet, cluster_wandb_image: str, namespace: str, tmp_path: Path
):
    queue = fleet.make_kube_queue(namespace)
    lease = {"name": "agent", "namespace": namespace, "duration": 4, "renew": 0.5}

    def config(name: str) -> str:
        kubernetes = {
            "config_file": str(fleet.cluster.kubeconfig),
            "namespaces": [namespace],
            "lease": lease,
        }
        return fleet.config(namespace, tmp_path / name, kubernetes=kubernetes, name=name)

    with fleet.agent(config("first")) as first:
        script = "import time, wandb\nwith wandb.init():\n    time.sleep(12)"
        item = fleet.push_script(queue, cluster_wandb_image, script)
        jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        wait_until(lambda: fleet.cluster.get(jobs)["items"])
        fleet.shell.write("second.yaml", config("second"))
        second = fleet.shell.start("launch-async", "agent", "-c", "second.yaml")
        second.wait_for(r'"why": "[^"]+ holds the Lease')
        os.kill(first.program.process.pid, signal.SIGSTOP)
        second.wait_for("item recovered")
        os.kill(first.program.process.pid, signal.SIGCONT)
        assert first.program.wait(within_seconds=20) == 1
        assert "the Lease" in first.program.output.splitlines()[-1]
        assert "agent stands by" not in first.program.output
        ended = fleet.wait_for_item(queue, item, {"FINISHED", "FAILED"}, within_seconds=90)
        assert ended["state"] == "FINISHED", ended
        assert len(fleet.cluster.get(jobs)["items"]) == 1
        second.end()
