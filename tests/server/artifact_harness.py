"""Artifacts over HTTP, with the documents that wandb 0.31.0 sends."""

import base64
import hashlib
import json
from typing import Any

from server_harness import Http, Reply

from client_documents import client_document

PROJECT = {"entity": "tester", "project": "art"}
PLACE = {"entityName": "tester", "projectName": "art"}


def md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


def b64(body: bytes) -> str:
    return base64.b64encode(md5(body)).decode()


def said(reply: Reply) -> str:
    """Return the message of a refusal."""
    return reply.json()["errors"][0]["message"]


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

    async def manifest(
        self, artifact: str, contents: dict[str, Any], kind: str = "FULL", base: str | None = None
    ) -> int:
        url, body = await self.manifest_slot(artifact, contents, kind, base)
        return (await self.http.send("PUT", url, data=body)).status

    async def manifest_slot(
        self, artifact: str, contents: dict[str, Any], kind: str = "FULL", base: str | None = None
    ) -> tuple[str, bytes]:
        """Announce a manifest, and again once its digest is known: a FULL one is made anew."""
        body = json.dumps({"version": 1, "contents": contents}).encode()
        given = {"entityName": "tester", "projectName": "art", "artifactID": artifact}
        given |= {"name": "wandb_manifest.json", "runName": "r1", "manifestType": kind}
        ask = client_document("CreateArtifactManifest.core")
        data = await self.http.data(
            ask, **given, baseArtifactID=base, digest="", includeUpload=False
        )
        if kind == "FULL":
            data = await self.http.data(ask, **given, digest=b64(body), includeUpload=True)
            return data["createArtifactManifest"]["artifactManifest"]["file"]["uploadUrl"], body
        manifest = data["createArtifactManifest"]["artifactManifest"]["id"]
        data = await self.http.data(
            client_document("UpdateArtifactManifest.core"),
            artifactManifestID=manifest,
            digest=b64(body),
            includeUpload=True,
        )
        return data["updateArtifactManifest"]["artifactManifest"]["file"]["uploadUrl"], body

    async def commit(self, artifact: str) -> tuple[int, Any]:
        reply = await self.http.ask(client_document("CommitArtifact.core"), artifactID=artifact)
        return reply.status, reply.json()

    async def log(self, files: dict[str, bytes], name: str = "data", **changes: Any) -> str:
        digest = hashlib.md5(repr(sorted(files.items())).encode(), usedforsecurity=False)
        made = await self.create(name, **({"digest": digest.hexdigest()} | changes))
        if made["state"] == "COMMITTED":
            return made["id"]
        contents = await self.upload(made["id"], files)
        assert await self.manifest(made["id"], contents) == 200
        status, answer = await self.commit(made["id"])
        assert status == 200, answer
        return made["id"]

    async def upload(self, artifact: str, files: dict[str, bytes]) -> dict[str, Any]:
        """Upload files as far as they are not there, and return what a manifest says of them."""
        nodes = await self.place(artifact, *files.values())
        for node, body in zip(nodes, files.values(), strict=True):
            if node["uploadUrl"] is not None:
                assert (await self.http.send("PUT", node["uploadUrl"], data=body)).status == 200
        return {
            file: {"digest": b64(body), "size": len(body), "birthArtifactID": artifact}
            for file, body in files.items()
        }

    async def link(self, artifact: str, portfolio: str, *aliases: str, **more: Any) -> Any:
        """Link a version to a portfolio of its project; return the membership."""
        given = {"artifactID": artifact, "artifactPortfolioName": portfolio, **PLACE}
        given["aliases"] = [{"artifactCollectionName": portfolio, "alias": a} for a in aliases]
        data = await self.http.data(client_document("LinkArtifact.python"), input=given | more)
        return data["result"]["artifactMembership"]

    async def entries(self, artifact: str) -> dict[str, Any]:
        """Return what the manifest of a version says."""
        data = await self.http.data(client_document("FetchArtifactManifest.python"), id=artifact)
        url = data["artifact"]["currentManifest"]["file"]["directUrl"]
        return (await self.http.send("GET", url)).json()["contents"]

    async def delete(self, artifact: str) -> None:
        """Delete a version with its aliases."""
        delete = client_document("DeleteArtifact.python")
        await self.http.data(delete, input={"artifactID": artifact, "deleteAliases": True})

    async def member(self, name: str) -> Any:
        """Return a version as a member of a collection, by name."""
        data = await self.http.data(
            client_document("ArtifactMembershipByName.python"), **PROJECT, name=name
        )
        return data["project"]["artifactCollectionMembership"]

    async def named(self, name: str) -> Any:
        found = await self.member(name)
        return None if found is None else found["artifact"]
