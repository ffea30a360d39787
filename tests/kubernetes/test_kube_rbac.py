"""The agent may do what it does and no more: each right of the chart's Role is needed by something.

`agent_rights.txt` is what `kubectl auth can-i --list` says of the agent's service account, without
what every account may. Each right is taken away once, and what needed it says so.
"""

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
import structlog
from api_proxy import ApiProxy
from cluster_tools import Cluster, sharing, until, wait_until
from helm_tools import MINIMAL, Helm
from kube_backend import KubernetesBackend

from launch_async.adapters.leases.kubernetes import KubeLease
from launch_async.adapters.runners.kubernetes.runner import KubernetesRunner
from launch_async.domain.errors import AgentUnfit, ItemError, NotBegun, Unavailable
from launch_async.domain.run import RunHandle
from launch_async.ports.runner import LaunchOrder
from launch_async.testing import Play, order_for
from launch_async.testing.backends import end_of, printed
from launch_async.wire.kubernetes.cluster import KubeCluster

pytestmark = pytest.mark.anyio

LIST = Path(__file__).with_name("agent_rights.txt")
RELEASE = LEASE = "launch-agent"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
UNRULY = Play(seconds=600)

Rule = dict[str, Any]
Right = tuple[str, str, str]
"""API group, resource and verb."""


def rules_of(listed: str) -> list[Rule]:
    """A Role's rules, of lines as kubectl prints them."""
    rules = []
    for line in listed.splitlines():
        found = re.fullmatch(r"(\S+) +\[\] +\[(.*?)\] +\[(.*)\]", line.strip())
        assert found is not None, line
        resource, names, verbs = found.groups()
        name, _, group = resource.partition(".")
        rule = {"apiGroups": [group], "resources": [name], "verbs": verbs.split()}
        rules.append(rule | ({"resourceNames": names.split()} if names else {}))
    return rules


RULES = rules_of(LIST.read_text())
RIGHTS: list[Right] = [
    (rule["apiGroups"][0], rule["resources"][0], verb) for rule in RULES for verb in rule["verbs"]
]


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    """One namespace for all of them; each has a service account and an identity of its own."""
    name = f"launch-test-rbac-{os.getpid()}"
    with sharing(alone=False):
        labels = {"launch-async-test": "true"}
        metadata = {"name": name, "labels": labels}
        cluster.call("POST", "/api/v1/namespaces", {"metadata": metadata})
        cluster.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default")
        yield name
        for pod in cluster.pods(name):
            cluster.delete(f"/api/v1/namespaces/{name}/pods/{pod['metadata']['name']}", grace=1)
        cluster.delete(f"/api/v1/namespaces/{name}")


class Lab(KubernetesBackend):
    """The runner of an account that lacks one right."""

    def order(self, play: Play | None = None, **resource_args: Any) -> LaunchOrder:
        return order_for(self, play or Play(), resource_args=resource_args)

    def lease(self, api: KubeCluster) -> KubeLease:
        return KubeLease(api, name=LEASE, holder=self.identity)


@pytest.fixture
def make_lab(
    cluster: Cluster, proxy: ApiProxy, cluster_image: str, place: str, tmp_path: Path
) -> Callable[..., Lab]:
    def make(without: Right | None = None, rules: Sequence[Rule] = RULES) -> Lab:
        lab = Lab(cluster, proxy, cluster_image, place, tmp_path)
        token = new_account(cluster, place, lab.identity, [left(rule, without) for rule in rules])
        lab.kubeconfig = proxy.write_kubeconfig(tmp_path / "limited", token=token, namespace=place)
        return lab

    return make


def left(rule: Rule, without: Right | None) -> Rule:
    """The rule without this right, which may be its last one."""
    group, resource, verb = without or ("", "", "")
    if (group, resource) != (rule["apiGroups"][0], rule["resources"][0]):
        return rule
    return rule | {"verbs": [one for one in rule["verbs"] if one != verb] or ["nothing"]}


def new_account(cluster: Cluster, namespace: str, name: str, rules: Sequence[Rule]) -> str:
    """Its token, when the API server knows of its rights."""
    metadata = {"name": name}
    roles = f"{RBAC}/namespaces/{namespace}"
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    cluster.call("POST", accounts, {"metadata": metadata})
    cluster.call("POST", f"{roles}/roles", {"metadata": metadata, "rules": list(rules)})
    binding = {
        "metadata": metadata,
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
    }
    cluster.call("POST", f"{roles}/rolebindings", binding)
    review = {
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{name}",
            "resourceAttributes": {
                "namespace": namespace,
                "group": rules[1]["apiGroups"][0],
                "resource": rules[1]["resources"][0],
                "verb": rules[1]["verbs"][0],
            },
        }
    }
    reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    wait_until(lambda: cluster.call("POST", reviews, review)["status"]["allowed"])
    asked = {"spec": {"expirationSeconds": 600}}
    token: str = cluster.call("POST", f"{accounts}/{name}/token", asked)["status"]["token"]
    return token


async def launching(lab: Lab) -> str:
    async with lab.life() as runner:
        with pytest.raises((ItemError, Unavailable)) as told:
            await runner.launch(lab.order())
    return str(told.value)


async def launching_unwatched(lab: Lab) -> str:
    async with lab.life() as runner:
        with pytest.raises(NotBegun) as told:
            await runner.launch(lab.order())
    assert not (lab.folder / "kubernetes/spots.json").exists(), "later lives would look there"
    return str(told.value)


async def launching_what_a_crash_left(lab: Lab, order: LaunchOrder | None = None) -> str:
    order = order or lab.order()
    async with lab.life() as runner:
        await runner.launch(order)
    async with lab.life() as runner:
        with pytest.raises((ItemError, Unavailable)) as told:
            await runner.launch(order)
    return str(told.value)


@asynccontextmanager
async def an_ended_run(lab: Lab) -> AsyncGenerator[tuple[KubernetesRunner, RunHandle], None]:
    async with lab.life() as runner:
        handle = await runner.launch(lab.order())
        await end_of(runner, handle)
        yield runner, handle


async def removing(lab: Lab) -> str:
    async with an_ended_run(lab) as (runner, handle):
        with pytest.raises(Unavailable) as told:
            await runner.remove(handle)
    return str(told.value)


async def removing_the_keys(lab: Lab) -> str:
    async with an_ended_run(lab) as (runner, handle):
        with structlog.testing.capture_logs() as logs:
            await runner.remove(handle)
    return await said_in(logs, "secrets stay")


async def reading_logs(lab: Lab) -> str:
    async with an_ended_run(lab) as (runner, handle):
        with pytest.raises(Unavailable) as told:
            await runner.log_tail(handle, lines=5)
    return str(told.value)


async def cancelling(lab: Lab) -> str:
    async with lab.life() as runner:
        handle = await runner.launch(lab.order(UNRULY))
        with pytest.raises(Unavailable) as told:
            await runner.cancel(handle, within_seconds=1)
    return str(told.value)


async def ending_pods_that_take_their_time(lab: Lab) -> str:
    async with lab.life() as runner:
        handle = await runner.launch(lab.order(UNRULY))
        await until(
            lambda: lab.cluster.pods(lab.namespace, f"launch-async/item={handle.data['item']}")
        )
        with structlog.testing.capture_logs() as logs:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(runner.cancel, handle, within_seconds=1))
                told = await said_in(logs, "a pod is left to its own grace")
                tasks.cancel_scope.cancel()
    return told


async def saying_why_a_run_does_not_begin(lab: Lab) -> str:
    pod = {"spec": {"nodeSelector": {"no": "node"}}}
    async with lab.life() as runner:
        handle = await runner.launch(lab.order(spec={"template": pod}))
        with structlog.testing.capture_logs() as logs:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(end_of, runner, handle)
                told = await said_in(logs, "events cannot be read")
                tasks.cancel_scope.cancel()
    return told


async def said_in(logs: Sequence[Any], event: str) -> str:
    """Why, once something was logged."""
    with anyio.fail_after(30):
        while not (found := [one for one in logs if one["event"].startswith(event)]):
            await anyio.sleep(0.05)
    why: str = found[0]["why"]
    return why


async def taking_the_lease(lab: Lab) -> str:
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{lab.namespace}/leases"
    lab.cluster.delete(f"{leases}/{LEASE}")
    return await acquiring(lab)


async def taking_a_lease_that_was_left(lab: Lab) -> str:
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{lab.namespace}/leases"
    if lab.cluster.find(f"{leases}/{LEASE}") is None:
        lab.cluster.call("POST", leases, {"metadata": {"name": LEASE}})
    return await acquiring(lab)


async def acquiring(lab: Lab) -> str:
    api = KubeCluster(config_file=lab.kubeconfig, environ=os.environ)
    try:
        with pytest.raises(AgentUnfit) as told, anyio.fail_after(10):
            await lab.lease(api).acquire(identity="me", otherwise="", waits=print)
    finally:
        await api.close()
    assert "get, create and patch leases" in str(told.value)
    return str(told.value)


NEEDED_BY: dict[Right, Callable[[Lab], Awaitable[str]]] = {
    ("batch", "jobs", "create"): launching,
    ("batch", "jobs", "list"): launching_unwatched,
    ("batch", "jobs", "watch"): launching_unwatched,
    ("batch", "jobs", "get"): launching_what_a_crash_left,
    ("batch", "jobs", "patch"): removing,
    ("batch", "jobs", "delete"): cancelling,
    ("", "pods", "list"): launching_unwatched,
    ("", "pods", "watch"): launching_unwatched,
    ("", "pods", "delete"): ending_pods_that_take_their_time,
    ("", "pods/log", "get"): reading_logs,
    ("", "secrets", "create"): launching,
    ("", "secrets", "patch"): launching_what_a_crash_left,
    ("", "secrets", "delete"): removing_the_keys,
    ("", "events", "list"): saying_why_a_run_does_not_begin,
    ("coordination.k8s.io", "leases", "create"): taking_the_lease,
    ("coordination.k8s.io", "leases", "get"): taking_the_lease,
    ("coordination.k8s.io", "leases", "patch"): taking_a_lease_that_was_left,
}


@pytest.mark.parametrize("right", RIGHTS, ids=" ".join)
async def test_what_needs_a_right_that_is_missing_says_so(
    right: Right, make_lab: Callable[..., Lab]
):
    _, resource, verb = right
    told = await NEEDED_BY[right](make_lab(without=right))
    assert f'cannot {verb} resource "{resource}"' in told


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "spec": {"ports": [{"port": 80}], "selector": {"app": "none"}},
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "spec": {"containers": [{"imagePullPolicy": "IfNotPresent"}]},
}


def with_a_service(lab: Lab) -> LaunchOrder:
    service = {**SERVICE, "metadata": {"name": f"beside-{lab.identity}"}}
    return msgspec.structs.replace(lab.order(), services=(service,))


async def launching_a_pod(lab: Lab) -> str:
    async with lab.life() as runner:
        with pytest.raises(ItemError) as told:
            await runner.launch(lab.order(**POD))
    return str(told.value)


async def launching_a_pod_that_a_crash_left(lab: Lab) -> str:
    return await launching_what_a_crash_left(lab, lab.order(**POD))


async def launching_with_a_service(lab: Lab) -> str:
    async with lab.life() as runner:
        with pytest.raises(ItemError) as told:
            await runner.launch(with_a_service(lab))
    return str(told.value)


async def making_a_service_twice(lab: Lab) -> str:
    with lab.proxy.lose("create", "/services", times=1):
        return await launching_with_a_service(lab)


BESIDE_NEEDED_BY: dict[Right, Callable[[Lab], Awaitable[str]]] = {
    ("", "pods", "create"): launching_a_pod,
    ("", "pods", "get"): launching_a_pod_that_a_crash_left,
    ("", "services", "create"): launching_with_a_service,
    ("", "services", "get"): making_a_service_twice,
}


@pytest.fixture(scope="module")
def more_rules(tmp_path_factory: pytest.TempPathFactory) -> list[Rule]:
    """The Role of a chart that is told of pods and of services beside runs."""
    given = [f"{name}[0].apiVersion=v1" for name in ("kinds", "additionalServiceKinds")]
    given += ["kinds[0].kind=Pod", "additionalServiceKinds[0].kind=Service"]
    helm = Helm(tmp_path_factory.mktemp("helm"))
    objects = helm.objects("-f", str(MINIMAL), "--set", ",".join(given))
    [role] = [
        one for one in objects if one["metadata"]["name"] == RELEASE and one["kind"] == "Role"
    ]
    rules: list[Rule] = role["rules"]
    return rules


@pytest.mark.parametrize("right", BESIDE_NEEDED_BY, ids=" ".join)
async def test_a_kind_that_is_named_has_the_rights_that_it_needs(
    right: Right, make_lab: Callable[..., Lab], more_rules: list[Rule]
):
    _, resource, verb = right
    told = await BESIDE_NEEDED_BY[right](make_lab(right, more_rules))
    assert f'cannot {verb} resource "{resource}"' in told


async def test_named_kinds_are_run(make_lab: Callable[..., Lab], more_rules: list[Rule]):
    lab = make_lab(rules=more_rules)
    services = f"/api/v1/namespaces/{lab.namespace}/services/beside-{lab.identity}"
    async with lab.life() as runner:
        for order in (lab.order(**POD), with_a_service(lab)):
            handle = await runner.launch(order)
            assert (await end_of(runner, handle)).clean
            await runner.remove(handle)
            await until(lambda: lab.cluster.find(services) is None)


async def test_with_all_of_them_all_of_it_is_done(make_lab: Callable[..., Lab]):
    lab = make_lab()
    async with lab.life() as runner:
        await runner.rehearse(lab.order())
        order = lab.order(Play(prints=("working",)))
        handle = await runner.launch(order)
        assert (await runner.launch(order)).data["uid"] == handle.data["uid"]
        assert (await end_of(runner, handle)).clean
        assert await runner.log_tail(handle, lines=1) == ("working",)
        assert len(await runner.find(lab.identity)) == 1
        await runner.remove(handle)
        unruly = await runner.launch(lab.order(Play(prints=("begun",), seconds=600)))
        await printed(runner, unruly, "begun")
        await runner.cancel(unruly, within_seconds=1)
        await runner.remove(unruly)
        assert not await runner.find(lab.identity)


def test_the_charts_account_may_do_what_is_listed_and_no_more(
    cluster: Cluster, namespace: str, tmp_path: Path
):
    shown = [f"--show-only=templates/{name}.yaml" for name in ("serviceaccount", "rbac")]
    rendered = Helm(tmp_path).template(*shown, "-n", namespace, "-f", str(MINIMAL))
    cluster.kubectl("apply", "-f", "-", namespace=namespace, stdin=rendered)

    def listed(account: str) -> set[str]:
        who = f"--as=system:serviceaccount:{namespace}:{account}"
        lines = cluster.kubectl("auth", "can-i", "--list", who, namespace=namespace).splitlines()
        return {" ".join(line.split()) for line in lines}

    wanted = {" ".join(line.split()) for line in LIST.read_text().splitlines()}
    own = listed("launch-agent") - listed("default")
    wait_until(
        lambda: listed("launch-agent") - listed("default") == wanted,
        seconds=10,
        what=lambda: f"it may {sorted(own)}",
    )
