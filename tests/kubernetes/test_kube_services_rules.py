"""What services items may bring, and what items are warned of; no cluster is needed."""

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from kube_orders import an_order, manifest_of
from kube_site import KubeSite, answer, kube_site

from launch_async.adapters.runners.kubernetes.clusters import connector
from launch_async.adapters.runners.kubernetes.event_looks import with_events
from launch_async.adapters.runners.kubernetes.objects import Event
from launch_async.adapters.runners.kubernetes.plans import wait_seconds
from launch_async.adapters.runners.kubernetes.policy import KubernetesPolicy
from launch_async.adapters.runners.kubernetes.runner import KubernetesRunner
from launch_async.cli.main import main
from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.policy import QueueDefaults, openings, refusals
from launch_async.domain.run import RunState, RunStatus
from launch_async.domain.spec import RunSpec
from launch_async.wire.codec import decode_run_spec

QUEUE = QueueDefaults(resource="kubernetes", args={"hostNetwork": True})
TOKEN = {"kind": "Secret", "type": "kubernetes.io/service-account-token"}


def spec_of(*services: dict[str, Any], resource: str = "kubernetes") -> RunSpec:
    return RunSpec(
        entity="e",
        project="p",
        image="i",
        resource=resource,
        resource_args=dict(QUEUE.args),
        additional_services=services,
    )


def pod(**fields: Any) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": "db"}, "spec": fields}


def test_services_come_with_the_run_spec_as_w_and_b_writes_it():
    wire = {
        "entity": "e",
        "project": "p",
        "job": "e/p/j:v1",
        "additional_services": [{"name": "db", "config": {"kind": "Pod"}}, {"config": None}],
    }
    assert decode_run_spec(wire).additional_services == ({"kind": "Pod"},)
    assert decode_run_spec({**wire, "additional_services": None}).additional_services == ()


@pytest.mark.parametrize(
    ("service", "key"),
    [
        (pod(hostNetwork=True), "spec.hostNetwork"),
        (pod(serviceAccountName="admin"), "spec.serviceAccountName"),
        (pod(volumes=[{"hostPath": {"path": "/"}}]), "spec.volumes.0.hostPath.path"),
        (TOKEN, "type"),
    ],
)
def test_what_opens_the_cluster_is_refused_of_services_in_any_mode(
    service: dict[str, Any], key: str
):
    spec = spec_of(pod(), service)
    assert openings(spec, QUEUE) == (f"additional_services.1.{key}",)
    assert f"additional_services.1.{key}" in refusals(spec, QUEUE)


def test_secure_mode_locks_of_services_what_it_locks_of_pods():
    spec = spec_of(pod(containers=[{"command": ["sh"]}]))
    assert openings(spec, QUEUE) == ()
    assert refusals(spec, QUEUE) == ("additional_services.0.spec.containers.0.command.0",)
    assert refusals(spec_of(pod(containers=[{"image": "redis"}])), QUEUE) == ()


def test_other_resources_make_no_services_and_so_refuse_none():
    spec = spec_of(pod(hostNetwork=True), resource="local-process")
    defaults = QueueDefaults(resource="local-process", args=dict(QUEUE.args))
    assert openings(spec, defaults) == refusals(spec, defaults) == ()


def test_an_operator_may_refuse_tokens_of_accounts_to_queues():
    with pytest.raises(ItemError, match="serviceAccountToken"):
        KubernetesPolicy(allow=frozenset()).check_body(TOKEN)


@pytest.mark.parametrize(
    ("args", "seconds"),
    [
        ({}, 300.0),
        ({"wait_timeout": 20}, 20.0),
        ({"wait_for_ready": True}, 300.0),
        ({"wait_for_ready": False, "wait_timeout": 20}, 0.0),
    ],
)
def test_w_and_bs_keys_say_how_long_services_are_waited_for(args: dict[str, Any], seconds: float):
    assert wait_seconds(args) == seconds


@pytest.mark.parametrize(
    "args",
    [{"wait_timeout": "20"}, {"wait_timeout": 0}, {"wait_timeout": 10**6}, {"wait_for_ready": "y"}],
)
def test_a_wait_that_is_none_is_named(args: dict[str, Any]):
    with pytest.raises(ItemError, match=next(iter(args))) as wrong:
        wait_seconds(args)
    assert wrong.value.reason is Reason.RESOURCE_ARGS_INVALID


@pytest.mark.parametrize(
    ("address", "spec", "warned"),
    [
        ("http://127.0.0.1:8383", {}, True),
        ("http://localhost:8383", {}, True),
        ("http://127.0.0.1:8383", {"hostNetwork": True}, False),
        ("http://w.example", {}, False),
        (
            "http://127.0.0.1:8383",
            {"containers": [{"env": [{"name": "WANDB_BASE_URL", "value": "http://w.example"}]}]},
            False,
        ),
    ],
)
def test_an_address_that_is_the_pod_itself_is_warned_of(
    address: str, spec: dict[str, Any], warned: bool
):
    args = {"spec": {"template": {"spec": spec}}}
    warnings = manifest_of(args, environment={"WANDB_BASE_URL": address}).warnings
    assert len(warnings) == warned
    assert all(address in warning for warning in warnings)


@pytest.mark.parametrize(
    ("address", "section", "warned"),
    [
        ("http://127.0.0.1:8383", "{}", True),
        ("http://127.0.0.1:8383", "null", False),
        ("https://w.example", "{}", False),
    ],
)
def test_a_check_of_the_configuration_warns_of_such_an_address(
    address: str, section: str, warned: bool, tmp_path: Path
):
    file = tmp_path / "c.yaml"
    file.write_text(f"queues: [a]\nagent: {{kubernetes: {section}}}\n")
    environ = {"WANDB_BASE_URL": address, "WANDB_API_KEY": "k" * 40, "HOME": str(tmp_path)}
    words = ["agent", "--check-config", "-c", str(file)]
    result = CliRunner().invoke(main, words, env=environ)
    assert result.exit_code == 0, result.output
    assert (f"warning: API: {address} is this machine itself" in result.output) is warned


def test_what_only_events_tell_is_a_warning_of_runs_that_wait():
    said = "pod didn't trigger scale-up: 2 max node group size reached, 1 Insufficient gpu"
    events = [Event(reason="NotTriggerScaleUp", message=said)]
    status = with_events(RunStatus(state=RunState.STARTING, warning="no node fits"), events)
    assert status.warning == (
        "no node fits; the cluster adds no node for it (NotTriggerScaleUp): pod didn't trigger"
        " scale-up: Insufficient gpu; max node group size reached"
    )
    for quiet in (
        RunStatus(state=RunState.RUNNING),
        RunStatus(state=RunState.UNKNOWN, detail="the cluster does not answer"),
    ):
        assert with_events(quiet, events) is quiet


@pytest.mark.anyio
@pytest.mark.parametrize(("minor", "warned"), [("22", True), ("24+", True), ("34", False)])
async def test_a_server_too_old_to_refuse_a_field_is_compared_with(
    minor: str, warned: bool, tmp_path: Path
) -> None:
    """It keeps what it knows: here all but one field, and lists that others have added to."""
    order = an_order({"spec": {"compleetions": 2, "parallelism": 0}})
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    async with kube_site() as site:
        _serve_jobs(site, minor)
        sent = manifest_of(order.resource_args).body
        kept = {**sent, "spec": {"template": sent["spec"]["template"]}}
        kept["spec"]["backoffLimit"] = kept["spec"]["ttlSecondsAfterFinished"] = 1
        site.on("POST", jobs, answer(kept))
        connect = connector(
            config_file=site.kubeconfig(tmp_path / "config"),
            context=None,
            environ=os.environ,
            calls_per_second=100,
            burst=100,
        )
        runner = KubernetesRunner(connect=connect, folder=tmp_path)
        try:
            warnings = await runner.rehearse(order)
        finally:
            await runner.close()
        asked = next(one for one in site.requests if one.method == "POST")
    assert asked.query["fieldValidation"] == "Strict"
    assert asked.query["dryRun"] == "All"
    assert len(warnings) == warned
    assert all("`spec.compleetions` of Job" in warning for warning in warnings)


def _serve_jobs(site: KubeSite, minor: str) -> None:
    kinds = {"resources": [{"name": "jobs", "kind": "Job", "namespaced": True}]}
    site.on("GET", "/apis/batch/v1", answer(kinds))
    site.on("GET", "/version", answer({"major": "1", "minor": minor}))
