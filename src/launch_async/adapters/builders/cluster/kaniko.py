"""kaniko, or what takes its arguments: builds as an ordinary container, without any daemon.

It has no cache mounts. What `RUN` runs is in kaniko's own container, and so can read its logins.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from launch_async.adapters.builders.cluster.executors import CONTAINER, Part
from launch_async.adapters.builders.cluster.kaniko_steps import KanikoSteps
from launch_async.adapters.builders.context import images_of
from launch_async.domain.image import ImageRef
from launch_async.ports.images import ImageBuild, Say

_PUSH_TRIES = 3


class Kaniko:
    """Implements `Executor`. `cache`: repository of layers; None: the image's own, as W&B has it.

    `insecure`: hosts of registries that speak plain HTTP. `env`: variables of its container.
    """

    name = "kaniko"
    title = "kaniko"
    has_mounts = False
    logins_folder = "/kaniko/.docker"
    not_begun_code = None

    def __init__(
        self,
        image: str,
        *,
        cache: str | None = None,
        insecure: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._image = image
        self._cache = cache
        self._insecure = tuple(insecure)
        self._env = dict(env or {})

    def part(self, build: ImageBuild, dockerfile: Path, context: str) -> Part:
        """Its image's own program with its arguments; those on caches are W&B's."""
        del dockerfile
        args = [f"--context={context}", f"--dockerfile={build.dockerfile}"]
        args += [f"--destination={image}" for image in images_of(build)]
        args += [f"--custom-platform={build.platform}"] if build.platform else []
        args += [f"--target={build.target}"] if build.target else []
        args += [f"--build-arg={name}={value}" for name, value in build.build_args.items()]
        args += [f"--label={name}={value}" for name, value in build.labels.items()]
        args += [f"--insecure-registry={host}" for host in self._insecure]
        cache = self._cache or ImageRef.parse(build.image).name
        args += ["--cache=true", f"--cache-repo={cache}", "--compressed-caching=false"]
        args += ["--snapshot-mode=redo", f"--push-retry={_PUSH_TRIES}"]
        env = [{"name": name, "value": value} for name, value in self._env.items()]
        return Part(container={"name": CONTAINER, "image": self._image, "args": args, "env": env})

    def steps(self, say: Say) -> KanikoSteps:
        """Reads its log."""
        return KanikoSteps(say)
