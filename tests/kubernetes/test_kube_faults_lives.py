"""Faults that take the agent's life, its login, or its sight: rows R05, R11 and R15."""

import json
import time
from collections import Counter
from pathlib import Path

import anyio
import msgspec
import pytest
from api_proxy import ApiProxy
from cluster_tools import Cluster, Kwok, Refused, until, wait_until
from kube_backend import KubernetesBackend
from kube_field import CALLS_PER_SECOND, IMAGE, Field, busiest_second

from launch_async.adapters.runners.kubernetes.informer import Pace
from launch_async.domain.run import RunState
from launch_async.ports.runner import LaunchOrder
from launch_async.testing import Play, order_for
from launch_async.testing.backends import end_of

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("cluster_share")]

RUNS = 50
ADOPTED_SECONDS = 30.0


def test_killed_with_many_runs_all_are_adopted_with_few_calls(field: Field) -> None:
    """R05: a thousand in the world, fifty here; `benchmarks/kube_adoption.py` has the thousand."""
    items = [field.run() for _ in range(RUNS)]
    ended, gone, going = items[:5], items[5], items[6:]
    with field.life() as first:
        field.wait_until_running(*items)
        first.wait_for_status("launched", RUNS)
        first.program.kill()
    for item in ended:
        field.end_pod(item, exit_code=4)
    field.wait_until_over(*ended)
    field.cluster.delete(field.job(gone))
    field.cluster.wait_gone(field.job(gone))

    calls, began = len(field.proxy.requests), time.monotonic()
    with field.life() as second:
        second.wait_for_status("adopted", RUNS, within_seconds=ADOPTED_SECONDS)
        for item in ended:
            assert "code 4" in field.end_of(item)["message"]
        assert time.monotonic() - began < ADOPTED_SECONDS
        assert "its object is gone" in field.end_of(gone)["message"]
        assert {field.item(item)["state"] for item in going} == {"CLAIMED"}
        made = field.proxy.requests[calls:]
        assert len(made) < RUNS, Counter(f"{one.verb} {one.resource}" for one in made)
        for item in going:
            field.end_pod(item, exit_code=3)
        for item in going:
            assert "code 3" in field.end_of(item)["message"]
        field.assert_settled(second)
        assert (
            busiest_second([one.at for one in field.proxy.requests[calls:]]) <= 2 * CALLS_PER_SECOND
        )
    field.assert_made_once(items)


def test_a_token_that_is_rotated_on_disk_costs_no_run(field: Field) -> None:
    """R15: a real one, which the API server takes no more before there is another."""
    logins = Logins(field)
    token = field.folder / "token"
    old = logins.token("old")
    token.write_text(old)
    item = field.run()
    with field.life(kubeconfig=logins.kubeconfig(token)) as agent:
        field.wait_until_running(item)
        agent.wait_for_status("launched", 1)
        logins.revoke("old", old)
        field.proxy.cut(field.watched, in_line=False)
        field.end_pod(item, exit_code=3)
        said = field.wait_for_readiness(agent, ready=False)
        assert "401" in said
        assert field.item(item)["state"] == "CLAIMED"
        token.write_text(logins.token("new"))
        assert "code 3" in field.end_of(item)["message"]
        field.wait_for_readiness(agent, ready=True)
        logins.remove("new")
        field.assert_settled(agent)
    field.assert_made_once([item])


@pytest.mark.anyio
async def test_a_watch_that_is_half_open_is_noticed_and_the_end_is_told(
    cluster: Cluster, kwok: Kwok, proxy: ApiProxy, namespace: str, tmp_path: Path
) -> None:
    """R11: it is open and brings nothing, and then lists hang too."""
    backend = KubernetesBackend(cluster, proxy, IMAGE, namespace, tmp_path)
    order = played(backend, kwok, runs_for="2s")
    jobs, watched = f"/apis/batch/v1/namespaces/{namespace}/jobs", f"/{namespace}/(jobs|pods)$"
    async with backend.life(pace=Pace(idle_seconds=2.0)) as runner:
        handle = await runner.launch(order)
        watch = runner.watch(handle)
        with anyio.fail_after(60):
            while (status := await anext(watch)).state is not RunState.RUNNING:
                pass
            with proxy.freeze(watched), proxy.hang("list", watched):
                path = f"{jobs}/{handle.data['name']}"
                await until(lambda: cluster.get(path)["status"].get("failed"))
                status = await anext(watch)
                assert (status.state, status.end) == (RunState.UNKNOWN, None)
                assert "brought nothing" in status.detail
                [view] = runner.backends()
                assert view.stale
            end = await end_of(runner, handle)
        await watch.aclose()
        assert (end.exit_code, end.reason) == (3, None)
        [view] = runner.backends()
        assert not view.stale


@pytest.mark.anyio
async def test_a_job_whose_pods_are_told_of_late_ends_as_they_did(
    cluster: Cluster, kwok: Kwok, proxy: ApiProxy, namespace: str, tmp_path: Path
) -> None:
    """R11 for one of two watches: that of Jobs brings the failure, that of pods brings nothing."""
    backend = KubernetesBackend(cluster, proxy, IMAGE, namespace, tmp_path)
    order = played(backend, kwok, runs_for="1s")
    async with backend.life() as runner:
        handle = await runner.launch(order)
        with proxy.freeze(f"/{namespace}/pods$"):
            end = await end_of(runner, handle)
    assert (end.exit_code, end.reason) == (3, None)


def played(backend: KubernetesBackend, kwok: Kwok, *, runs_for: str) -> LaunchOrder:
    """A run on a node without containers, which fails."""
    template = {"metadata": {"annotations": kwok.play(runs_for=runs_for, exit_code=3)}}
    args = {"spec": {"template": {**template, "spec": kwok.pod()}}}
    return order_for(backend, Play(), resource_args=args)


class Logins:
    """Tokens of a service account, each as long valid as a Secret of its name is there."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._root = f"/api/v1/namespaces/{field.namespace}"
        meta = {"name": "agent", "namespace": field.namespace}
        call = field.cluster.call
        call("POST", f"{self._root}/serviceaccounts", {"metadata": meta})
        binding = {
            "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole"}
            | {"name": "admin"},
            "subjects": [{"kind": "ServiceAccount", **meta}],
        }
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{field.namespace}"
        call("POST", f"{rbac}/rolebindings", binding)

    def kubeconfig(self, token: Path) -> Path:
        """One that reads the token from a file, through the proxy."""
        path = self._field.proxy.write_kubeconfig(
            token.with_name("token-kubeconfig"), namespace=self._field.namespace
        )
        said = json.loads(path.read_text())
        said["users"][0]["user"] = {"tokenFile": str(token)}
        path.write_text(json.dumps(said))
        return path

    def token(self, name: str) -> str:
        call = self._field.cluster.call
        secret = call("POST", f"{self._root}/secrets", {"metadata": {"name": name}})
        bound = {"apiVersion": "v1", "kind": "Secret", "name": name}
        asked = {"spec": {"boundObjectRef": {**bound, "uid": secret["metadata"]["uid"]}}}
        said = call("POST", f"{self._root}/serviceaccounts/agent/token", asked)
        token: str = said["status"]["token"]
        return token

    def remove(self, name: str) -> None:
        self._field.cluster.delete(f"{self._root}/secrets/{name}")

    def revoke(self, name: str, token: str) -> None:
        """Return when the API server, which remembers tokens for a while, takes it no more."""
        self.remove(name)
        cluster = self._field.cluster
        access = msgspec.structs.replace(cluster.access, token=token)
        theirs = msgspec.structs.replace(cluster, access=access)

        def refused() -> bool:
            try:
                theirs.get(f"{self._root}/pods")
            except Refused as error:
                return error.status == 401
            return False

        wait_until(refused, what=lambda: "the old token is still good")
