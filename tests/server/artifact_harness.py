"""Artifacts over HTTP, with the documents that wandb 0.31.0 sends."""

import base64
import hashlib
import json
from typing import Any

from client_documents import client_document
from server_harness import Http

PROJECT = {"entity": "tester", "project": "art"}


def md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


def b64(body: bytes) -> str:
    return base64.b64encode(md5(body)).decode()


class ArtifactClient:
    """Logs artifacts as wandb-core does, one request at a time."""

    def __init__(self, http: Http) -> None:
        self.http = http

    async def create(self, name: str = "data", **changes: Any) -> dict[str, Any]:
        given = {
            "entityName": "tester",
            "projectName": "art",
            "artifactTypeName": "dataset",
            "artifactCollectionName": name,
            "digest": "d" * 32,
            "digestAlgorithm": "MANIFEST_MD5",
            "aliases": [{"artifactCollectionName": name, "alias": "latest"}],
            "enableDigestDeduplication": True,
            "clientID": None,
        } | changes
        data = await self.http.data(client_document("CreateArtifact.core"), input=given)
        return data["createArtifact"]["artifact"]

    async def place(self, artifact: str, *bodies: bytes) -> list[dict[str, Any]]:
        files = [
            {"artifactID": artifact, "name": f"f{n}", "md5": b64(body)}
            for n, body in enumerate(bodies)
        ]
        data = await self.http.data(
            client_document("CreateArtifactFiles.core"),
            input={"artifactFiles": files, "storageLayout": "V2"},
        )
        return [edge["node"] for edge in data["createArtifactFiles"]["files"]["edges"]]

    async def manifest(self, artifact: str, contents: dict[str, Any]) -> int:
        url, body = await self.manifest_slot(artifact, contents)
        return (await self.http.send("PUT", url, data=body)).status

    async def manifest_slot(self, artifact: str, contents: dict[str, Any]) -> tuple[str, bytes]:
        body = json.dumps({"version": 1, "contents": contents}).encode()
        given = {"entityName": "tester", "projectName": "art", "artifactID": artifact}
        given |= {"name": "wandb_manifest.json", "runName": "r1", "manifestType": "FULL"}
        ask = client_document("CreateArtifactManifest.core")
        await self.http.data(ask, **given, digest="", includeUpload=False)
        data = await self.http.data(ask, **given, digest=b64(body), includeUpload=True)
        return data["createArtifactManifest"]["artifactManifest"]["file"]["uploadUrl"], body

    async def commit(self, artifact: str) -> tuple[int, Any]:
        reply = await self.http.ask(client_document("CommitArtifact.core"), artifactID=artifact)
        return reply.status, reply.json()

    async def log(self, files: dict[str, bytes], name: str = "data", **changes: Any) -> str:
        digest = hashlib.md5(repr(sorted(files.items())).encode(), usedforsecurity=False)
        made = await self.create(name, **({"digest": digest.hexdigest()} | changes))
        if made["state"] == "COMMITTED":
            return made["id"]
        nodes = await self.place(made["id"], *files.values())
        for node, body in zip(nodes, files.values(), strict=True):
            if node["uploadUrl"] is not None:
                assert (await self.http.send("PUT", node["uploadUrl"], data=body)).status == 200
        contents = {
            file: {"digest": b64(body), "size": len(body), "birthArtifactID": made["id"]}
            for file, body in files.items()
        }
        assert await self.manifest(made["id"], contents) == 200
        status, answer = await self.commit(made["id"])
        assert status == 200, answer
        return made["id"]

    async def named(self, name: str) -> Any:
        data = await self.http.data(
            client_document("ArtifactMembershipByName.python"), **PROJECT, name=name
        )
        found = data["project"]["artifactCollectionMembership"]
        return None if found is None else found["artifact"]
