"""The image registries that scripts/registry starts, and images in them without a Docker engine.

digest = await push_image(registry, "team/app", "v1")      # its tag, its digest or both find it
"""

import hashlib
import json
import os
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import aiohttp
import msgspec

from launch_async.domain.image import ImageRef

PORT_VARIABLE = "LAUNCH_ASYNC_REGISTRY_PORT"
DEFAULT_PORT = 5480
REMEDY = "start them with `make registry-up`"
LOGIN = "launch_async"
"""User name and password of the one that wants a login."""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


class Registry(msgspec.Struct, frozen=True):
    """A registry on this machine, and the login that it wants, if any."""

    host: str
    username: str | None = None
    password: str | None = None

    def image(self, repository: str, tag: str = "latest") -> ImageRef:
        return ImageRef.parse(f"{self.host}/{repository}:{tag}")


class Registries(msgspec.Struct, frozen=True):
    """Both of them."""

    open: Registry
    login: Registry


def find_registries() -> Registries | None:
    """Return the registries that tests may use, if they answer."""
    port = int(os.environ.get(PORT_VARIABLE) or DEFAULT_PORT)
    found = Registries(
        open=Registry(f"127.0.0.1:{port}"),
        login=Registry(f"127.0.0.1:{port + 1}", LOGIN, LOGIN),
    )
    if (_status(found.open), _status(found.login)) != (200, 401):
        return None
    return found


async def push_image(
    registry: Registry,
    repository: str,
    tag: str,
    *,
    note: str = "",
    headers: dict[str, str] | None = None,
) -> str:
    """Put an image without layers into the registry and return its digest; `note` changes it."""
    base = f"http://{registry.host}/v2/{repository}"
    sent = dict(headers or {})
    if registry.username is not None:
        sent["Authorization"] = aiohttp.encode_basic_auth(registry.username, registry.password)
    config = json.dumps({"architecture": "amd64", "os": "linux", "author": note}).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(config), "digest": digest_of(config)},
            "layers": [],
        }
    ).encode()
    async with aiohttp.ClientSession(headers=sent, raise_for_status=True) as session:
        async with session.post(f"{base}/blobs/uploads/") as begun:
            place = begun.headers["Location"]
        sign = "&" if urlsplit(place).query else "?"
        async with session.put(f"{place}{sign}digest={digest_of(config)}", data=config):
            pass
        kind = {"Content-Type": MANIFEST}
        async with session.put(f"{base}/manifests/{tag}", data=manifest, headers=kind):
            return digest_of(manifest)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _status(registry: Registry) -> int | None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{registry.host}/v2/", timeout=3) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return None
