"""Every shape of generated Dockerfile passes hadolint."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from image_builds import order_for, write

from launch_async.images.recipe import recipe_of

HADOLINT = Path(sys.executable).with_name("hadolint")
IGNORED = {
    "DL3008": "packages for an image that somebody else chose have whatever version it offers",
    "DL3002": "apt and pip need root before the last USER; SageMaker's containers are root's",
}
"""All other rules hold, those that only inform too."""
NOT_OURS = {
    "DL3006": "the version of a base is for who names it",
    "DL3007": "the version of a base is for who names it",
}

LISTS = {
    "nothing": {},
    "list": {"requirements.txt": "wandb\n"},
    "project": {"pyproject.toml": '[project]\nname = "x"\ndependencies = ["wandb"]\n'},
    "frozen": {"requirements.frozen.txt": "wandb==0.31.0\n"},
    "paths": {"requirements.txt": "wandb\n-e .\n"},
    "paths only": {"requirements.txt": "./pkg\n"},
}
BASES = {
    "python": {},
    "own": {"base_image": "host.example:5000/team/python:3.11"},
    "accelerator": {"builder": {"accelerator": {"base_image": "nvidia/cuda:12.4.1-base"}}},
}
USERS = {"launch": {}, "root": {"user": "root", "uid": 0}}
TOOLS = {"pip": {}, "uv": {"install_with": "uv"}}


def complaints(text: str) -> set[str]:
    """The codes of the rules that a Dockerfile breaks."""
    done = subprocess.run(
        [HADOLINT, "--no-color", "--disable-ignore-pragma", "-f", "json", "-"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    return {one["code"] for one in json.loads(done.stdout)}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("listed", LISTS)
def test_generated_dockerfiles_pass_hadolint(listed: str, base: str, tmp_path: Path):
    write(tmp_path, LISTS[listed])
    for user, tool, has_mounts in itertools.product(USERS, TOOLS, (False, True)):
        changes: dict[str, Any] = BASES[base] | USERS[user] | TOOLS[tool]
        recipe = recipe_of(order_for(tmp_path, has_mounts=has_mounts, **changes))
        broken = complaints(recipe.dockerfile)
        # Python's own image needs no exception.
        ignored = set() if base == "python" else set(IGNORED)
        assert broken <= ignored, (user, tool, has_mounts, recipe.dockerfile)


def test_only_the_version_of_a_base_is_left_to_who_names_it(tmp_path: Path):
    write(tmp_path, LISTS["list"])
    for image in ("team/python", "team/python:latest"):
        recipe = recipe_of(order_for(tmp_path, base_image=image))
        assert complaints(recipe.dockerfile) - set(IGNORED) <= set(NOT_OURS)


def test_hadolint_does_complain():
    assert complaints("FROM a:1\nRUN cd /tmp && sudo x\nENTRYPOINT x\n") >= {"DL3004", "DL3025"}
