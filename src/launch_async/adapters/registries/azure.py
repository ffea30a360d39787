"""Logins for Azure Container Registry, from the agent's Azure credentials.

```
DefaultAzureCredential -- Entra token --> POST /oauth2/exchange of the registry --> refresh token
```

The refresh token is a password for the user name of zeros [source: azure.github.io/acr/AAD-OAuth].
"""

import base64
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import msgspec
from yarl import URL

from launch_async.adapters.registries.clouds import (
    CLOUD_TIMEOUT_SECONDS,
    first_words,
    load,
    too_slow,
)
from launch_async.adapters.registries.denials import unusable
from launch_async.adapters.registries.http import Answer, RegistryHttp
from launch_async.domain.errors import Unavailable
from launch_async.domain.image import ImageRef
from launch_async.domain.secret import Secret
from launch_async.kit.clock import unix_now
from launch_async.kit.renewed import Renewed
from launch_async.ports.images import RegistryLogin

CLOUD = "Azure"
USERNAME = "00000000-0000-0000-0000-000000000000"
SCOPE = "https://containerregistry.azure.net/.default"
UNNAMED_LIFETIME_SECONDS = 3600.0
"""Of a refresh token that does not say; they last three hours."""
MAX_ANSWER_BYTES = 1 << 18
MAX_REGISTRIES = 256

_HOST = re.compile(r"[a-z0-9][a-z0-9-]*\.azurecr\.(?:io|cn|us)")
_REMEDY = (
    "Give the agent Azure credentials that may pull from it (the role AcrPull, for pushes AcrPush),"
    " in any of the ways that DefaultAzureCredential reads."
)


class _Exchanged(msgspec.Struct, frozen=True):
    refresh_token: str


class _Claims(msgspec.Struct, frozen=True):
    exp: float


class AzureLogins:
    """Knows `NAME.azurecr.io`."""

    def __init__(
        self, session: aiohttp.ClientSession, environ: Mapping[str, str] | None = None
    ) -> None:
        self._http = RegistryHttp(session)
        self._environ = os.environ if environ is None else environ
        self._kept: OrderedDict[str, Renewed[RegistryLogin]] = OrderedDict()

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        """As the port says."""
        host = image.host
        if not _HOST.fullmatch(host):
            return None
        kept = self._kept.get(host)
        if kept is None:
            kept = self._kept[host] = Renewed(partial(self._fetch, host))
            if len(self._kept) > MAX_REGISTRIES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(host)
        return await kept.get()

    async def _fetch(self, host: str) -> tuple[RegistryLogin, float]:
        form = {
            "grant_type": "access_token",
            "service": host,
            "access_token": (await _entra_token(host)).reveal(),
        }
        if tenant := self._environ.get("AZURE_TENANT_ID"):
            form["tenant"] = tenant
        answer = await self._http.ask(
            "POST", URL(f"https://{host}/oauth2/exchange"), form=form, max_bytes=MAX_ANSWER_BYTES
        )
        return _read(host, answer)


async def _entra_token(host: str) -> Secret[str]:
    identity = await anyio.to_thread.run_sync(
        partial(load, "azure.identity.aio", extra="azure", host=host)
    )
    errors = await anyio.to_thread.run_sync(
        partial(load, "azure.core.exceptions", extra="azure", host=host)
    )
    failure: Exception = too_slow(CLOUD)
    try:
        with anyio.move_on_after(CLOUD_TIMEOUT_SECONDS):
            async with identity.DefaultAzureCredential() as credential:
                return Secret(str((await credential.get_token(SCOPE)).token))
    except errors.ClientAuthenticationError as error:
        failure = unusable(host, f"{CLOUD} gives no token: {first_words(error)}", _REMEDY)
    except errors.AzureError as error:
        failure = Unavailable(f"{CLOUD} gives no token ({type(error).__name__})")
    raise failure


def _read(host: str, answer: Answer) -> tuple[RegistryLogin, float]:
    if HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        raise unusable(host, f"the registry takes no token of {CLOUD} ({answer.status})", _REMEDY)
    try:
        token = msgspec.json.decode(answer.body, type=_Exchanged).refresh_token
    except msgspec.MsgspecError:
        failure = Unavailable(f"{host} answered {answer.status} without a token")
    else:
        return RegistryLogin(username=USERNAME, password=Secret(token)), _lifetime(token)
    raise failure


def _lifetime(token: str) -> float:
    """From its claims, which are only for us to plan with: the registry checks them."""
    claims: Any = token.split(".")[1:2]
    try:
        payload = base64.urlsafe_b64decode(f"{claims[0]}{'=' * (-len(claims[0]) % 4)}")
        return msgspec.json.decode(payload, type=_Claims).exp - unix_now()
    except (IndexError, ValueError):
        return UNNAMED_LIFETIME_SECONDS
