"""Logins for Google's registries, from the agent's default Google credentials."""

import re
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog

from launch_async.adapters.registries.clouds import first_words, in_thread, load
from launch_async.adapters.registries.denials import NothingHere, unusable
from launch_async.domain.errors import Unavailable
from launch_async.domain.image import ImageRef
from launch_async.domain.secret import Secret
from launch_async.kit.renewed import Renewed
from launch_async.ports.images import RegistryLogin

CLOUD = "Google"
USERNAME = "oauth2accesstoken"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
REQUEST_TIMEOUT_SECONDS = 15
UNNAMED_LIFETIME_SECONDS = 300.0
NONE_LIFETIME_SECONDS = 300.0
"""Before it is asked again whether there are credentials now; the look itself may take seconds."""

_HOST = re.compile(r"[a-z0-9-]+-docker\.pkg\.dev|(?:[a-z]+\.)?gcr\.io")
_REMEDY = (
    "Give the agent Google credentials: a workload identity, a service account, or"
    " GOOGLE_APPLICATION_CREDENTIALS."
)

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class GoogleLogins:
    """Knows `REGION-docker.pkg.dev` and `gcr.io`.

    Public images are there too, so that having no credentials is an error only if `required`.
    """

    def __init__(self, *, required: bool = False) -> None:
        self._required = required
        self._kept = Renewed(self._fetch)
        self._host = ""

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        """As the port says."""
        if not _HOST.fullmatch(image.host):
            return None
        self._host = image.host
        return await self._kept.get()

    async def _fetch(self) -> tuple[RegistryLogin | None, float]:
        try:
            return await in_thread(partial(_ask, self._host), CLOUD)
        except NothingHere as error:
            if self._required:
                raise
            log.warning(
                "images of Google's registries are asked for without a login", why=str(error)
            )
            return None, NONE_LIFETIME_SECONDS


def _ask(host: str) -> tuple[RegistryLogin, float]:
    auth = load("google.auth", extra="gcp", host=host)
    errors = load("google.auth.exceptions", extra="gcp", host=host)
    transport = load("google.auth.transport.requests", extra="gcp", host=host)
    requests = load("requests", extra="gcp", host=host)
    try:
        credentials, _ = auth.default(scopes=[SCOPE])
        with requests.Session() as session:
            request = transport.Request(session=session)
            credentials.refresh(partial(request, timeout=REQUEST_TIMEOUT_SECONDS))
    except errors.DefaultCredentialsError as error:
        failure: Exception = unusable(host, first_words(error), _REMEDY, kind=NothingHere)
    except errors.TransportError as error:
        failure = Unavailable(f"{CLOUD} gives no token ({type(error).__name__})")
    except errors.GoogleAuthError as error:
        if getattr(error, "retryable", False):
            failure = Unavailable(f"{CLOUD} gives no token ({type(error).__name__})")
        else:
            failure = unusable(host, f"{CLOUD} gives no token: {first_words(error)}", _REMEDY)
    else:
        login = RegistryLogin(username=USERNAME, password=Secret(credentials.token))
        return login, _lifetime(credentials.expiry)
    raise failure


def _lifetime(expiry: Any) -> float:
    """`expiry` is a moment of UTC that does not say so."""
    if not isinstance(expiry, datetime):
        return UNNAMED_LIFETIME_SECONDS
    return (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
