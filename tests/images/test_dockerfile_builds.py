"""Generated Dockerfiles, built on the real engine, and what their containers find."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import pytest
from image_builds import (
    BUILDKIT,
    CLASSIC,
    BuiltImage,
    command_with_buildkit,
    order_for,
    stage_recipe,
    write,
)

from launch_async.images.dependencies import missing_packages
from launch_async.images.recipe import RecipeOrder, recipe_of

pytestmark = pytest.mark.docker

TRAIN = """\
import getpass, importlib.util, json, os, sys
open("written", "w").close()
os.makedirs("wandb")
print(json.dumps({
    "folder": os.getcwd(), "uid": os.getuid(), "gid": os.getgid(), "home": os.path.expanduser("~"),
    "user": getpass.getuser(), "prefix": sys.prefix, "args": sys.argv[1:],
    "has": [name for name in ("idna", "mine", "pip") if importlib.util.find_spec(name)],
    "files": sorted(name for name in os.listdir(".") if "launch-async" not in name),
}))
"""
PACKAGE = """\
[project]
name = "mine"
version = "1"
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
"""
ANOTHER_BASE = """\
FROM python:3.11-slim
RUN useradd --uid 1000 somebody
USER somebody
WORKDIR /elsewhere
ENTRYPOINT ["false"]
CMD ["arguments", "of", "the", "base"]
"""


@pytest.fixture(autouse=True)
def _base(python_image: str) -> None:
    assert python_image == "python:3.11-slim"


@pytest.fixture
def with_buildkit(miss: Callable[[str], NoReturn]) -> None:
    if command_with_buildkit() is None:
        miss("no docker command here builds with BuildKit")


def built(order: RecipeOrder, into: Path, builder: str = CLASSIC) -> BuiltImage:
    return BuiltImage(stage_recipe(recipe_of(order), into), builder)


def facts(image: BuiltImage, *words: str) -> dict[str, Any]:
    return json.loads(image.output(words))


def test_code_runs_as_nobody_special_with_what_it_needs(tmp_path: Path):
    code = write(
        tmp_path / "code",
        {"train.py": TRAIN, "requirements.txt": "-r more.txt\n", "more.txt": "idna\n"},
    )
    write(code, {".dockerignore": "left-out\n", "left-out/a": "", ".git/config": ""})
    with built(order_for(code), tmp_path / "staged") as image:
        found = facts(image, "--lr", "0.1")
        config = image.config
    assert found == {
        "folder": "/home/launch",
        "uid": 1000,
        "gid": 0,
        "home": "/home/launch",
        "user": "launch",
        "prefix": "/env",
        "args": ["--lr", "0.1"],
        "has": ["idna", "pip"],
        "files": [".dockerignore", "more.txt", "requirements.txt", "train.py", "wandb", "written"],
    }
    assert config["User"] == "1000:0"
    assert config["Entrypoint"] == ["python", "train.py"]


def test_code_that_changes_alone_installs_nothing_anew(tmp_path: Path):
    code = write(tmp_path / "code", {"train.py": TRAIN, "requirements.txt": "idna\n"})
    with built(order_for(code), tmp_path / "one"):
        write(code, {"train.py": TRAIN + "# changed\n", "more.py": ""})
        with built(order_for(code), tmp_path / "two") as image:
            assert "more.py" in facts(image)["files"]
            steps = image.log.split("\nStep ")
    (install,) = [step for step in steps if "installer.py" in step]
    (copy,) = [step for step in steps if "COPY --chown" in step]
    assert "Using cache" in install
    assert "Using cache" not in copy


@pytest.mark.parametrize("builder", [CLASSIC, BUILDKIT])
def test_what_a_frozen_list_lacks_is_in_every_builds_log_and_the_image_is_made(
    builder: str, with_buildkit: None, tmp_path: Path
):
    listed = "idna==3.7\nno-such-thing-anywhere==1.0\n"
    files = {"train.py": f"{TRAIN}# {uuid4()}\n", "requirements.frozen.txt": listed}
    code = write(tmp_path / "code", files)
    with built(order_for(code), tmp_path / "one", builder) as image:
        assert missing_packages(image.log) == ("no-such-thing-anywhere==1.0",)
        assert facts(image)["has"] == ["idna", "pip"]
        write(code, {"train.py": f"# {uuid4()}"})  # the list's layer is there already
        with built(order_for(code), tmp_path / "two", builder) as again:
            assert "No matching distribution" not in again.log
            assert missing_packages(again.log) == ("no-such-thing-anywhere==1.0",)


def test_a_package_within_the_code_is_installed_where_it_will_be(
    with_buildkit: None, tmp_path: Path
):
    files = {
        "train.py": TRAIN,
        "requirements.txt": "idna\n-e ./pkg\n",
        "pkg/pyproject.toml": PACKAGE,
    }
    code = write(tmp_path / "code", files | {"pkg/mine.py": ""})
    order = order_for(code, install_with="uv", has_mounts=True)
    with built(order, tmp_path / "staged", BUILDKIT) as image:
        found = facts(image)
    assert found["has"] == ["idna", "mine", "pip"]
    assert found["files"] == ["pkg", "requirements.txt", "train.py", "wandb", "written"]


def test_a_base_may_have_users_folders_and_an_entry_point_of_its_own(tmp_path: Path):
    write(tmp_path / "base", {"Dockerfile": ANOTHER_BASE})
    code = write(tmp_path / "code", {"train.py": TRAIN})
    with BuiltImage(tmp_path / "base" / "Dockerfile") as base:
        order = order_for(code, base_image=base.tag)
        with built(order, tmp_path / "staged") as image:
            found = facts(image)
    assert (found["uid"], found["gid"], found["folder"]) == (1000, 0, "/home/launch")
    assert (found["home"], found["args"]) == ("/home/launch", [])


def test_an_accelerator_image_gets_a_python_and_may_be_roots(with_buildkit: None, tmp_path: Path):
    code = write(tmp_path / "code", {"train.py": TRAIN, "requirements.txt": "idna\n"})
    block = {"accelerator": {"base_image": "python:3.11-slim"}}  # any of Debian's family
    order = order_for(code, builder=block, user="root", uid=0, has_mounts=True)
    with built(order, tmp_path / "staged", BUILDKIT) as image:
        found = facts(image)
    assert (found["uid"], found["folder"], found["prefix"]) == (0, "/home/root", "/env")
    assert found["has"] == ["idna", "pip"]
