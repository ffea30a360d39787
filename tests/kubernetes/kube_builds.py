"""Builds in the real cluster: where they are made, and what they leave there.

Run as a program it is an agent that can be killed: it builds the order on its standard input.
"""

import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
from cluster_tools import Cluster, Json, has_condition, job, script
from kube_backend import connect_to, serving

from launch_async.adapters.builders.cluster.builder import ClusterBuilder
from launch_async.adapters.runners.kubernetes.own_jobs import OwnJobs
from launch_async.agent.tools import Target
from launch_async.compose.backends import open_targets
from launch_async.compose.cluster_builds import cluster_builder
from launch_async.config.images import builder_section
from launch_async.config.model import LaunchConfig
from launch_async.domain.ids import ItemId, QueueRef, RunId
from launch_async.domain.image import ImageRef
from launch_async.domain.item import Item
from launch_async.domain.job import ArtifactSource, GitSource, Job
from launch_async.domain.run import RunEnd
from launch_async.domain.spec import RunSpec
from launch_async.ports.build import BuildOrder, Progress
from launch_async.ports.cluster_jobs import ClusterJob
from launch_async.ports.images import ImageBuild, RegistryLogin
from registry_servers import Registry

CLAIM = "contexts"
BUILDKIT_IMAGE = "launch-async-test/buildkit:cluster"
KANIKO_IMAGE = "launch-async-test/kaniko-stand-in:cluster"
STAND_IN = r"""
for word in "$@"; do
    case $word in
        --context=tar://*) context=${word#--context=tar://} ;;
        --dockerfile=*) dockerfile=${word#*=} ;;
        --destination=*) destination=${word#*=} ;;
    esac
done
mkdir /tmp/context && tar -xzf "$context" -C /tmp/context && cd /tmp/context || exit 1
echo "INFO[0000] Building stage 'base' [idx: '0', base-idx: '-1']"
while read -r name rest; do
    [ "$name" = FROM ] && continue
    echo "INFO[0000] $name $rest"
    [ "$name" = RUN ] || continue
    sh -c "$rest" || {
        code=$?
        echo "error building image: waiting for process to exit: exit status $code"
        exit "$code"
    }
done <"$dockerfile"
echo "INFO[0001] Pushing image to $destination"
"""
"""No kaniko: it takes kaniko's arguments and talks as it does, runs what RUN says in the context,
and makes no image."""
_numbers = itertools.count(1)

Block = Mapping[str, Any]
"""A `builder` section, as in the agent's file."""


class Logins:
    """Implements `ports.images.RegistryLogins`: one for each host."""

    def __init__(self, known: Mapping[str, RegistryLogin] | None = None) -> None:
        self.known = dict(known or {})

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        return self.known.get(image.host)


class Code(msgspec.Struct):
    """Implements `ports.jobs.JobStore` for code jobs of these files."""

    files: dict[str, str]

    async def job(self, ref: str) -> Job:
        raise AssertionError(ref)

    async def fetch(self, source: ArtifactSource | GitSource, into: Path) -> None:
        write_files(into, self.files)


class Heard:
    """Implements `ports.build.Progress`."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.logs: set[Path] = set()

    def say(self, detail: str) -> None:
        self.said.append(detail)

    def keep_log(self, path: Path) -> None:
        self.logs.add(path)


class KeptJobs:
    """Implements `ports.cluster_jobs.ClusterJobs` without a cluster: keeps the Jobs."""

    def __init__(self) -> None:
        self.jobs: list[ClusterJob] = []

    async def check(self) -> None:
        pass

    async def run(self, job: ClusterJob, **_: Any) -> RunEnd:
        self.jobs.append(job)
        return RunEnd(exit_code=0)


class Order(msgspec.Struct, frozen=True):
    """What the program builds."""

    block: dict[str, Any]
    kubeconfig: Path
    insecure: str
    identity: str
    build: ImageBuild


@asynccontextmanager
async def builder_life(
    block: Block,
    kubeconfig: Path,
    insecure: str,
    *,
    logins: Logins | None = None,
    identity: str = "an-agent",
    start_seconds: float = 300.0,
) -> AsyncGenerator[ClusterBuilder, None]:
    """An agent's builder, from its start to its end."""
    jobs = OwnJobs(connect_to(kubeconfig), identity=identity, start_seconds=start_seconds)
    builder = cluster_builder(
        builder_section(dict(block)),
        jobs,
        logins or Logins(),
        environ={},
        identity=identity,
        insecure=[insecure],
    )
    async with serving(jobs):
        yield builder


class BuildSite(msgspec.Struct, frozen=True):
    """A namespace with a claim, and this machine's folder on its volume."""

    cluster: Cluster
    namespace: str
    registry: Registry
    base: str
    """What BASE in a Dockerfile stands for."""
    volume: Path
    folder: Path
    """For contexts and logs on this side."""
    kubeconfig: Path

    def block(self, **more: Any) -> dict[str, Any]:
        """BuildKit in privileged pods, which reach this machine's loopback."""
        cluster = {
            "namespace": self.namespace,
            "context-claim": CLAIM,
            "context-folder": str(self.volume),
            "image": BUILDKIT_IMAGE,
            "privileged": True,
            "job": {"spec": {"template": {"spec": {"hostNetwork": True}}}},
        }
        destination = f"{self.registry.host}/launch-async-test/in-cluster"
        cluster |= more.pop("cluster", {})
        return {"type": "buildkit", "destination": destination, "cluster": cluster, **more}

    def kaniko_block(self) -> dict[str, Any]:
        """What takes kaniko's arguments, as W&B's file says it."""
        cluster = {
            "namespace": self.namespace,
            "context-claim": CLAIM,
            "context-folder": str(self.volume),
        }
        return {
            "type": "kaniko",
            "destination": f"{self.registry.host}/launch-async-test/in-cluster",
            "kaniko-image": KANIKO_IMAGE,
            "kaniko-config": {"spec": {"template": {"metadata": {"labels": {"team": "ml"}}}}},
            "cluster": cluster,
        }

    def order(self, recipe: str, files: Mapping[str, str] | None = None, **more: Any) -> ImageBuild:
        """An image that nobody built before."""
        number = next(_numbers)
        folder = self.folder / f"context-{number}"
        write_files(folder, {"Dockerfile": recipe.replace("BASE", self.base), **(files or {})})
        tag = f"la-{os.getpid()}-{self.namespace.rpartition('-')[2]}-{number}"
        facts: dict[str, Any] = {
            "context": folder,
            "dockerfile": "Dockerfile",
            "image": f"{self.registry.host}/launch-async-test/in-cluster:{tag}",
            "push": True,
            "log": self.folder / f"{number}.log",
        }
        return ImageBuild(**(facts | more))

    def life(
        self, block: Block | None = None, **more: Any
    ) -> AbstractAsyncContextManager[ClusterBuilder]:
        """As `builder_life`."""
        return builder_life(block or self.block(), self.kubeconfig, self.registry.host, **more)

    @contextmanager
    def killable(self, build: ImageBuild, identity: str) -> Generator[subprocess.Popen[bytes]]:
        """A process that builds it; it is killed after the block, if not in it."""
        order = Order(self.block(), self.kubeconfig, self.registry.host, identity, build)
        agent = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        try:
            assert agent.stdin is not None
            agent.stdin.write(msgspec.json.encode(order, enc_hook=str))
            agent.stdin.close()
            yield agent
        finally:
            agent.kill()
            agent.wait(30)

    def run(self, image: str, *command: str) -> str:
        """What a pod of the cluster prints that runs the image."""
        name = f"run-{next(_numbers)}"
        self.cluster.apply(job(name, image, command), self.namespace)
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{name}"
        self.cluster.wait_for(path, lambda made: has_condition(made, "Complete"))
        [pod] = self.cluster.pods(self.namespace, f"job-name={name}")
        said: str = self.cluster.logs(pod["metadata"]["name"], self.namespace)
        self.cluster.delete(path)
        return said

    def jobs(self) -> list[Json]:
        """The Jobs of builds."""
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs"
        found: list[Json] = self.cluster.get(path)["items"]
        return [one for one in found if one["metadata"]["name"].startswith("wandb-launch-")]

    def pods(self) -> list[Json]:
        """Their pods, also those that are being ended."""
        found = self.cluster.pods(self.namespace)
        return [one for one in found if one["metadata"]["name"].startswith("wandb-launch-")]

    def secrets(self) -> list[Json]:
        found: list[Json] = self.cluster.get(f"/api/v1/namespaces/{self.namespace}/secrets")[
            "items"
        ]
        return found

    def is_clean(self) -> bool:
        """Whether nothing of any build is left."""
        left = [*self.jobs(), *self.pods(), *self.secrets(), *self.volume.iterdir()]
        return not left


@asynccontextmanager
async def agent_targets(
    config: LaunchConfig, code: Code
) -> AsyncGenerator[Mapping[str, Target], None]:
    """What an agent with this configuration serves, its services running."""
    slots = anyio.CapacityLimiter(2)
    opened = open_targets(
        config, code, environ=os.environ, ca_file=None, slots=slots, identity="an-agent"
    )

    async def run(serve: Callable[[], Awaitable[None]]) -> None:
        await serve()

    async with opened as backends, anyio.create_task_group() as tasks:
        for serve in backends.services.values():
            tasks.start_soon(run, serve)
        yield backends.targets
        tasks.cancel_scope.cancel()


def an_order(progress: Progress) -> BuildOrder:
    """Of a code job with a Dockerfile of its own."""
    item = Item(
        id=ItemId("item"),
        queue=QueueRef("team", "project", "queue"),
        run_id=RunId("run"),
        spec=RunSpec(entity="team", project="project", job="team/project/job:v0"),
        popped_at=time.time(),
    )
    entrypoint = ("cat", "/file")
    made = Job(
        source=ArtifactSource("artifact"),
        entrypoint=entrypoint,
        ref="team/project/job:v0",
        dockerfile="Dockerfile",
    )
    return BuildOrder(item=item, job=made, entrypoint=entrypoint, progress=progress)


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


async def job_body(block: Block, build: ImageBuild, logins: Logins) -> Json:
    """The Job of a build, as the cluster would get it."""
    jobs = KeptJobs()
    builder = cluster_builder(
        builder_section(dict(block)), jobs, logins, environ={}, identity="an-agent", insecure=[]
    )
    await builder.build(build, lambda _: None)
    [made] = jobs.jobs
    name = {"name": made.name}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": name, "spec": made.spec}


@contextmanager
def claimed(cluster: Cluster, namespace: str, folder: Path) -> Generator[None]:
    """A volume of this machine's folder, and the namespace's claim to it."""
    name = f"{namespace}-contexts"
    size = {"storage": "1Gi"}
    spec = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    claim = {"metadata": {"name": CLAIM}, "spec": {**spec, "resources": {"requests": size}}}
    uid = cluster.call("POST", claims, claim)["metadata"]["uid"]
    # It is bound at once only if it was there first, and the volume is for it and no other.
    volume = {
        "metadata": {"name": name},
        "spec": {
            **spec,
            "capacity": size,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": namespace, "name": CLAIM, "uid": uid},
        },
    }
    cluster.wait_for(f"{claims}/{CLAIM}", lambda one: one["status"].get("phase") == "Pending")
    try:
        cluster.call("POST", "/api/v1/persistentvolumes", volume)
        cluster.wait_for(f"{claims}/{CLAIM}", lambda one: one["status"].get("phase") == "Bound")
        yield
    finally:
        # It goes when the namespace has taken the claim away.
        cluster.delete(f"/api/v1/persistentvolumes/{name}")


def make_buildkit_image(programs: Path, base: str, folder: Path) -> None:
    """The base with buildkitd, buildctl and this machine's runc, on the node."""
    runc = Path(shutil.which("runc") or "/usr/sbin/runc")
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    for program in (programs / "buildkitd", programs / "buildctl", runc):
        shutil.copy(program, root / "bin")
    listed = subprocess.run(["ldd", runc], capture_output=True, text=True, check=False).stdout
    for library in re.findall(r"(/\S+) \(0x", listed):
        place = root / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY root/ /\n")
    build = ["docker", "build", "--quiet", "--tag", BUILDKIT_IMAGE, str(folder)]
    subprocess.run(build, check=True, capture_output=True)
    script("load", BUILDKIT_IMAGE, seconds=300)


def make_kaniko_stand_in(base: str, folder: Path) -> None:
    """What takes kaniko's arguments, on the node."""
    (folder / "stand-in").write_text(STAND_IN)
    words = 'ENTRYPOINT ["sh", "/stand-in"]'
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY stand-in /stand-in\n{words}\n")
    build = ["docker", "build", "--quiet", "--tag", KANIKO_IMAGE, str(folder)]
    subprocess.run(build, check=True, capture_output=True)
    script("load", KANIKO_IMAGE)


def push_tiny(tiny_image: str, registry: Registry) -> str:
    """The tiny image in the registry."""
    name = f"{registry.host}/{tiny_image}"
    for command in (["tag", tiny_image, name], ["push", "--quiet", name]):
        subprocess.run(["docker", *command], check=True, capture_output=True)
    return name


def sleeping(seconds: str) -> bool:
    """Whether a RUN sleeps for just so long, in whichever container."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == f"sleep\0{seconds}\0".encode():
                return True
        except OSError:
            continue
    return False


def unique_seconds() -> str:
    """A time to sleep that no other RUN on this machine sleeps."""
    mark = hashlib.sha256(f"{os.getpid()} {next(_numbers)}".encode()).hexdigest()
    return f"60.{int(mark[:12], 16)}"


async def _build() -> None:
    order = msgspec.json.decode(
        sys.stdin.buffer.read(), type=Order, dec_hook=lambda kind, text: kind(text)
    )
    place = (order.block, order.kubeconfig, order.insecure)
    async with builder_life(*place, identity=order.identity) as builder:
        await builder.build(order.build, lambda _: None)


if __name__ == "__main__":
    anyio.run(_build)
