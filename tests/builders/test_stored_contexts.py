"""Build contexts in an object store: what is put there, what kaniko is told, what is removed.

One library reaches all stores: here a folder, and one that speaks S3.
"""

import os
import tarfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from launch_async.adapters.builders.cluster.builder import ClusterBuilder
from launch_async.adapters.builders.cluster.contexts import Contexts
from launch_async.adapters.builders.cluster.store import stored_contexts
from launch_async.compose.cluster_builds import cluster_builder
from launch_async.config.images import builder_section
from launch_async.domain.errors import ItemError, Unavailable
from launch_async.domain.run import RunEnd
from launch_async.ports.cluster_jobs import ClusterJob
from launch_async.ports.images import ImageBuild, RegistryLogins
from object_stores import LOGIN, REGION, ObjectStore

pytestmark = pytest.mark.anyio

NAME = "builds-0a1b2c3d-00ff"
FILE = f"builds-0a1b2c3d/{NAME}.tar.gz"
HOST = "registry.example"


class Nobody(RegistryLogins):
    async def login(self, image: object) -> None:
        del image


class Heard:
    """Implements `ports.cluster_jobs.ClusterJobs`: Jobs that succeed at once."""

    def __init__(self, bucket: Path) -> None:
        self.jobs: list[ClusterJob] = []
        self.files: list[str] = []
        self._bucket = bucket

    async def check(self) -> None: ...

    async def run(self, job: ClusterJob, **more: Any) -> RunEnd:
        self.jobs.append(job)
        await more["prepare"]()
        self.files = files_in(self._bucket)
        return RunEnd(exit_code=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def contexts(folder: Path) -> Contexts:
    return stored_contexts(f"file://{folder}")


@pytest.fixture
def code(tmp_path: Path) -> Path:
    code = tmp_path / "code"
    code.mkdir()
    (code / "Dockerfile").write_text("FROM scratch\n")
    (code / "large").write_bytes(os.urandom(1 << 20) * 12)
    return code


async def test_a_context_is_a_compressed_tar_at_its_address_until_it_is_removed(
    contexts: Contexts, folder: Path, code: Path
) -> None:
    await contexts.check()
    await contexts.write(NAME, code)

    assert contexts.address(NAME) == f"file://{folder}/{FILE}"
    assert contexts.mount(NAME) is None
    with tarfile.open(folder / FILE, "r:gz") as tar:
        found = {one.name: one.size for one in tar}
    assert found == {"Dockerfile": 13, "large": 12 << 20}
    await contexts.remove(NAME)
    await contexts.remove(NAME)
    assert not [path for path in folder.rglob("*") if path.is_file()]


async def test_a_context_that_cannot_be_read_is_not_there_in_part(
    contexts: Contexts, folder: Path, code: Path
) -> None:
    (code / "gone").symlink_to("nowhere")
    with pytest.raises(ItemError, match="cannot be read"):
        await contexts.write(NAME, code / "missing")
    assert not [path for path in folder.rglob("*") if path.is_file()]


async def test_old_contexts_of_this_agent_go_and_no_others(
    contexts: Contexts, folder: Path, code: Path
) -> None:
    old, young, others = (f"builds-{one}" for one in ("0a1b2c3d-0", "0a1b2c3d-1", "ffffffff-0"))
    for name in (old, young, others):
        await contexts.write(name, code)
    for name in (old, others):
        [path] = folder.rglob(f"{name}.tar.gz")
        os.utime(path, (0, 0))

    await contexts.sweep("builds-0a1b2c3d-", older_than_seconds=60.0)

    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert left == {f"{young}.tar.gz", f"{others}.tar.gz"}


@pytest.fixture
def bucket(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bucket of its own, which the agent reaches by its environment."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    return object_store.make_bucket(f"contexts-{uuid4().hex[:8]}")


def builder_of(jobs: Heard, bucket: str) -> ClusterBuilder:
    block = {
        "type": "kaniko",
        "destination": f"{HOST}/team/job",
        "build-context-store": f"s3://{bucket}/some/where/",
    }
    return cluster_builder(
        builder_section(block),
        jobs,
        Nobody(),
        environ=os.environ,
        identity="an-agent",
        insecure=[],
    )


def order(code: Path) -> ImageBuild:
    return ImageBuild(
        context=code,
        dockerfile="Dockerfile",
        image=f"{HOST}/team/job:la-123",
        push=True,
        log=code.parent / "build.log",
    )


async def test_kaniko_fetches_its_context_from_the_store_with_a_login_of_its_own(
    code: Path, bucket: Path, object_store: ObjectStore
) -> None:
    jobs = Heard(bucket)
    await builder_of(jobs, bucket.name).build(order(code), lambda _: None)

    [job] = jobs.jobs
    path = f"some/where/{job.name.rpartition('-')[0]}/{job.name}.tar.gz"
    assert jobs.files == [f"{path} 12 MiB"]
    assert files_in(bucket) == []
    pod = job.spec["template"]["spec"]
    [container] = pod["containers"]
    assert f"--context=s3://{bucket.name}/{path}" in container["args"]
    assert {one["name"]: one["value"] for one in container["env"]} == {
        "AWS_REGION": REGION,
        "S3_ENDPOINT": object_store.url,
        "S3_FORCE_PATH_STYLE": "true",
    }
    assert (pod["volumes"], container["volumeMounts"]) == ([], [])
    assert LOGIN not in repr(job)


@pytest.mark.parametrize("name", ["none-such", ""])
async def test_a_store_that_takes_nothing_is_an_outage_with_its_remedy(
    code: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if not name:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    builder = builder_of(Heard(bucket), name or bucket.name)
    with pytest.raises(Unavailable, match=r"s3://.*/some/where .*build-context-store"):
        await builder.build(order(code), lambda _: None)


async def test_what_a_killed_life_left_in_a_bucket_goes(
    contexts_in_s3: Contexts, bucket: Path, code: Path
) -> None:
    await contexts_in_s3.check()
    await contexts_in_s3.write(NAME, code)
    await contexts_in_s3.sweep("builds-0a1b2c3d-", older_than_seconds=3600.0)
    assert files_in(bucket) == [f"p/{FILE} 12 MiB"]
    await contexts_in_s3.sweep("builds-0a1b2c3d-", older_than_seconds=-3600.0)
    assert files_in(bucket) == []


@pytest.fixture
def contexts_in_s3(bucket: Path) -> Contexts:
    return stored_contexts(f"s3://{bucket.name}/p")


def files_in(bucket: Path) -> list[str]:
    return [
        f"{path.relative_to(bucket)} {path.stat().st_size >> 20} MiB"
        for path in bucket.rglob("*.tar.gz")
        if path.is_file()
    ]
