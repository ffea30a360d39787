"""Looks for images in registries, by the OCI distribution specification.

```
HEAD /v2/<repository>/manifests/<tag or digest>  -- 200 --> its digest        404 --> None
      ^                                         \\- 401 --> login, token --> once more
      '-- with what this repository wanted the last time
```

One client for all registries: only their logins differ (`ports.images.RegistryLogins`). Each has
places and a breaker of its own, so that a sick one costs the others nothing.
"""

import re
from collections import OrderedDict
from collections.abc import Collection
from hashlib import sha256
from http import HTTPStatus

import aiohttp
import anyio
import msgspec
from yarl import URL

from launch_async.adapters.registries.challenge import Challenge, choose_challenge
from launch_async.adapters.registries.denials import denied, refused
from launch_async.adapters.registries.http import (
    CALL_TIMEOUT_SECONDS,
    Answer,
    Busy,
    NotSpoken,
    RegistryHttp,
    site_of,
)
from launch_async.adapters.registries.tokens import BearerTokens, basic
from launch_async.domain.errors import ItemError, Unavailable
from launch_async.domain.image import DOCKER_HUB, ImageRef
from launch_async.domain.secret import Secret
from launch_async.kit.breaker import Breaker
from launch_async.kit.ratelimit import TokenBucket
from launch_async.ports.images import RegistryLogin, RegistryLogins
from launch_async.wire.bulkhead import Bulkhead
from launch_async.wire.docker_config import IDENTITY_TOKEN_USER

FIND_TIMEOUT_SECONDS = 60.0
"""For one image, all requests and waits together."""
PLACES = 16
"""Questions to one registry at once."""
OPEN_SECONDS = 10.0
MAX_MANIFEST_BYTES = 4 << 20
"""What registries take at most [source: distribution]."""
MAX_REGISTRIES = 256
MAX_REPOSITORIES = 1024

_HUB_HOST = "registry-1.docker.io"
_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io"})
_ACCEPT = (
    "application/vnd.oci.image.index.v1+json,"
    " application/vnd.oci.image.manifest.v1+json,"
    " application/vnd.docker.distribution.manifest.list.v2+json,"
    " application/vnd.docker.distribution.manifest.v2+json"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_NO_HEAD = frozenset({HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})
_HIDDEN = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})
_FIND = "find"


class _Registry:
    """What is known of one."""

    def __init__(self, host: str, http: RegistryHttp) -> None:
        self.bulkhead = Bulkhead(
            f"registry {host}",
            places=PLACES,
            bucket=TokenBucket(per_second=100, burst=200, max_wait_seconds=CALL_TIMEOUT_SECONDS),
            breaker=Breaker(failures=5, open_seconds=OPEN_SECONDS),
        )
        self._authority = _HUB_HOST if host in _HUB_NAMES else host
        self._maybe_plain = http.may_be_plain(URL(f"https://{self._authority}"))
        self._spoken: str | None = None

    def addresses(self) -> list[URL]:
        """Where it may be. Like Docker, TLS is tried first where plain HTTP is allowed."""
        schemes = ["https", "http"] if self._maybe_plain else ["https"]
        if self._spoken is not None:
            schemes = [self._spoken]
        return [URL(f"{scheme}://{self._authority}").origin() for scheme in schemes]

    def answered(self, address: URL) -> None:
        """It is there."""
        self._spoken = address.scheme

    def is_gone(self) -> None:
        """It is not where it was; what comes back may speak otherwise, but TLS stays TLS."""
        if self._spoken == "http":
            self._spoken = None


class OciRegistry:
    """Implements `ports.images.ImageStore` for every registry."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        logins: RegistryLogins,
        *,
        insecure_hosts: Collection[str] = (),
        call_timeout_seconds: float = CALL_TIMEOUT_SECONDS,
        find_timeout_seconds: float = FIND_TIMEOUT_SECONDS,
    ) -> None:
        """`insecure_hosts`: HOST or HOST:PORT of registries that may be spoken to without TLS."""
        self._http = RegistryHttp(
            session, insecure_hosts=insecure_hosts, call_timeout_seconds=call_timeout_seconds
        )
        self._logins = logins
        self._tokens = BearerTokens(self._http)
        self._find_timeout_seconds = find_timeout_seconds
        self._registries: OrderedDict[str, _Registry] = OrderedDict()
        self._challenges: OrderedDict[str, Challenge] = OrderedDict()
        """What a repository wanted, by its name."""

    async def find(self, image: ImageRef) -> str | None:
        """As the port says; errors name the registry and the remedy."""
        registry = self._registry(image.host)
        with anyio.move_on_after(self._find_timeout_seconds):
            return await self._in_place(image, registry)
        msg = f"the registry {image.host} gave no answer in {self._find_timeout_seconds:.0f} s"
        raise Unavailable(msg)

    async def _in_place(self, image: ImageRef, registry: _Registry) -> str | None:
        """One search, of whose outcome the registry's breaker learns."""
        bulkhead = registry.bulkhead
        async with bulkhead.place():
            began = anyio.current_time()
            try:
                digest = await self._find(image, registry)
            except Busy as error:
                if error.status == HTTPStatus.TOO_MANY_REQUESTS:
                    bulkhead.throttled(_FIND, error.retry_after_seconds)
                else:
                    bulkhead.failed(
                        _FIND, error.status, caller=image.name, reason=str(error), began=began
                    )
                raise
            except Unavailable as error:
                registry.is_gone()
                bulkhead.failed(_FIND, None, caller=image.name, reason=str(error), began=began)
                raise
            except ItemError:
                bulkhead.answered(_FIND, HTTPStatus.FORBIDDEN)
                raise
            bulkhead.answered(_FIND, HTTPStatus.OK if digest else HTTPStatus.NOT_FOUND)
            return digest

    async def _find(self, image: ImageRef, registry: _Registry) -> str | None:
        path = f"v2/{image.repository}/manifests/{image.version}"
        known = self._challenges.get(image.name)
        login = None if known is None else await self._logins.login(image)
        sent = None if known is None else await self._authorization(image, known, login)
        answer = await self._ask("HEAD", path, registry, sent)
        wanted = await self._wanted(image, registry, answer, is_stranger=known is None)
        if wanted is not None:
            login = await self._logins.login(image)
            sent = await self._authorization(image, wanted, login, refused_header=sent)
            answer = await self._ask("HEAD", path, registry, sent)
        digest = None
        if answer.status == HTTPStatus.OK:
            digest = image.digest or _digest_of(answer)
        if answer.status in _NO_HEAD or (answer.status == HTTPStatus.OK and digest is None):
            answer = await self._ask("GET", path, registry, sent)
            if answer.status == HTTPStatus.OK:
                digest = image.digest or _digest_of(answer) or _digest_by_content(image, answer)
        return _judged(image, answer, login, digest)

    async def _wanted(
        self, image: ImageRef, registry: _Registry, answer: Answer, *, is_stranger: bool
    ) -> Challenge | None:
        """What the registry wants to know before it says more; None: nothing."""
        if is_stranger and answer.status in _HIDDEN and await self._logins.login(image):
            # Some deny to strangers that it is there; whether a login helps, all say here.
            answer = await self._ask("GET", "v2/", registry, None)
        if answer.status != HTTPStatus.UNAUTHORIZED:
            return None
        return self._challenge(image, registry, answer)

    def _challenge(self, image: ImageRef, registry: _Registry, answer: Answer) -> Challenge:
        """As the answer says, if that may be given: the login is this registry's alone."""
        if answer.url.origin() not in registry.addresses():
            why = f"it leads to {site_of(answer.url)}, which wants a login of its own"
            raise denied(image, why, "Name the image by that host, if it is to be trusted.")
        challenge = choose_challenge(answer.headers.getall("WWW-Authenticate", []))
        if challenge is None:
            remedy = "It must offer Basic or Bearer; is it a registry?"
            raise denied(image, "it names no way to log in that is known here", remedy)
        if answer.url.scheme == "https" and challenge.realm.lower().startswith("http:"):
            why = "it wants the login sent in plain HTTP, where everybody could read it"
            raise denied(image, why, "Ask those who run it for a realm with https://.")
        self._challenges[image.name] = challenge
        self._challenges.move_to_end(image.name)
        if len(self._challenges) > MAX_REPOSITORIES:
            self._challenges.popitem(last=False)
        return challenge

    async def _authorization(
        self,
        image: ImageRef,
        challenge: Challenge,
        login: RegistryLogin | None,
        *,
        refused_header: Secret[str] | None = None,
    ) -> Secret[str] | None:
        if challenge.scheme == "bearer":
            refused_token = None
            if refused_header is not None:
                refused_token = Secret(refused_header.reveal().partition(" ")[2])
            token = await self._tokens.token(image, challenge, login, refused_token=refused_token)
            return Secret(f"Bearer {token.reveal()}")
        if login is not None and login.username == IDENTITY_TOKEN_USER:
            why = "it wants a password, and the login that the agent has is an identity token"
            raise denied(image, why, "Log in with a user name and a password.")
        return None if login is None else basic(login)

    async def _ask(
        self, method: str, path: str, registry: _Registry, authorization: Secret[str] | None
    ) -> Answer:
        addresses = registry.addresses()
        for address in addresses:
            try:
                answer = await self._http.ask(
                    method,
                    address / path,
                    headers={"Accept": _ACCEPT},
                    authorization=authorization,
                    max_bytes=MAX_MANIFEST_BYTES,
                )
            except Busy:
                registry.answered(address)
                raise
            except NotSpoken:
                if address is addresses[-1]:
                    raise
            else:
                registry.answered(address)
                return answer
        raise AssertionError(addresses)

    def _registry(self, host: str) -> _Registry:
        registry = self._registries.get(host)
        if registry is None:
            registry = self._registries[host] = _Registry(host, self._http)
            if len(self._registries) > MAX_REGISTRIES:
                self._registries.popitem(last=False)
        self._registries.move_to_end(host)
        return registry


def _judged(
    image: ImageRef, answer: Answer, login: RegistryLogin | None, digest: str | None
) -> str | None:
    match answer.status:
        case HTTPStatus.OK:
            return digest
        case HTTPStatus.NOT_FOUND:
            return None
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            raise refused(image, f"it answered {answer.status}", login)
        case status if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            remedy = "Check the image's name, and whether that host is a registry."
            raise denied(image, f"it answered {status}", remedy)
        case status:
            msg = f"{image.host} answered {status}, which no registry does; is it one?"
            raise Unavailable(msg)


def _digest_of(answer: Answer) -> str | None:
    named = answer.headers.get("Docker-Content-Digest", "")
    return named if _DIGEST.fullmatch(named) else None


def _digest_by_content(image: ImageRef, answer: Answer) -> str:
    try:
        content = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        content = None
    if not isinstance(content, dict) or "schemaVersion" not in content:
        msg = f"{image.host} answered with something else than a manifest; is it a registry?"
        raise Unavailable(msg)
    return f"sha256:{sha256(answer.body).hexdigest()}"
