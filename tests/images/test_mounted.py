"""Code that runs unbuilt: in the base, and after the requirements, of a generated image."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from image_builds import order_for
from maker_site import Site

from launch_async.domain.errors import ItemError, Reason
from launch_async.images.mounted import mounted
from launch_async.images.recipe import recipe_of
from launch_async.images.settings import ImageSettings
from launch_async.ports.jobs import Code
from launch_async.ports.runner import ImageWork

INSTALLS = ("python3", "-I", "-c")


def work_of(
    folder: Path,
    *,
    entrypoint: tuple[str, ...] = ("python", "train.py"),
    block: object = None,
    settings: ImageSettings | None = None,
    **job: Any,
) -> ImageWork:
    site = Site(folder)
    order = site.order(dockerfile=None, **job)
    spec = msgspec.structs.replace(order.item.spec, resource_args={"builder": block})
    item = msgspec.structs.replace(order.item, spec=spec)
    order = msgspec.structs.replace(order, item=item, entrypoint=entrypoint)
    return mounted(order, Code(folder=folder, key="k"), settings or ImageSettings())


@pytest.mark.parametrize("runtime", [None, "3.11", "3.9.18", "python-3.10", "2.7", "4.0"])
@pytest.mark.parametrize("default", [None, "a:1"])
@pytest.mark.parametrize("block", [None, {"base_image": "b:1"}])
def test_the_base_and_its_warnings_are_those_of_a_generated_image(
    runtime: str | None, default: str | None, block: dict[str, str] | None, tmp_path: Path
):
    (tmp_path / "requirements.txt").write_text("wandb\n")
    builder = block or {}
    order = order_for(tmp_path, runtime=runtime, base_image=default, builder=builder)
    built = recipe_of(order)
    settings = ImageSettings(base_image=default)
    work = work_of(tmp_path, runtime=runtime, settings=settings, block=block)
    assert ((work.image,), work.warnings) == (built.bases, built.warnings)


def test_a_base_that_is_no_reference_is_named_as_the_queues_or_the_agents(tmp_path: Path):
    with pytest.raises(ItemError, match=r"`builder\.base_image` of the resource config"):
        work_of(tmp_path, block={"base_image": "no image!"})
    with pytest.raises(ItemError, match=r"`builder\.base_image` of the agent's configuration"):
        work_of(tmp_path, settings=ImageSettings(base_image="no image!"))


def test_an_accelerator_image_is_for_builds_as_it_need_have_no_python(tmp_path: Path):
    block = {"accelerator": {"base_image": "nvidia/cuda:12.4.1-base"}, "base_image": "b:1"}
    assert work_of(tmp_path, block=block).image == "b:1"


def test_a_base_image_of_the_job_has_all_that_it_needs(tmp_path: Path):
    (tmp_path / "requirements.txt").write_text("wandb\n")
    work = work_of(tmp_path, base_image="mine:1", block={"base_image": "b:1"})
    assert (work.image, work.entrypoint) == ("mine:1", ("python", "train.py"))


def test_requirements_are_installed_before_the_entry_point(tmp_path: Path):
    assert work_of(tmp_path).entrypoint == ("python", "train.py")
    (tmp_path / "requirements.txt").write_text("wandb\n")
    words = work_of(tmp_path).entrypoint
    assert words[:3] == INSTALLS
    assert words[4:] == ("requirements.txt", "--then", "python", "train.py")


def test_a_project_is_not_installed_only_what_it_depends_on(tmp_path: Path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\ndependencies = ["wandb", "-x"]\n'
    )
    assert work_of(tmp_path).entrypoint[4:7] == ("--line=wandb", "--line=-x", "--then")


def test_only_a_frozen_list_may_be_had_in_part(tmp_path: Path):
    (tmp_path / "requirements.frozen.txt").write_text("# all\nwandb==1\nidna==2\n")
    words = ("--line=wandb==1", "--line=idna==2", "--frozen", "--then")
    assert work_of(tmp_path).entrypoint[4:8] == words


def test_a_script_that_nothing_runs_is_pythons(tmp_path: Path):
    found = work_of(tmp_path, entrypoint=("main.py",))
    assert found.entrypoint == ("python", "main.py")
    found = work_of(tmp_path, entrypoint=("main.py",), base_image="mine:1")
    assert found.entrypoint == ("python", "main.py")


def test_a_job_without_an_entry_point_cannot_run(tmp_path: Path):
    with pytest.raises(ItemError, match="no entry point") as raised:
        work_of(tmp_path, entrypoint=())
    assert raised.value.reason is Reason.JOB_INVALID
