"""Builds of recipes on the real engine, with either of its builders, and what came out."""

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from launch_async.images.ignore import Ignore
from launch_async.images.recipe import Recipe, RecipeOrder
from launch_async.images.staging import DOCKERFILE, scan, stage

CLASSIC, BUILDKIT = "classic", "buildkit"
BUILD_SECONDS = 400.0


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def order_for(code: Path, **changes: Any) -> RecipeOrder:
    """What a job with `python train.py` on Python 3.11 orders."""
    usual: dict[str, Any] = {
        "code": code,
        "entrypoint": ("python", "train.py"),
        "overrides_entry_point": False,
        "dockerfile": None,
        "job_dockerfile": None,
        "build_context": None,
        "runtime": "3.11",
        "builder": {},
        "has_mounts": False,
    }
    return RecipeOrder(**(usual | changes))


def stage_recipe(recipe: Recipe, into: Path) -> Path:
    """The Dockerfile in a staged context."""
    includes = Ignore(recipe.ignore).includes
    scanned = scan(recipe.context, includes=includes, extra_files=recipe.extra_files)
    stage(scanned, recipe.dockerfile, into)
    return into / DOCKERFILE


@functools.cache
def command_with_buildkit() -> str | None:
    """A docker command here that builds with BuildKit; the first in PATH may have no buildx."""
    for folder in os.get_exec_path():
        found = shutil.which("docker", path=folder)
        if found is None:
            continue
        told = _run([found, "version", "--format", "{{.Client.Version}}"], {})
        if (
            int(told.stdout.partition(".")[0] or 99) < 23
            or not _run([found, "buildx"], {}).returncode
        ):
            return found
    return None


def docker_build(context: Path, *words: str, builder: str = CLASSIC) -> str:
    """All that a build prints.

    Raises:
        AssertionError: it failed.
    """
    is_buildkit = builder == BUILDKIT
    command = command_with_buildkit() if is_buildkit else "docker"
    assert command is not None
    settings = {"DOCKER_BUILDKIT": "1" if is_buildkit else "0", "BUILDKIT_PROGRESS": "plain"}
    done = _run([command, "build", *words, str(context)], settings)
    said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout)
    assert done.returncode == 0, said
    return said


class BuiltImage:
    """An image made by a test, gone after the block."""

    def __init__(self, dockerfile: Path, builder: str = CLASSIC) -> None:
        self.tag = f"launch-async-test/recipe-{uuid4().hex[:12]}"
        self.log = docker_build(
            dockerfile.parent, "-t", self.tag, "-f", str(dockerfile), builder=builder
        )

    def __enter__(self) -> "BuiltImage":
        return self

    def __exit__(self, *_: object) -> None:
        _run(["docker", "rmi", "-f", self.tag], {})
        # The engine's own builder leaves the last image of each other stage, without a name.
        nameless = _run(["docker", "images", "-q", "--filter", "dangling=true"], {})
        made = re.findall(r"---> (\w{12})$", self.log, re.MULTILINE)
        left = set(nameless.stdout.split()) & set(made)
        if left:
            _run(["docker", "rmi", *left], {})

    @property
    def config(self) -> dict[str, Any]:
        shown = _run(["docker", "image", "inspect", self.tag], {})
        return json.loads(shown.stdout)[0]["Config"]

    def output(self, words: Sequence[str] = ()) -> str:
        """What a container of it prints that may do nothing but run.

        Raises:
            AssertionError: it failed.
        """
        run = ["docker", "run", "--rm", "--network", "none", "--cap-drop", "ALL"]
        done = _run([*run, self.tag, *words], {})
        assert done.returncode == 0, done.stdout
        return done.stdout


def _run(argv: Sequence[str], settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=BUILD_SECONDS,
        check=False,
    )
