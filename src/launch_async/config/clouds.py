"""Traps in `environment`, `registry` and `builder`: W&B's words for clouds and images.

What is wrong in them for W&B's agent is said too, as configurations are shared while one migrates.
[source: launch-features.md §1.4, §5]
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from launch_async.config.model import LaunchConfig

_TYPES = {
    "environment": ("aws", "gcp", "azure", "local"),
    "registry": ("ecr", "acr", "gcr", "local"),
    "builder": ("docker", "buildkit", "kaniko", "noop"),
}
_PLATFORMS = ("linux/amd64", "linux/arm64")
_GAR_PARTS = 4
_ACR_PARTS = 2
_PARTS = {"account_id", "region", "repo_name", "repository", "image-name", "project"}
STORES = re.compile(r"(s3|gs)://[^/]+|https://[^/]+\.blob\.core\.windows\.net/[^/]+")
STORE_WORDS = "s3://BUCKET/…, gs://BUCKET/… or https://ACCOUNT.blob.core.windows.net/CONTAINER/…"
"""What `builder.build-context-store` may be."""


def cloud_traps(config: LaunchConfig) -> Iterator[tuple[str, str]]:
    """Dotted key and text of each; values are not shown, since they may be secret."""
    for section, types in _TYPES.items():
        block = getattr(config, section)
        if block is None:
            continue
        if section == "environment":
            yield section, "environment has no effect yet: clouds are reached by their own defaults"
        wanted = section == "builder" and bool(block)
        if (wanted or "type" in block) and block.get("type") not in types:
            yield f"{section}.type", f"{section}.type must be one of {', '.join(types)}"
    yield from _environment(config.environment)
    yield from _registry(config.registry)
    yield from _builder(config.builder or {})


def _environment(block: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if block is not None and "region" not in block:
        text = "W&B's agent refuses an environment without region, as in W&B's example for Azure"
        yield "environment", text


def _registry(block: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if block is None:
        return
    yield "registry", "registry is deprecated by W&B; write builder.destination"
    if "repo_name" in block or "repository" in block:
        key = "repo_name" if "repo_name" in block else "repository"
        if block.get("type") == "ecr":
            yield f"registry.{key}", f"W&B's agent cannot use registry.{key} for ecr; write uri"
    kind, uri = block.get("type"), block.get("uri")
    if isinstance(uri, str):
        yield from _address("registry.uri", uri)
        if kind is None:
            yield "registry.uri", "W&B's agent pushes nothing to a registry.uri without a type"
        elif kind == "local":
            yield "registry.uri", "registry.uri has no effect with the type local"
        for key in block.keys() & _PARTS:
            yield f"registry.{key}", f"registry.{key} has no effect beside registry.uri"


def _builder(block: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    kind, store = block.get("type"), block.get("build-context-store")
    cluster = block.get("cluster")
    claim = isinstance(cluster, Mapping) and cluster.get("context-claim")
    if kind == "kaniko" and not store and not claim:
        yield "builder", "kaniko needs builder.build-context-store or builder.cluster.context-claim"
    if cluster is not None and kind not in {"kaniko", "buildkit"}:
        yield "builder.cluster", "builder.cluster has no effect but for kaniko and buildkit"
    key = "builder.build-context-store"
    if store and claim:
        yield key, f"{key} has no effect: contexts go by builder.cluster.context-claim"
    elif store and kind != "kaniko":
        yield key, f"{key} has no effect but for kaniko"
    if isinstance(store, str) and not STORES.match(store):
        yield key, f"{key} must look like {STORE_WORDS}"
    if bool(block.get("secret-name")) != bool(block.get("secret-key")):
        yield "builder", "builder.secret-name and builder.secret-key need each other"
    if "platform" in block and block["platform"] not in _PLATFORMS:
        yield "builder.platform", f"builder.platform must be one of {', '.join(_PLATFORMS)}"
    if isinstance(block.get("destination"), str):
        yield from _address("builder.destination", block["destination"])


def _address(key: str, address: str) -> Iterator[tuple[str, str]]:
    """What W&B's agent misreads in the address of a repository."""
    if address.startswith(("https://", "http://")):
        yield key, f"{key} is no URL: leave the https:// out"
    host, *path = address.partition("://")[2].split("/") if "://" in address else address.split("/")
    if path and ":" in path[-1]:
        yield key, f"{key} has a tag; leave it out, tags are made for each image"
    if ":" in host:
        yield key, f"{key} has a port, at which pushes of W&B's agent fail"
    if re.match(r"\d+\.ecr\.", host):
        yield key, f"{key} must have .dkr: ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY"
    if host.endswith(".azurecr.io") and ("-" in host or len(path) >= _ACR_PARTS):
        yield key, f"{key} must look like NAME.azurecr.io/REPOSITORY, without dash or second slash"
    if host.endswith("-docker.pkg.dev") and len([host, *path]) != _GAR_PARTS:
        yield key, f"{key} must look like REGION-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE"
