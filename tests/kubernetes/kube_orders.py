"""Launch orders for Kubernetes, and the manifests that are made of them; no cluster is needed."""

from collections.abc import Mapping
from typing import Any

from launch_async.adapters.runners.kubernetes.injection import CodeFetch
from launch_async.adapters.runners.kubernetes.manifest import Manifest, make_manifest
from launch_async.adapters.runners.kubernetes.policy import KubernetesPolicy
from launch_async.domain.ids import ItemId, QueueRef, RunId, RunRef
from launch_async.domain.run import Origin
from launch_async.domain.secret import Secret
from launch_async.ports.runner import ImageWork, LaunchOrder
from launch_async.testing import SECRET

IMAGE = "registry.example/team/image:tag"
ENVIRONMENT = {"WANDB_BASE_URL": "http://service.example", "WANDB_RUN_ID": "7k2m9xq1"}


def an_order(
    resource_args: Mapping[str, Any],
    *,
    run_id: str = "7k2m9xq1",
    item_id: str = "UnVuUXVldWVJdGVtOjE=",
    identity: str = "agent-1",
    entrypoint: tuple[str, ...] = (),
    environment: Mapping[str, str] = ENVIRONMENT,
    secrets: Mapping[str, str] | None = None,
    work: ImageWork | None = None,
    **more: Any,
) -> LaunchOrder:
    origin = Origin(
        identity=identity,
        life="one",
        service="http://service.example",
        item_id=ItemId(item_id),
        queue=QueueRef("team", "model-registry", "queue"),
        run=RunRef("team", "project", RunId(run_id)),
        resource="kubernetes",
        image=IMAGE,
    )
    kept = {"WANDB_API_KEY": SECRET} if secrets is None else secrets
    return LaunchOrder(
        origin=origin,
        work=work or ImageWork(image=IMAGE, entrypoint=entrypoint),
        args=more.pop("args", ()),
        environment=environment,
        secrets={name: Secret(value) for name, value in kept.items()},
        resource_args=resource_args,
        **more,
    )


def manifest_of(
    resource_args: Mapping[str, Any],
    *,
    policy: KubernetesPolicy | None = None,
    image: str | None = IMAGE,
    pull_secret: bool = False,
    fetch: CodeFetch | None = None,
    **order: Any,
) -> Manifest:
    return make_manifest(
        an_order(resource_args, **order),
        policy or KubernetesPolicy(),
        image=image,
        default_namespace="wandb",
        pull_secret=pull_secret,
        fetch=fetch,
    )


def pod_of(manifest: Manifest) -> dict[str, Any]:
    """The spec of a Job's pods, or of a Pod."""
    spec: dict[str, Any] = manifest.body["spec"]
    return spec["template"]["spec"] if "template" in spec else spec


def container_of(manifest: Manifest, index: int = 0) -> dict[str, Any]:
    container: dict[str, Any] = pod_of(manifest)["containers"][index]
    return container
