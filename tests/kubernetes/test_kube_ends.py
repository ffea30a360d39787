"""How runs end on a real cluster: what its controllers, scheduler and kubelet make of them.

All runs of a test go on at once. `states.yaml` has the words for many more cases; here are those in
which the cluster itself must play its part.
"""

import os
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from api_proxy import ApiProxy, api_proxy
from cluster_tools import Cluster, Json, Kwok
from kube_backend import KubernetesBackend
from kube_ends import WITHIN_SECONDS, Ends, object_for_now, refused_by, run_all
from kube_field import own_namespace

from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.run import RunEnd, RunState, StartCause

pytestmark = pytest.mark.anyio

NODES = "/api/v1/nodes"
PRIORITIES = "/apis/scheduling.k8s.io/v1/priorityclasses"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
OWN = f"t{os.getpid()}"
KEPT_FREE = {"key": "kwok", "value": "true", "effect": "NoSchedule"}
"""Of nodes without containers: pods of others stay away."""
LONG = Kwok().play(runs_for="600s")
RESUMABLE = "exec sh -c \"trap 'exit 0' TERM; sleep 600 & wait\""


@pytest.fixture
def backend(
    cluster: Cluster, proxy: ApiProxy, cluster_image: str, namespace: str, tmp_path: Path
) -> KubernetesBackend:
    return KubernetesBackend(cluster, proxy, cluster_image, namespace, tmp_path)


@pytest.fixture(scope="module")
def lost(
    cluster: Cluster, kwok: Kwok, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[RunEnd]]:
    """How a run ends whose node is removed: the cluster notices within a minute or so, in which
    other tests go on.
    """
    with (
        own_namespace(cluster, f"launch-{OWN}-lost") as name,
        api_proxy(cluster.access) as proxy,
        start_blocking_portal() as portal,
    ):
        backend = KubernetesBackend(cluster, proxy, "none", name, tmp_path_factory.mktemp("lost"))
        end = portal.start_task_soon(lose, backend)
        yield end
        end.cancel()


async def lose(backend: KubernetesBackend) -> RunEnd:
    async with backend.life() as runner, AsyncExitStack() as stack:
        ends = Ends(backend, runner)
        node = await stack.enter_async_context(a_node(ends, "lost"))
        handle = await ends.launch_fake("lost", LONG, pod=only_on(node))
        return await ends.end(handle, once_it_runs=stack.aclose)


async def a_parallel_job_ends_with_the_pod_that_failed(ends: Ends) -> None:
    script = "[ $JOB_COMPLETION_INDEX = 1 ] && exit 4; exec sleep 600"
    spec = {"completions": 3, "parallelism": 3, "completionMode": "Indexed"}
    end = await ends.end(await ends.launch("parallel", script, spec=spec))
    assert end.exit_code == 4
    assert "it was its pod" in end.detail


async def an_index_may_fail_without_the_others(ends: Ends) -> None:
    spec = {"completions": 3, "parallelism": 3, "completionMode": "Indexed"}
    limits = {"backoffLimitPerIndex": 0, "backoffLimit": 2147483647}
    script = "[ $JOB_COMPLETION_INDEX = 2 ] && exit 5; exit 0"
    end = await ends.end(await ends.launch("indexed", script, spec={**spec, **limits}))
    assert end.exit_code == 5
    assert "failed indexes: 2" in end.detail


async def four_failures_are_too_many_for_a_backoff_limit_of_three(ends: Ends) -> None:
    spec = {"completions": 4, "parallelism": 4, "backoffLimit": 3}
    end = await ends.end(await ends.launch("tries", "exit 7", spec=spec))
    assert end.exit_code == 7
    assert "4 of its pods failed" in end.detail


async def a_failed_try_is_no_failed_job(ends: Ends) -> None:
    """The second of four tries finds on the node what the first one left there."""
    volume = {"name": "left", "hostPath": {"path": str(ends.folder), "type": "Directory"}}
    mount = {"volumeMounts": [{"name": "left", "mountPath": "/left"}]}
    as_root = {"securityContext": {"runAsUser": 0, "runAsNonRoot": False}}
    script = "[ -e /left/once ] || { touch /left/once; exit 6; }"
    handle = await ends.launch(
        "retried",
        script,
        spec={"backoffLimit": 3},
        pod={"volumes": [volume], **as_root},
        container=mount,
    )
    status = await ends.said(handle, lambda status: "1 of 4 tries failed" in status.detail)
    assert status.state is RunState.RUNNING
    assert (await ends.end(handle)).clean


async def a_job_that_is_suspended_in_its_run_waits_for_somebody(ends: Ends) -> None:
    handle = await ends.launch("suspended")
    await ends.running(handle)
    await ends.merge(ends.job(handle), {"spec": {"suspend": True}})
    status = await ends.said(handle, lambda status: status.state is RunState.STARTING)
    assert status.cause is StartCause.QUEUED
    assert "spec.suspend" in status.warning
    await ends.runner.cancel(handle, within_seconds=1)
    assert not (await ends.end(handle)).clean


async def its_failure_policy_ends_a_job_before_its_tries_are_used_up(ends: Ends) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    spec = {"backoffLimit": 3, "podFailurePolicy": {"rules": [rule]}}
    handle = await ends.launch("policy", "exit 42", spec=spec, pod={"restartPolicy": "Never"})
    assert (await ends.end(handle)).exit_code == 42


async def its_own_deadline_ends_a_job(ends: Ends) -> None:
    end = await ends.end(await ends.launch("deadline", spec={"activeDeadlineSeconds": 6}))
    assert end.reason is Reason.RUN_TIMEOUT
    assert "activeDeadlineSeconds of 6 s" in end.detail


async def more_than_its_limit_of_memory_kills_it(ends: Ends) -> None:
    limits = {"resources": {"limits": {"memory": "20Mi"}}}
    handle = await ends.launch("memory", "x=a; while true; do x=$x$x; done", container=limits)
    assert (await ends.end(handle)).reason is Reason.OUT_OF_MEMORY


async def an_eviction_over_the_api_asks_for_another_try(ends: Ends) -> None:
    handle = await ends.launch("evicted")
    await ends.running(handle)
    await ends.evict(handle)
    end = await ends.end(handle)
    assert end.reason is Reason.PREEMPTED
    assert "EvictionByEvictionAPI" in end.detail


async def a_pod_without_a_controller_may_be_evicted_too(ends: Ends) -> None:
    handle = await ends.launch_args("pod", a_pod("main"))
    await ends.running(handle)
    await ends.evict(handle)
    assert (await ends.end(handle)).reason is Reason.PREEMPTED


async def such_a_pod_fails_with_its_code(ends: Ends) -> None:
    handle = await ends.launch_args("failing-pod", a_pod("main"), "exit 3")
    end = await ends.end(handle)
    assert (end.exit_code, end.reason) == (3, None)


async def who_deletes_its_pod_kills_it(ends: Ends) -> None:
    handle = await ends.launch("pod-deleted")
    await ends.running(handle)
    name = (await ends.pod(handle)).rpartition("/")[2]
    await ends.kubectl("delete", "pod", name, "--wait=false")
    end = await ends.end(handle)
    assert end.reason is Reason.KILLED
    assert "deleted by somebody else" in end.detail


async def who_deletes_its_job_makes_it_vanish(ends: Ends) -> None:
    """As kubectl does it: the Job goes at once, its pod a little later, ended well by that."""
    handle = await ends.launch("job-deleted", RESUMABLE)

    async def delete() -> None:
        await ends.kubectl("delete", "job", handle.data["name"], "--wait=false")

    end = await ends.end(handle, once_it_runs=delete)
    assert end.reason is Reason.VANISHED
    assert "deleted by somebody else" in end.detail


async def who_deletes_its_job_but_spares_its_pod_ends_both(ends: Ends) -> None:
    handle = await ends.launch("orphaned")

    async def delete() -> None:
        await ends.delete(ends.job(handle), propagation="Orphan")

    end = await ends.end(handle, once_it_runs=delete)
    assert end.reason is Reason.VANISHED
    await ends.runner.remove(handle)
    with anyio.fail_after(WITHIN_SECONDS):
        while await ends.pods(handle):
            await anyio.sleep(0.2)


async def an_init_container_that_fails_says_so(ends: Ends) -> None:
    init = {"name": "first", "image": ends.image, "command": ["sh", "-c", "exit 5"]}
    end = await ends.end(await ends.launch("init", pod={"initContainers": [init]}))
    assert end.exit_code == 5
    assert "first" in end.detail


async def an_image_that_is_not_there_is_told(ends: Ends) -> None:
    handle = await ends.launch("image", image="127.0.0.1:9/none:1")
    status = await ends.said(handle, lambda status: status.cause is StartCause.IMAGE)
    assert "127.0.0.1:9/none:1" in status.warning
    await ends.runner.cancel(handle, within_seconds=1)
    assert not (await ends.end(handle)).clean


async def a_policy_of_the_cluster_refuses_jobs_and_pods(ends: Ends) -> None:
    """As an admission webhook does; the first is told at once, the second while it waits."""
    async with a_refusal(ends, "jobs"), a_refusal(ends, "pods"):
        with pytest.raises(ItemError, match="no such jobs here") as wrong:
            await ends.launch_args("refused", {"metadata": {"labels": {"refused": "jobs"}}})
        assert wrong.value.reason in {Reason.FORBIDDEN, Reason.RESOURCE_ARGS_INVALID}
        template = {"metadata": {"labels": {"refused": "pods"}}}
        handle = await ends.launch_args("no-pods", {"spec": {"template": template}})
        status = await ends.said(handle, lambda status: status.cause is StartCause.REFUSED)
        assert "no such pods here" in status.warning
        await ends.runner.cancel(handle, within_seconds=1)


REAL = (
    a_parallel_job_ends_with_the_pod_that_failed,
    an_index_may_fail_without_the_others,
    four_failures_are_too_many_for_a_backoff_limit_of_three,
    a_failed_try_is_no_failed_job,
    a_job_that_is_suspended_in_its_run_waits_for_somebody,
    its_failure_policy_ends_a_job_before_its_tries_are_used_up,
    its_own_deadline_ends_a_job,
    more_than_its_limit_of_memory_kills_it,
    an_eviction_over_the_api_asks_for_another_try,
    a_pod_without_a_controller_may_be_evicted_too,
    such_a_pod_fails_with_its_code,
    who_deletes_its_pod_kills_it,
    who_deletes_its_job_makes_it_vanish,
    who_deletes_its_job_but_spares_its_pod_ends_both,
    an_init_container_that_fails_says_so,
    an_image_that_is_not_there_is_told,
    a_policy_of_the_cluster_refuses_jobs_and_pods,
)


async def test_runs_end_as_their_cluster_ends_them(
    backend: KubernetesBackend, lost: Future[RunEnd]
) -> None:
    async with backend.life() as runner:
        assert await run_all(Ends(backend, runner), REAL) == {}


async def its_kubelet_puts_it_out_when_the_node_is_short(ends: Ends) -> None:
    handle = await ends.launch_fake("short", LONG)
    await ends.running(handle)
    taken = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
    words = "The node was low on resource: memory."
    status = {"phase": "Failed", "reason": "Evicted", "message": words}
    change = {"status": {**status, "conditions": [taken]}}
    await ends.merge(f"{await ends.pod(handle)}/status", change)
    end = await ends.end(handle)
    assert end.reason is Reason.PREEMPTED
    assert "TerminationByKubelet" in end.detail


async def a_node_that_is_given_up_takes_it_along(ends: Ends) -> None:
    async with a_node(ends, "given-up") as node:
        handle = await ends.launch_fake("given-up", LONG, pod=only_on(node))
        await ends.running(handle)
        taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
        await ends.merge(f"{NODES}/{node}", {"spec": {"taints": [KEPT_FREE, taint]}})
        end = await ends.end(handle)
    assert end.reason is Reason.PREEMPTED
    assert "DeletionByTaintManager" in end.detail


async def something_more_important_takes_its_place(ends: Ends) -> None:
    important = {"metadata": {"name": f"{OWN}-important"}, "value": 1000000}
    container = {"name": "main", "resources": {"requests": {"cpu": "40"}}}
    async with a_node(ends, "small") as node, object_for_now(ends, PRIORITIES, important):
        pod = {**only_on(node), "containers": [container]}
        handle = await ends.launch_fake("preempted", LONG, pod=pod)
        await ends.running(handle)
        other = {"priorityClassName": f"{OWN}-important", **pod}
        other["containers"] = [{**container, "image": "none"}]
        body = {"metadata": {"name": "important"}, "spec": other}
        await ends.call("POST", f"/api/v1/namespaces/{ends.namespace}/pods", body)
        end = await ends.end(handle)
        await ends.delete(f"/api/v1/namespaces/{ends.namespace}/pods/important", grace=0)
    assert end.reason is Reason.PREEMPTED
    assert "PreemptionByScheduler" in end.detail


@pytest.mark.usefixtures("kwok")
async def test_runs_end_as_their_nodes_end_them(backend: KubernetesBackend) -> None:
    cases = (
        its_kubelet_puts_it_out_when_the_node_is_short,
        a_node_that_is_given_up_takes_it_along,
        something_more_important_takes_its_place,
    )
    async with backend.life() as runner:
        assert await run_all(Ends(backend, runner), cases) == {}


def a_pod(name: str) -> Json:
    spec = {"terminationGracePeriodSeconds": 1, "containers": [{"name": name}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": spec}


def only_on(node: str) -> Json:
    """What a pod's spec needs to come to this node, and to leave it as soon as it is lost."""
    quick = [
        {"key": f"node.kubernetes.io/{why}", "effect": "NoExecute", "tolerationSeconds": 0}
        for why in ("unreachable", "not-ready")
    ]
    tolerations = [*Kwok().pod()["tolerations"], *({"operator": "Exists", **one} for one in quick)]
    return {"nodeSelector": {"launch-async-test": node}, "tolerations": tolerations}


@asynccontextmanager
async def a_node(ends: Ends, name: str) -> AsyncGenerator[str, None]:
    """A node without containers for one case alone."""
    full = f"{OWN}-{name}"
    room = {"cpu": "64", "memory": "64Gi", "pods": "10"}
    meta = {
        "name": full,
        "annotations": {"kwok.x-k8s.io/node": "fake"},
        "labels": {"launch-async-test": full},
    }
    status = {"allocatable": room, "capacity": room}
    body = {"metadata": meta, "spec": {"taints": [KEPT_FREE]}, "status": status}
    async with object_for_now(ends, NODES, body):
        yield full


@asynccontextmanager
async def a_refusal(ends: Ends, resource: str) -> AsyncGenerator[None, None]:
    """A policy that refuses what is labelled so, in force."""
    group, version = ("batch", "v1") if resource == "jobs" else ("", "v1")
    name = f"{OWN}-no-{resource}"
    rule: dict[str, Any] = {"operations": ["CREATE"], "resources": [resource]}
    rule |= {"apiGroups": [group], "apiVersions": [version]}
    label = f"object.metadata.?labels.refused.orValue('') != '{resource}'"
    policy = {
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": label, "message": f"no such {resource} here"}],
        },
    }
    only_here = {"matchLabels": {"kubernetes.io/metadata.name": ends.namespace}}
    binding = {
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": only_here},
        },
    }
    pod = {"metadata": {"name": "x", "labels": {"refused": resource}}, "spec": {}}
    pod["spec"] = {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}
    probe, path = pod, f"/api/v1/namespaces/{ends.namespace}/pods"
    if resource == "jobs":
        probe = {"metadata": pod["metadata"], "spec": {"template": {"spec": pod["spec"]}}}
        path = f"/apis/batch/v1/namespaces/{ends.namespace}/jobs"
    async with (
        object_for_now(ends, POLICIES, policy),
        object_for_now(ends, BINDINGS, binding),
    ):
        await refused_by(ends, path, probe, f"no such {resource} here")
        yield


@pytest.mark.usefixtures("cluster_share")
def test_what_ran_on_a_node_that_is_gone_asks_for_another_try(lost: Future[RunEnd]) -> None:
    end = lost.result(timeout=WITHIN_SECONDS)
    assert end.reason is Reason.PREEMPTED
    assert "DeletionByPodGC" in end.detail
