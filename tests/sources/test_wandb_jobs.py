"""Jobs and code from the real control plane; broken artifacts from a server that lies."""

import base64
import hashlib
import json
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from git_servers import Repository, https_server
from launch_async.adapters.sources.git import GitCode
from launch_async.adapters.sources.wandb import WandbJobStore
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.git import GitSettings
from launch_async.domain.job import ArtifactSource, GitSource
from launch_async.domain.secret import Secret
from launch_async.sdk.artifacts import NewArtifact, log_artifact
from launch_async.wire.transport import Transport
from real_server import ENTITY, RealServer, real_server

pytestmark = pytest.mark.anyio

CODE = ArtifactSource(artifact_id="code-id")


@pytest.fixture
async def server(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[RealServer]:
    async with real_server(tmp_path / "server") as running:
        yield running


async def a_job(server: RealServer, folder: Path) -> str:
    (folder / "lib").mkdir(parents=True)
    (folder / "train.py").write_text("print(1)")
    (folder / "lib" / "a b%.py").write_text("")
    return await server.client.create_code_job(
        folder, project="p", name="j", entrypoint=["python", "train.py"]
    )


async def test_a_job_and_its_code_come_as_they_were_made(server: RealServer, tmp_path: Path):
    ref = await a_job(server, tmp_path / "src")
    store = WandbJobStore(server.transport)
    job = await store.job(ref)
    assert job.entrypoint == ("python", "train.py")
    assert isinstance(job.source, ArtifactSource)
    (tmp_path / "into").mkdir()
    await store.fetch(job.source, tmp_path / "into")
    assert (tmp_path / "into" / "train.py").read_text() == "print(1)"
    assert (tmp_path / "into" / "lib" / "a b%.py").read_text() == ""


@pytest.mark.parametrize("ref", ["me/p/none:latest", "tester/p/j:v9", "tester/none/j:latest"])
async def test_a_missing_job_is_named(server: RealServer, tmp_path: Path, ref: str):
    await a_job(server, tmp_path / "src")
    with pytest.raises(ItemError, match=ref) as caught:
        await WandbJobStore(server.transport).job(ref)
    assert caught.value.reason is Reason.JOB_NOT_FOUND


@pytest.mark.parametrize("ref", ["", "job", "a/b", "a//c", "a/b/c/d"])
async def test_what_names_no_job_is_refused(server: RealServer, ref: str):
    with pytest.raises(ItemError, match="must look like entity/project/name:alias"):
        await WandbJobStore(server.transport).job(ref)


async def test_an_artifact_of_another_type_is_no_job(server: RealServer, tmp_path: Path):
    await a_job(server, tmp_path / "src")
    with pytest.raises(ItemError, match="of type 'code', not a job"):
        await WandbJobStore(server.transport).job(f"{ENTITY}/p/code-j:latest")


async def test_a_job_without_its_file_is_refused(server: RealServer, tmp_path: Path):
    await a_job(server, tmp_path / "src")
    empty = NewArtifact(entity=ENTITY, project="p", type="job", name="e", files={"x": b"1"})
    await log_artifact(server.transport, empty)
    with pytest.raises(ItemError, match=r"holds no wandb-job\.json"):
        await WandbJobStore(server.transport).job(f"{ENTITY}/p/e:latest")


async def test_a_job_file_that_is_none_is_refused(server: RealServer, tmp_path: Path):
    await a_job(server, tmp_path / "src")
    files = {"wandb-job.json": b'{"source_type": "artifact"}'}
    broken = NewArtifact(entity=ENTITY, project="p", type="job", name="b", files=files)
    await log_artifact(server.transport, broken)
    with pytest.raises(ItemError, match="cannot be understood"):
        await WandbJobStore(server.transport).job(f"{ENTITY}/p/b:latest")


async def a_git_job(
    server: RealServer, repository: Repository, remote: str, **files: bytes
) -> tuple[str, str]:
    """A job of the repository's branch `main` with these files beside; its name and the commit."""
    commit = repository.commit({"train.py": "print(1)\n", "sub/n.ipynb": json.dumps(NOTEBOOK)})
    source = {"git": {"remote": remote, "commit": "main"}, "entrypoint": ["python", "sub/n.ipynb"]}
    job = {"source_type": "repo", "source": source | {"notebook": True}, "runtime": "3.11"}
    contents = {"wandb-job.json": json.dumps(job).encode(), **files}
    artifact = NewArtifact(entity=ENTITY, project="p", type="job", name="g", files=contents)
    await log_artifact(server.transport, artifact)
    return f"{ENTITY}/p/g:latest", commit


NOTEBOOK = {"nbformat": 4, "cells": [{"cell_type": "code", "source": "!ls\nprint(2)"}]}


async def test_a_git_job_comes_with_its_changes_packages_and_script(
    server: RealServer, tmp_path: Path
):
    await a_job(server, tmp_path / "src")
    async with https_server(tmp_path / "https") as git:
        git.login = "me:planted-word"
        repository = Repository(git.root, "code")
        changes = b"--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-print(1)\n+print(3)\n"
        files = {"diff.patch": changes, "requirements.frozen.txt": b"wandb==1\n"}
        remote = git.remote(repository).replace("//", f"//{git.login}@")
        ref, commit = await a_git_job(server, repository, remote, **files)
        environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        code = GitCode(GitSettings(ca_file=str(git.ca_file)), environ=environ)
        store = WandbJobStore(server.transport, code)
        job = await store.job(ref)
        assert isinstance(job.source, GitSource)
        assert (job.source.remote, job.source.commit) == (git.remote(repository), commit)
        assert job.entrypoint == ("python", "sub/n.py")
        assert "planted" not in repr(job)
        repository.commit({"train.py": "print(9)\n"})
        into = tmp_path / "into"
        into.mkdir()
        await store.fetch(job.source, into)
    assert (into / "train.py").read_text() == "print(3)\n"
    assert (into / "requirements.frozen.txt").read_text() == "wandb==1\n"
    assert (into / "sub" / "n.py").read_text().endswith("pass  # !ls\nprint(2)\n")


async def test_a_git_job_with_a_remote_that_is_refused_is_named(server: RealServer, tmp_path: Path):
    await a_job(server, tmp_path / "src")
    job = {"source_type": "repo", "source": {"git": {"remote": "ext::sh -c id", "commit": "main"}}}
    files = {"wandb-job.json": json.dumps(job).encode()}
    artifact = NewArtifact(entity=ENTITY, project="p", type="job", name="g", files=files)
    await log_artifact(server.transport, artifact)
    with pytest.raises(ItemError, match="'ext::sh -c id' is refused") as caught:
        await WandbJobStore(server.transport).job(f"{ENTITY}/p/g:latest")
    assert caught.value.reason is Reason.JOB_INVALID


@pytest.mark.parametrize("own", [None, "own==1\n"])
async def test_the_jobs_packages_are_put_to_code_that_lists_none(
    server: RealServer, tmp_path: Path, own: str | None
):
    code = tmp_path / "src"
    code.mkdir()
    (code / "train.py").touch()
    if own is not None:
        (code / "requirements.frozen.txt").write_text(own)
    ref = await server.client.create_code_job(
        code, project="p", name="j", entrypoint=["python", "train.py"]
    )
    store = WandbJobStore(server.transport)
    source = (await store.job(ref)).source
    assert isinstance(source, ArtifactSource)
    files = {"requirements.frozen.txt": b"job==1\n", "diff.patch": b"no change of an artifact"}
    artifact = NewArtifact(entity=ENTITY, project="p", type="job", name="with", files=files)
    logged = await log_artifact(server.transport, artifact)
    (tmp_path / "into").mkdir()
    await store.fetch(msgspec.structs.replace(source, job_artifact_id=logged), tmp_path / "into")
    assert (tmp_path / "into" / "requirements.frozen.txt").read_text() == (own or "job==1\n")


class LyingServer:
    """Serves one artifact whose manifest and files are as the test wants them."""

    def __init__(self) -> None:
        self.url = ""
        self.contents: dict[str, Any] = {}
        self.manifest: bytes | None = None
        self.artifact: dict[str, Any] | None = None
        self.served: dict[str, bytes] = {}
        self.status = 200

    def add(self, name: str, content: bytes, **changes: Any) -> None:
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        entry = {"digest": base64.b64encode(digest).decode(), "size": len(content)}
        self.contents[name] = entry | changes
        self.served[digest.hex()] = content

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/graphql":
            return web.json_response({"data": {"artifact": self.artifact or self._artifact()}})
        if request.path == "/manifest":
            body = self.manifest or json.dumps({"contents": self.contents}).encode()
            return web.Response(body=body)
        content = self.served.get(request.path.split("/")[-2])
        if self.status != 200 or content is None:
            return web.Response(status=self.status if content is not None else 404)
        return web.Response(body=content)

    def _artifact(self) -> dict[str, Any]:
        return {
            "id": "code-id",
            "state": "COMMITTED",
            "artifactType": {"name": "code"},
            "artifactSequence": {
                "name": "c",
                "project": {"name": "p", "entity": {"name": "e"}},
            },
            "currentManifest": {"file": {"directUrl": f"{self.url}/manifest"}},
        }


@pytest.fixture
async def liar(anyio_backend: str) -> AsyncGenerator[LyingServer]:
    lying = LyingServer()
    runner = web.ServerRunner(web.Server(lying.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    lying.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield lying
    finally:
        await runner.cleanup()


async def fetch(liar: LyingServer, into: Path) -> None:
    into.mkdir(exist_ok=True)
    async with Transport.open(
        base_url=liar.url, api_key=Secret("k" * 40), max_tries=1
    ) as transport:
        await WandbJobStore(transport).fetch(CODE, into)


async def test_whole_code_is_fetched(liar: LyingServer, tmp_path: Path):
    liar.add("a.py", b"1")
    liar.add("b/c.py", b"22")
    await fetch(liar, tmp_path / "into")
    assert (tmp_path / "into" / "b" / "c.py").read_bytes() == b"22"


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "a\\..\\x", "", ".", "a\0b", "..", "a/b/../../../x"]
)
async def test_a_file_name_that_leads_out_is_refused(liar: LyingServer, tmp_path: Path, name: str):
    liar.add("good.py", b"1")
    liar.add(name, b"evil")
    with pytest.raises(ItemError, match="leads out of its folder"):
        await fetch(liar, tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["into"]


@pytest.mark.parametrize("served", [b"2", b"much more than it should be", b""])
async def test_content_that_does_not_match_is_refused(
    liar: LyingServer, tmp_path: Path, served: bytes
):
    liar.add("a.py", b"1")
    liar.served = dict.fromkeys(liar.served, served)
    with pytest.raises(ItemError) as caught:
        await fetch(liar, tmp_path / "into")
    assert caught.value.reason is Reason.SOURCE_UNAVAILABLE


async def test_a_reference_is_refused_by_name(liar: LyingServer, tmp_path: Path):
    liar.contents["data.bin"] = {"digest": "etag", "ref": "s3://bucket/data.bin"}
    with pytest.raises(ItemError, match=r"data\.bin .* is a reference to s3://bucket"):
        await fetch(liar, tmp_path / "into")


async def test_a_file_that_is_gone_is_named(liar: LyingServer, tmp_path: Path):
    liar.add("a.py", b"1")
    liar.served.clear()
    with pytest.raises(ItemError, match=r"a\.py of .* cannot be downloaded"):
        await fetch(liar, tmp_path / "into")


async def test_names_that_do_not_fit_together_are_refused(liar: LyingServer, tmp_path: Path):
    liar.add("a", b"1")
    liar.add("a/b", b"2")
    liar.add("n" * 300, b"3")
    with pytest.raises(ItemError, match="has no place on this disk"):
        await fetch(liar, tmp_path / "into")


async def test_what_cannot_fit_is_not_begun(liar: LyingServer, tmp_path: Path):
    liar.add("a.py", b"1")
    liar.add("huge.bin", b"2", size=1 << 60)
    with pytest.raises(ItemError, match=r"no room for its \d{13} MB to fetch") as caught:
        await fetch(liar, tmp_path / "into")
    assert caught.value.reason is Reason.SOURCE_UNAVAILABLE
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.parametrize("manifest", [b"[]", b"{}", b"no json", b"[" * 200_000])
async def test_a_manifest_that_is_none_is_refused(
    liar: LyingServer, tmp_path: Path, manifest: bytes
):
    liar.manifest = manifest
    with pytest.raises(ItemError, match=r"manifest of .* cannot be read"):
        await fetch(liar, tmp_path / "into")


async def test_an_artifact_that_is_not_whole_is_refused(liar: LyingServer, tmp_path: Path):
    liar.artifact = liar._artifact() | {"currentManifest": None}
    with pytest.raises(ItemError, match="upload it again"):
        await fetch(liar, tmp_path / "into")


async def test_a_store_that_is_away_is_an_outage_and_no_group_of_errors(
    liar: LyingServer, tmp_path: Path
):
    for name in "abc":
        liar.add(name, name.encode())
    liar.status = 503
    with pytest.raises(Unavailable, match="503"):
        await fetch(liar, tmp_path / "into")
