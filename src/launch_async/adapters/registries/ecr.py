"""Logins for Amazon ECR, from the agent's AWS credentials.

`GetAuthorizationToken` gives a password for 12 hours, good for all registries of the region.
"""

import asyncio
import base64
import re
from collections import OrderedDict
from datetime import UTC, datetime
from functools import partial
from typing import Any

from launch_async.adapters.registries.clouds import first_words, in_thread, load
from launch_async.adapters.registries.denials import unusable
from launch_async.domain.errors import Unavailable
from launch_async.domain.image import ImageRef
from launch_async.domain.secret import Secret
from launch_async.kit.renewed import Renewed
from launch_async.ports.images import RegistryLogin

CLOUD = "Amazon ECR"
MAX_REGIONS = 64

_HOST = re.compile(
    r"\d{12}\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z]{2,}(?:-[a-z0-9]+)+)"
    r"\.(?:amazonaws\.com(?:\.cn)?|on\.aws|on\.amazonwebservices\.com\.cn)"
)
_BUSY = re.compile(r"Throttl|TooManyRequests|RequestLimit|ServiceUnavailable|InternalFailure")
_REMEDY = (
    "Give the agent AWS credentials that may do ecr:GetAuthorizationToken, in any of the ways that"
    " the AWS SDK reads."
)


class EcrLogins:
    """Knows `ACCOUNT.dkr.ecr.REGION.amazonaws.com` and its relatives."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Renewed[RegistryLogin]] = OrderedDict()

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        """As the port says."""
        found = _HOST.fullmatch(image.host)
        if found is None:
            return None
        region = found["region"]
        kept = self._kept.get(region)
        if kept is None:
            fetch = partial(_fetch, region, image.host)
            kept = self._kept[region] = Renewed(fetch)
            if len(self._kept) > MAX_REGIONS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(region)
        return await kept.get()


async def _fetch(region: str, host: str) -> tuple[RegistryLogin, float]:
    return await in_thread(partial(_ask, region, host), CLOUD)


def _ask(region: str, host: str) -> tuple[RegistryLogin, float]:
    """On a loop of its own, as the library makes its client from megabytes of JSON on the loop."""
    aioboto3 = load("aioboto3", extra="aws", host=host)
    config = load("botocore.config", extra="aws", host=host)
    errors = load("botocore.exceptions", extra="aws", host=host)
    options = config.Config(connect_timeout=5, read_timeout=10)
    try:
        answer = asyncio.run(_token(aioboto3.Session(), region, options))
    except errors.ClientError as error:
        failure = _refusal(host, error.response)
    except (errors.HTTPClientError, errors.ConnectionError) as error:
        failure = Unavailable(f"{CLOUD} in {region} does not answer ({type(error).__name__})")
    except errors.CredentialRetrievalError:  # its text is what the user's own program printed
        failure = unusable(host, "the AWS credentials cannot be had", _REMEDY)
    except errors.BotoCoreError as error:
        failure = unusable(host, first_words(error), _REMEDY)
    else:
        return _read(answer)
    raise failure


async def _token(session: Any, region: str, options: Any) -> Any:
    async with session.client("ecr", region_name=region, config=options) as client:
        return await client.get_authorization_token()


def _read(answer: Any) -> tuple[RegistryLogin, float]:
    try:
        data = answer["authorizationData"][0]
        username, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        lifetime = (data["expiresAt"] - datetime.now(UTC)).total_seconds()
    except (LookupError, ValueError, TypeError):
        pass
    else:
        return RegistryLogin(username=username, password=Secret(password)), lifetime
    msg = f"{CLOUD} answered without a token"
    raise Unavailable(msg)


def _refusal(host: str, response: Any) -> Exception:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(response.get("Error", {}).get("Code", ""))
    text = str(response.get("Error", {}).get("Message", ""))[:300]
    if status >= 500 or _BUSY.search(code):
        return Unavailable(f"{CLOUD} answered {status} {code}")
    return unusable(host, f"{CLOUD} says {code}: {text}", _REMEDY)
