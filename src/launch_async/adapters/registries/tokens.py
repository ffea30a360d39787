"""Bearer tokens of registries: asked for at the address that the registry names, and kept.

```
401, Bearer realm="https://auth…",service=…,scope=…
     -> GET realm?service=…&scope=…     with the password, or with nothing: the anonymous token
     -> POST realm, refresh_token=…     with an identity token (`docker login` of some clouds)
     -> {"token": …, "expires_in": 300}
```

[source: distribution's "Token Authentication" and "Oauth2 Token Authentication"]
"""

from collections import OrderedDict
from functools import partial
from http import HTTPStatus
from typing import Annotated

import aiohttp
import msgspec
from yarl import URL

from launch_async.adapters.registries.challenge import Challenge
from launch_async.adapters.registries.denials import denied, refused
from launch_async.adapters.registries.http import Answer, RegistryHttp, site_of
from launch_async.domain.errors import Unavailable
from launch_async.domain.image import ImageRef
from launch_async.domain.secret import Secret
from launch_async.kit.renewed import Renewed
from launch_async.ports.images import RegistryLogin
from launch_async.wire.docker_config import IDENTITY_TOKEN_USER

DEFAULT_LIFETIME_SECONDS = 60.0
"""Of a token whose answer names none [source: distribution's specification]."""
MAX_ANSWER_BYTES = 1 << 18
MAX_KEPT = 1024

_CLIENT_ID = "launch-async"


class _TokenAnswer(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""
    expires_in: Annotated[float, msgspec.Meta(ge=0)] | None = None


class _Key(msgspec.Struct, frozen=True):
    """Whose token it is: never another login's, nor for another repository."""

    image_name: str
    challenge: Challenge
    login: RegistryLogin | None


class BearerTokens:
    """Fetches each token once for all who ask, and again before it expires."""

    def __init__(self, http: RegistryHttp) -> None:
        self._http = http
        self._kept: OrderedDict[_Key, Renewed[Secret[str]]] = OrderedDict()

    async def token(
        self,
        image: ImageRef,
        challenge: Challenge,
        login: RegistryLogin | None,
        *,
        refused_token: Secret[str] | None = None,
    ) -> Secret[str]:
        """A token for this image's repository; not `refused_token`.

        Raises:
            ItemError: the login was refused, or the registry names no address that may be trusted.
            Unavailable: the address does not answer.
        """
        key = _Key(image.name, challenge, login)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = Renewed(partial(self._fetch, image, challenge, login))
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        if refused_token is not None:
            kept.forget(refused_token)
        return await kept.get()

    async def _fetch(
        self, image: ImageRef, challenge: Challenge, login: RegistryLogin | None
    ) -> tuple[Secret[str], float]:
        realm = _realm(image, challenge)
        wanted = {
            "service": challenge.service,
            "scope": challenge.scope or f"repository:{image.repository}:pull",
        }
        if login is not None and login.username == IDENTITY_TOKEN_USER:
            answer = await self._http.ask(
                "POST",
                realm,
                form={
                    "grant_type": "refresh_token",
                    "client_id": _CLIENT_ID,
                    "refresh_token": login.password.reveal(),
                    **wanted,
                },
                max_bytes=MAX_ANSWER_BYTES,
            )
        else:
            answer = await self._http.ask(
                "GET",
                realm.update_query({name: value for name, value in wanted.items() if value}),
                authorization=None if login is None else basic(login),
                max_bytes=MAX_ANSWER_BYTES,
            )
        return _read(answer, image, login)


def basic(login: RegistryLogin) -> Secret[str]:
    """The Authorization header of a user name and password."""
    return Secret(aiohttp.encode_basic_auth(login.username, login.password.reveal()))


def _realm(image: ImageRef, challenge: Challenge) -> URL:
    try:
        realm = URL(challenge.realm)
        realm.origin()
        return realm.with_user(None).with_fragment(None)
    except ValueError:
        why = "its tokens come from an address that cannot be used"
    raise denied(image, why, "Ask those who run it to correct its realm.")


def _read(
    answer: Answer, image: ImageRef, login: RegistryLogin | None
) -> tuple[Secret[str], float]:
    name = site_of(answer.url)
    if HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        raise refused(image, f"{name} gives no token ({answer.status})", login)
    try:
        if answer.status != HTTPStatus.OK:
            raise ValueError
        read = msgspec.json.decode(answer.body, type=_TokenAnswer, strict=False)
        token = read.token or read.access_token
        if not token.isascii() or not token.isprintable() or not token:
            raise ValueError
    except ValueError:
        failure = Unavailable(f"{name} answered {answer.status} without a token")
    else:
        lifetime = DEFAULT_LIFETIME_SECONDS if read.expires_in is None else read.expires_in
        return Secret(token), lifetime
    raise failure
