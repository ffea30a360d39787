"""What `buildctl build` is told, wherever it and its context are."""

import hashlib
from pathlib import Path

from launch_async.adapters.builders.context import images_of
from launch_async.domain.image import ImageRef
from launch_async.ports.images import ImageBuild


def build_words(
    build: ImageBuild, *, context: str, dockerfile: str, cache: ImageRef | None
) -> list[str]:
    """The words after `buildctl build`.

    `context` is the folder's place and `dockerfile` the file's, as `buildctl` sees them.
    """
    folder, _, name = dockerfile.rpartition("/")
    options = {"filename": name}
    options |= {"platform": build.platform} if build.platform else {}
    options |= {"target": build.target} if build.target else {}
    options |= {f"build-arg:{name}": value for name, value in build.build_args.items()}
    options |= {f"label:{name}": value for name, value in build.labels.items()}
    names = ",".join(str(image) for image in images_of(build))
    words = ["--progress=plain", "--frontend=dockerfile.v0"]
    words += [f"--local=context={context}", f"--local=dockerfile={folder}"]
    words += [f"--opt={name}={value}" for name, value in options.items()]
    words += [f'--output=type=image,"name={names}",push=true']
    if cache is not None:
        words += [f"--import-cache=type=registry,ref={cache}"]
        # `max`: what is installed in a stage of its own as well.
        words += [f"--export-cache=type=registry,ref={cache},mode=max,ignore-error=true"]
    return words


def cache_of(repository: str, dockerfile: Path) -> ImageRef:
    """Where the layers of this Dockerfile are kept; blocks.

    One place for each Dockerfile: what is exported replaces what was there.
    """
    key = hashlib.sha256(dockerfile.read_bytes()).hexdigest()[:16]
    return ImageRef.parse(f"{repository}:cache-{key}")
