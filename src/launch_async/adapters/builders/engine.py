"""Builds on a Docker engine over its HTTP API: needs no program, and no copy of the context.

```
POST /build  <-- tar of the context, made while it is sent
             --> messages: what it prints, at which step it is, why it failed
closing the connection ends the build on the engine, with what it runs
```
"""

import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import aiohttp
import msgspec

from launch_async.adapters.builders.context import bases_of, dockerfile_of, images_of
from launch_async.adapters.builders.engine_images import EngineImages, Message, messages, refusal
from launch_async.adapters.builders.faults import build_error
from launch_async.adapters.builders.output import Output, open_output
from launch_async.adapters.builders.steps import ClassicSteps, Failure, PlainSteps, Steps
from launch_async.adapters.builders.tar import context_tar
from launch_async.adapters.builders.trace import Trace
from launch_async.domain.errors import Unavailable
from launch_async.domain.image import ImageRef
from launch_async.ports.images import ImageBuild, RegistryLogins, Say
from launch_async.wire.docker import DockerConnection

_BUILDKIT_API = (1, 39)
"""From here on (18.09) every engine has BuildKit [source: moby, docs/api/version-history.md]."""


class EngineBuilder:
    """Implements `ports.images.ImageBuilder` on the engine's own builders.

    `buildkit`: whether its BuildKit is used; None: as the engine says of itself.
    """

    name = "docker"

    def __init__(
        self,
        connection: DockerConnection,
        logins: RegistryLogins,
        *,
        buildkit: bool | None = None,
    ) -> None:
        self._connection = connection
        self._logins = logins
        self._images = EngineImages(connection)
        self._wanted = buildkit
        self._has_buildkit = bool(buildkit)

    @property
    def has_mounts(self) -> bool:
        """As `check` found it; False before."""
        return self._has_buildkit

    async def check(self) -> None:
        """Ask the engine what it can do."""
        with self._connection.answering():
            async with self._connection.request("GET", "_ping", params={}) as response:
                response.raise_for_status()
                found = _has_buildkit(response)
        self._has_buildkit = found if self._wanted is None else self._wanted

    async def base_digest(self, image: str, *, platform: str | None) -> str | None:
        """As the engine has it; None: it would be pulled."""
        try:
            return await self._images.digest(ImageRef.parse(image), platform=platform)
        except ValueError:
            return None

    async def build(self, build: ImageBuild, say: Say) -> None:
        """Make the image on the engine; then push it if so ordered."""
        await dockerfile_of(build)
        await self.check()
        async with open_output(build.log) as output:
            await self._pull_bases(build, say)
            await self._make(build, say, output)
            await push_all(self._images, build, self._logins, say)

    async def _pull_bases(self, build: ImageBuild, say: Say) -> None:
        """Private ones, which BuildKit cannot log in for over HTTP; the others it pulls itself."""
        for base in bases_of(build):
            if await self._images.digest(base, platform=build.platform) is None:
                login = await self._logins.login(base)
                if login is not None:
                    say(f"pulling {base}")
                    await self._images.pull(base, login, platform=build.platform)

    async def _make(self, build: ImageBuild, say: Say, output: Output) -> None:
        reading = _TraceReading(say) if self._has_buildkit else _ClassicReading(say)
        async with context_tar(build.context) as tar:
            failure = await self._post(_params(build, self._has_buildkit), tar, reading, output)
        if failure is not None:
            raise build_error(failure, builder="The Docker engine", image=build.image)
        if await self._images.digest(ImageRef.parse(build.image), platform=None) is None:
            msg = f"The Docker engine ended the build of {build.image} without an image."
            raise Unavailable(msg)

    async def _post(
        self,
        params: list[tuple[str, str]],
        tar: AsyncIterator[bytes],
        reading: "_TraceReading | _ClassicReading",
        output: Output,
    ) -> Failure | None:
        headers = {"Content-Type": "application/x-tar"}
        with self._connection.reaching():
            async with self._connection.request(
                "POST", "build", params=params, headers=headers, body=tar
            ) as response:
                if response.status != 200:
                    return await _refused(response, reading.steps, output)
                return await _read(response.content, reading, output)


async def push_all(
    images: EngineImages, build: ImageBuild, logins: RegistryLogins, say: Say
) -> None:
    """Push what was built, if so ordered."""
    if build.push:
        for image in images_of(build):
            say(f"pushing {image}")
            await images.push(image, logins)


class _ClassicReading:
    def __init__(self, say: Say) -> None:
        self.steps = ClassicSteps(say)

    def text(self, message: Message) -> bytes:
        if message.status:
            return b"" if message.progress else f"{message.id} {message.status}\n".encode()
        # What goes to stderr is red.
        text = message.stream.removeprefix("\x1b[91m").removesuffix("\x1b[0m").encode()
        self.steps.feed(text)
        return text


class _TraceReading:
    def __init__(self, say: Say) -> None:
        self.steps = PlainSteps(say)
        self._trace = Trace()

    def text(self, message: Message) -> bytes:
        if message.id != "moby.buildkit.trace" or not isinstance(message.aux, str):
            return b""
        try:
            text = self._trace.text(base64.b64decode(message.aux))
        except ValueError:  # a build does not fail for its progress
            return b""
        self.steps.feed(text)
        return text


async def _read(
    content: aiohttp.StreamReader, reading: "_TraceReading | _ClassicReading", output: Output
) -> Failure | None:
    async with aclosing(messages(content)) as said:
        async for message in said:
            await output.write(reading.text(message))
            if message.error:
                await output.write(f"{message.error}\n".encode())
                return reading.steps.failure(message.error)
    return None


async def _refused(response: aiohttp.ClientResponse, steps: Steps, output: Output) -> Failure:
    reason = refusal(response.status, await response.read())
    await output.write(f"{reason}\n".encode())
    return steps.failure(reason)


def _params(build: ImageBuild, buildkit: bool) -> list[tuple[str, str]]:
    given: dict[str, Any] = {
        "version": "2" if buildkit else "1",
        "dockerfile": build.dockerfile,
        "target": build.target,
        "platform": build.platform,
        "buildargs": msgspec.json.encode(build.build_args).decode(),
        "labels": msgspec.json.encode(build.labels).decode(),
        "rm": "1",
        "forcerm": "1",  # failed and cancelled builds leave no containers either
    }
    names = [("t", str(image)) for image in images_of(build)]
    return [(name, value) for name, value in given.items() if value] + names


def _has_buildkit(response: aiohttp.ClientResponse) -> bool:
    """What the engine's header says; where it says nothing, whether engines of its age have it.

    20.10 has BuildKit and does not say so; podman answers with an empty header and takes
    everything for the classic builder.
    """
    said = response.headers.get("Builder-Version")
    if said is not None or "Libpod-API-Version" in response.headers:
        return said == "2"
    numbers = response.headers.get("Api-Version", "0.0").split(".")
    api = tuple(int(number) for number in numbers if number.isdigit())
    return api >= _BUILDKIT_API and response.headers.get("Ostype") != "windows"
