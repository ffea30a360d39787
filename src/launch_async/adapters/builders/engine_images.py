"""Images on a Docker engine: looked for, pulled and pushed over its HTTP API."""

import base64
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import aiohttp
import msgspec
from aiodocker.exceptions import DockerError

from launch_async.adapters.builders.faults import Fault, fault_of, pull_error, push_error
from launch_async.adapters.builders.tries import PushTries
from launch_async.domain.errors import Unavailable
from launch_async.domain.image import ImageRef
from launch_async.ports.images import RegistryLogin, RegistryLogins
from launch_async.wire.docker import DockerConnection
from launch_async.wire.docker_config import engine_auth

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_NO_ENGINE = "What answers at DOCKER_HOST does not speak as a Docker engine does."
_SAME = {"x86_64": "amd64", "aarch64": "arm64"}
_USUAL_VARIANT = {"arm64": "v8", "arm": "v7"}


class Message(msgspec.Struct, frozen=True):
    """One of the stream that the engine answers a build, a pull or a push with."""

    stream: str = ""
    status: str = ""
    id: str = ""
    progress: str = ""
    error: str = ""
    aux: Any = None


class EngineImages:
    """Implements `ports.images.ImageStore` for the engine's own images.

    `platform`: the only one that counts; None: whatever the engine has. `pushed`: what a push has
    not brought to its registry does not count.
    """

    def __init__(
        self, connection: DockerConnection, *, platform: str | None = None, pushed: bool = False
    ) -> None:
        self._connection = connection
        self._platform = platform
        self._pushed = pushed

    async def find(self, image: ImageRef) -> str | None:
        """The digest in its registry where the engine knows that, else the engine's own id."""
        facts = await self._facts(image, self._platform)
        if facts is None:
            return None
        return _digest_in(facts, image.name) or (None if self._pushed else str(facts["Id"]))

    async def digest(self, image: ImageRef, *, platform: str | None) -> str | None:
        """As `find`, for that platform, pushed or not."""
        facts = await self._facts(image, platform)
        return None if facts is None else _digest_in(facts, image.name) or str(facts["Id"])

    async def _facts(self, image: ImageRef, platform: str | None) -> Mapping[str, Any] | None:
        try:
            with self._connection.answering():
                facts = await self._connection.client().images.inspect(_in_store(image))
        except DockerError as error:
            if error.status == 404:
                return None
            raise Unavailable(f"The Docker engine failed: {error.message}") from error
        return facts if _is_for(facts, platform) else None

    async def pull(
        self, image: ImageRef, login: RegistryLogin | None, *, platform: str | None
    ) -> None:
        """Get the image from its registry.

        Raises:
            ItemError: there is no such image, or access is denied.
            Unavailable: the engine or the registry does not answer.
        """
        params = {"fromImage": image.name, "tag": image.version, "platform": platform or ""}
        words = await self._fault("images/create", params, login)
        if words is not None:
            raise pull_error(str(image), words)

    async def push(self, image: ImageRef, logins: RegistryLogins) -> None:
        """Put the image into its registry; tried again when that fails, or the login was renewed.

        Raises:
            ItemError: access is denied.
            Unavailable: the engine or the registry does not answer.
        """
        params = {"tag": image.tag or "latest"}
        tries = PushTries()
        while True:
            login = await logins.login(image)
            words = await self._fault(f"images/{image.name}/push", params, login)
            if words is None:
                return
            denied = fault_of(words) is Fault.DENIED
            renewed = denied and await logins.login(image) != login
            await tries.after(push_error(str(image), words), renewed=renewed)

    async def _fault(
        self, path: str, params: Mapping[str, str], login: RegistryLogin | None
    ) -> str | None:
        """What the engine says is wrong with a pull or a push; None: it is done."""
        auth = msgspec.json.encode(engine_auth(login) if login else {})
        headers = {"X-Registry-Auth": base64.urlsafe_b64encode(auth).decode()}
        with self._connection.reaching():
            async with self._connection.request(
                "POST", path, params=params, headers=headers
            ) as response:
                if response.status != 200:
                    return refusal(response.status, await response.read())
                async with aclosing(messages(response.content)) as said:
                    async for message in said:
                        if message.error:
                            return message.error
        return None


async def messages(content: aiohttp.StreamReader) -> AsyncGenerator[Message, None]:
    """The engine's messages, one a line, however long."""
    rest = bytearray()
    async for piece in content.iter_any():
        *ended, last = piece.split(b"\n")
        for part in ended:
            rest += part
            if rest.strip():
                yield _message(rest)
            rest.clear()
        rest += last
        if len(rest) > _MAX_MESSAGE_BYTES:
            raise Unavailable(_NO_ENGINE)
    if rest.strip():
        yield _message(rest)


def _message(line: bytearray) -> Message:
    try:
        return msgspec.json.decode(line, type=Message)
    except msgspec.MsgspecError as error:
        raise Unavailable(_NO_ENGINE) from error


def refusal(status: int, body: bytes) -> str:
    """The engine's reason for another answer than 200."""
    try:
        said = msgspec.json.decode(body, type=dict[str, Any]).get("message")
    except msgspec.MsgspecError:
        said = None
    return str(said or f"the engine answered {status}")


def _in_store(image: ImageRef) -> str:
    return f"{image.name}@{image.digest}" if image.digest else str(image)


def _digest_in(facts: Mapping[str, Any], name: str) -> str | None:
    """The image's digest in the repository `name`, if it was pulled from or pushed to there."""
    for text in facts.get("RepoDigests") or ():
        with suppress(ValueError):
            known = ImageRef.parse(text)
            if known.name == name:
                return known.digest
    return None


def _is_for(facts: Mapping[str, Any], platform: str | None) -> bool:
    if not platform:
        return True
    has = _parts(f"{facts.get('Os')}/{facts.get('Architecture')}/{facts.get('Variant') or ''}")
    return has == _parts(platform)


def _parts(platform: str) -> tuple[str, str, str]:
    system, _, rest = platform.lower().partition("/")
    machine, _, variant = rest.partition("/")
    machine = _SAME.get(machine, machine)
    return system, machine, variant or _USUAL_VARIANT.get(machine, "")
