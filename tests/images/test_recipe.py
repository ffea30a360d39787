"""Which Dockerfile builds a job, from which folder, and what the image then starts."""

import sys
from pathlib import Path
from typing import Any

import pytest
from image_builds import order_for, write

from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.images.dependencies import missing_packages
from launch_async.images.ignore import Ignore
from launch_async.images.recipe import Recipe, recipe_of

OWN = "FROM debian:12\nCOPY . /app\n"


def recipe(code: Path, files: dict[str, str], **changes: Any) -> Recipe:
    return recipe_of(order_for(write(code, files), **changes))


def refused(code: Path, files: dict[str, str], **changes: Any) -> ItemError:
    with pytest.raises(ItemError) as caught:
        recipe(code, files, **changes)
    assert caught.value.stage == Stage.BUILD
    return caught.value


def test_the_items_dockerfile_comes_first_then_the_jobs_then_that_beside_then_ours(tmp_path: Path):
    files = {
        "train.py": "",
        "Item": OWN + "# item",
        "Job": OWN + "# job",
        "Dockerfile.wandb": OWN + "# beside",
        "Dockerfile": OWN + "# nobody names it",
    }
    found = recipe(tmp_path, files, dockerfile="Item", job_dockerfile="Job")
    assert found.dockerfile.endswith("# item")
    assert recipe(tmp_path, files, job_dockerfile="Job").dockerfile.endswith("# job")
    assert recipe(tmp_path, files).dockerfile.endswith("# beside")
    (tmp_path / "Dockerfile.wandb").unlink()
    last = recipe_of(order_for(tmp_path))
    assert last.generated
    assert last.bases == ("python:3.11-slim",)
    assert not found.generated
    assert found.bases == ("debian:12",)


def test_a_dockerfile_is_relative_to_the_build_context(tmp_path: Path):
    files = {"sub/docker/D": OWN, "docker/D": "FROM wrong:1\n"}
    found = recipe(tmp_path, files, job_dockerfile="docker/D", build_context="sub")
    assert found.context == (tmp_path / "sub").resolve()
    assert found.dockerfile == OWN
    beside = recipe(tmp_path, files, job_dockerfile="../docker/D", build_context="sub")
    assert beside.bases == ("wrong:1",)


@pytest.mark.parametrize("name", ["gone", "../outside", "link", "/etc/hostname", "sub", "a\0b"])
def test_a_dockerfile_that_is_not_in_the_code_is_an_error_that_names_it(name: str, tmp_path: Path):
    write(tmp_path, {"outside": OWN})
    code = write(tmp_path / "code", {"train.py": "", "sub/x": ""})
    (code / "link").symlink_to(tmp_path / "outside")
    for whose in ("dockerfile", "job_dockerfile"):
        error = refused(code, {}, **{whose: name})
        assert error.reason == Reason.JOB_INVALID
        assert repr(name) in str(error)


@pytest.mark.parametrize("name", ["gone", "..", "link", "/etc", "train.py"])
def test_a_build_context_that_is_not_in_the_code_is_an_error(name: str, tmp_path: Path):
    code = write(tmp_path / "code", {"train.py": ""})
    (code / "link").symlink_to(tmp_path)
    assert "build context" in str(refused(code, {}, build_context=name))


def test_a_dockerfile_beside_the_entry_point_has_that_folder_as_its_context(tmp_path: Path):
    files = {"jobs/a/train.py": "", "jobs/a/c.yaml": "", "jobs/a/Dockerfile.wandb": OWN}
    words = ("python", "-u", "jobs/a/train.py", "--config", "jobs/a/c.yaml", "jobs/x.yaml")
    found = recipe(tmp_path, files, entrypoint=words)
    assert found.context == (tmp_path / "jobs" / "a").resolve()
    assert found.entrypoint == ("python", "-u", "train.py", "--config", "c.yaml", "jobs/x.yaml")


def test_a_program_beside_its_dockerfile_is_still_found_without_path(tmp_path: Path):
    files = {"jobs/run.sh": "", "jobs/Dockerfile.wandb": OWN}
    assert recipe(tmp_path, files, entrypoint=("jobs/run.sh", "x")).entrypoint == ("./run.sh", "x")


def test_an_entry_point_that_names_no_file_looks_for_a_dockerfile_at_the_top(tmp_path: Path):
    files = {"Dockerfile.wandb": OWN, "pkg/train.py": ""}
    for words in (("python", "-m", "pkg.train"), ("sh", "-c", "x " * 5000), ()):
        found = recipe(tmp_path, files, entrypoint=words)
        assert (found.context, found.entrypoint) == (tmp_path.resolve(), words)


def test_a_link_out_of_the_code_is_no_dockerfile_beside_the_entry_point(tmp_path: Path):
    write(tmp_path, {"outside": OWN})
    code = write(tmp_path / "code", {"train.py": ""})
    (code / "Dockerfile.wandb").symlink_to(tmp_path / "outside")
    assert recipe_of(order_for(code)).generated


def test_the_entry_point_of_ones_own_dockerfile_may_be_the_images(tmp_path: Path):
    assert recipe(tmp_path, {"D": OWN}, entrypoint=(), dockerfile="D").entrypoint == ()
    error = refused(tmp_path, {}, entrypoint=())
    assert "no entry point" in str(error)


def test_a_script_that_nothing_runs_is_pythons_or_leaves_it_to_the_image(tmp_path: Path):
    """`wandb job create` without an entry point writes `main.py`, which no PATH has."""
    alone = {"entrypoint": ("main.py",)}
    found = recipe(tmp_path, {"main.py": "", "D": OWN}, **alone)
    assert found.entrypoint == ("python", "main.py")
    assert 'ENTRYPOINT ["python", "main.py"]' in found.dockerfile
    assert recipe(tmp_path, {}, dockerfile="D", **alone).entrypoint == ()
    chosen = recipe(tmp_path, {}, dockerfile="D", overrides_entry_point=True, **alone)
    assert chosen.entrypoint == ("main.py",)


@pytest.mark.parametrize("text", ["", "# FROM a\nRUN true\n"])
def test_a_dockerfile_without_an_image_is_refused(text: str, tmp_path: Path):
    assert "no FROM" in str(refused(tmp_path, {"D": text}, dockerfile="D"))


def test_a_dockerfile_that_is_no_text_or_too_much_is_refused(tmp_path: Path):
    (tmp_path / "D").write_bytes(b"FROM a\n\xff\n")
    assert "no UTF-8" in str(refused(tmp_path, {}, dockerfile="D"))
    (tmp_path / "D").write_bytes(b"#" * (2 << 20))
    assert "longer than 1 MiB" in str(refused(tmp_path, {}, dockerfile="D"))


def test_what_a_dockerfile_itself_has_ignored_beats_what_the_context_has(tmp_path: Path):
    files = {
        "docker/D": OWN,
        "docker/E": OWN,
        ".dockerignore": "a\n",
        "docker/D.dockerignore": "# mine\nb/\n",
        "Dockerfile.wandb.dockerignore": "c\n",
        "Dockerfile.wandb": OWN,
        "train.py": "",
    }
    assert recipe(tmp_path, files, dockerfile="docker/D").ignore == ("b",)
    assert recipe(tmp_path, files, dockerfile="docker/E").ignore == ("a",)
    assert recipe(tmp_path, files).ignore == ("c",)


def test_a_generated_image_gets_neither_git_nor_what_the_job_wants_left_out(tmp_path: Path):
    files = {".dockerignore": "data\n!**/.git\n", "train.py": "", "requirements.txt": "wandb\n"}
    ignore = Ignore(recipe(tmp_path, files).ignore)
    left_out = {"data/a", ".git", ".git/config", "sub/.git", ".launch-async/installer.py"}
    kept = {"train.py", "sub/a", ".gitignore", "requirements.txt"}
    assert {path for path in left_out | kept if ignore.includes(path)} == kept


def test_the_lists_of_requirements_are_sent_whatever_is_ignored(tmp_path: Path):
    files = {".dockerignore": "**/*.txt\n", "requirements.txt": "-r more/a.txt\n"}
    found = recipe(tmp_path, files | {"more/a.txt": "wandb\n"})
    assert found.extra_files[".launch-async/first/requirements.txt"] == "-r more/a.txt\n"
    assert found.extra_files[".launch-async/first/more/a.txt"] == "wandb\n"


def test_ignored_patterns_that_are_none_fail_the_job_and_name_it(tmp_path: Path):
    assert "'a[' is no pattern" in str(refused(tmp_path, {".dockerignore": "a[\n"}))


def test_a_generated_image_holds_the_build_context_alone(tmp_path: Path):
    files = {
        "train.py": "",
        "sub/train.py": "",
        "sub/requirements.txt": "wandb\nidna\n",
        "requirements.txt": "other\n",
    }
    found = recipe(tmp_path, files, build_context="sub")
    assert found.context == (tmp_path / "sub").resolve()
    assert found.extra_files[".launch-async/first/requirements.txt"] == "wandb\nidna\n"
    assert found.entrypoint == ("python", "train.py")
    rooted = recipe(tmp_path, files, build_context="sub", entrypoint=("python", "sub/train.py"))
    assert rooted.entrypoint == ("python", "train.py")
    assert '["python", "train.py"]' in rooted.dockerfile


def test_an_items_entry_point_is_started_but_not_kept_in_the_image(tmp_path: Path):
    """So that items which differ in it alone share one image."""
    files = {"train.py": "", "test.py": ""}
    one = recipe(tmp_path, files, entrypoint=("python", "test.py"), overrides_entry_point=True)
    two = recipe(tmp_path, files, entrypoint=("python", "train.py"), overrides_entry_point=True)
    assert one.dockerfile == two.dockerfile
    assert (one.entrypoint, two.entrypoint) == (("python", "test.py"), ("python", "train.py"))
    assert "ENTRYPOINT" not in one.dockerfile
    assert "ENTRYPOINT" in recipe(tmp_path, files).dockerfile


@pytest.mark.parametrize(
    ("runtime", "image"),
    [
        ("3.11", "python:3.11-slim"),
        ("3.12.4", "python:3.12-slim"),
        ("python-3.9.18", "python:3.9-slim"),
        (None, f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim"),
    ],
)
def test_the_python_is_the_jobs_else_the_agents(runtime: str | None, image: str, tmp_path: Path):
    found = recipe(tmp_path, {"requirements.txt": "wandb\n"}, runtime=runtime)
    assert (found.bases, found.warnings) == ((image,), ())


@pytest.mark.parametrize(
    ("runtime", "used"), [("2.7", "3.8"), ("3.6.9", "3.8"), ("3.99", "3.15"), ("4.0", "3.15")]
)
def test_a_python_of_which_there_is_no_image_is_replaced_with_a_warning(
    runtime: str, used: str, tmp_path: Path
):
    found = recipe(tmp_path, {"requirements.txt": "wandb\n"}, runtime=runtime)
    assert found.bases == (f"python:{used}-slim",)
    assert f"has {used}" in found.warnings[0]


@pytest.mark.parametrize("key", ["accelerator", "cuda"])
def test_an_accelerator_image_gets_a_python_of_its_distribution(key: str, tmp_path: Path):
    block = {key: {"base_image": "nvidia/cuda:12.4.1-base"}, "base_image": "b:1"}
    found = recipe(tmp_path, {}, builder=block, base_image="a:1", runtime="3.10.2")
    assert found.bases == ("nvidia/cuda:12.4.1-base",)
    assert "python3.10 python3.10-venv" in found.dockerfile
    assert "FROM nvidia/cuda:12.4.1-base AS base\n" in found.dockerfile


def test_the_queues_base_image_comes_before_the_agents(tmp_path: Path):
    assert recipe(tmp_path, {}, base_image="a:1").bases == ("a:1",)
    both = recipe(tmp_path, {}, base_image="a:1", builder={"base_image": "b:1", "cuda": None})
    assert both.bases == ("b:1",)


@pytest.mark.parametrize("image", ["A:1", "a b", "a\nRUN x", "a#b", "a@sha256:00", 7, ["a"]])
@pytest.mark.parametrize("accelerated", [True, False])
def test_a_base_that_is_no_image_is_refused(image: object, accelerated: bool, tmp_path: Path):
    block = {"base_image": image}
    error = refused(tmp_path, {}, builder={"accelerator": block} if accelerated else block)
    named = "builder.accelerator.base_image" if accelerated else "builder.base_image"
    assert f"`{named}`" in str(error)


def test_a_block_that_is_no_object_is_refused(tmp_path: Path):
    error = refused(tmp_path, {}, builder={"accelerator": "nvidia/cuda:12"})
    assert error.reason == Reason.RESOURCE_ARGS_INVALID


def test_images_run_as_nobody_special_but_for_sagemaker(tmp_path: Path):
    usual = recipe(tmp_path, {})
    assert "\nUSER 1000:0\n" in usual.dockerfile
    assert usual.working_dir == "/home/launch"
    root = recipe(tmp_path, {}, user="root", uid=0)
    assert "USER" not in root.dockerfile
    assert "useradd" not in root.dockerfile
    assert root.working_dir == "/home/root"
    other = recipe(tmp_path, {}, user="root", uid=0, base_image="a:1")
    assert other.dockerfile.count("USER 0:0\n") == 2


def test_dependencies_are_installed_before_the_code_is_there(tmp_path: Path):
    files = {"train.py": "", "requirements.txt": "wandb\nidna\n"}
    before = recipe(tmp_path, files)
    after = recipe(tmp_path, files | {"train.py": "print()"})
    assert (before.dockerfile, before.extra_files) == (after.dockerfile, after.extra_files)
    first, last = before.dockerfile.split("\n\n")
    assert "COPY .launch-async/ ./" in first
    assert "COPY . ." not in first
    assert "COPY --chown=1000:0 . ." in last


def test_what_is_installed_from_a_path_needs_the_code_and_the_rest_does_not(tmp_path: Path):
    files = {"requirements.txt": "wandb\n-e .\n-r more.txt\n", "more.txt": "idna\n./pkg\n"}
    found = recipe(tmp_path, files)
    first = found.dockerfile.split("\n\n")[0].split("COPY . .")
    assert "first/requirements.txt" in first[0]
    assert "whole/requirements.txt" in first[1]
    files_of = {
        path.removeprefix(".launch-async/"): text for path, text in found.extra_files.items()
    }
    assert files_of["first/requirements.txt"] == "wandb\n-r more.txt\n"
    assert files_of["first/more.txt"] == "idna\n"
    assert files_of["whole/requirements.txt"] == files["requirements.txt"]
    assert files_of["whole/more.txt"] == files["more.txt"]
    alone = recipe(tmp_path, {"requirements.txt": "-e .\n", "more.txt": ""})
    assert "first/" not in alone.dockerfile


def test_what_a_folder_of_the_code_may_serve_is_never_asked_of_an_index(tmp_path: Path):
    found = recipe(tmp_path, {"requirements.txt": "-f ./wheels\nours==1.0\nwandb\n"})
    assert "first/" not in found.dockerfile
    assert "whole/requirements.txt" in found.dockerfile


def test_caches_are_mounted_only_where_the_builder_knows_mounts(tmp_path: Path):
    files = {"requirements.txt": "wandb\n"}
    assert "--mount" not in recipe(tmp_path, files).dockerfile
    for tool in ("pip", "uv"):
        found = recipe(tmp_path, files, has_mounts=True, install_with=tool).dockerfile
        assert f"RUN --mount=type=cache,target=/root/.cache/{tool} [" in found
        assert f'"--with", "{tool}"' in found


def test_only_a_frozen_list_may_be_installed_in_part(tmp_path: Path):
    found = recipe(tmp_path, {"requirements.frozen.txt": "wandb==0.1\n# x\nidna==3.7\n"})
    assert '"--frozen"' in found.dockerfile
    assert found.extra_files[".launch-async/first/requirements.frozen.txt"] == (
        "wandb==0.1\nidna==3.7\n"
    )
    assert '"--frozen"' not in recipe(tmp_path, {"requirements.txt": "wandb\n"}).dockerfile


def test_a_list_that_is_referred_to_and_missing_is_an_error(tmp_path: Path):
    error = refused(tmp_path, {"requirements.txt": "-r ../other.txt\n"})
    assert "../other.txt" in str(error)


@pytest.mark.parametrize(
    ("files", "warning"),
    [
        ({}, "names no requirements"),
        ({"requirements.txt": "numpy\n"}, "do not name wandb"),
        ({"requirements.txt": "wandb>=0.17\n"}, None),
        ({"requirements.txt": "git+https://github.com/wandb/wandb.git\n"}, None),
        ({"requirements.txt": "-e .\n"}, None),  # who knows what that needs
    ],
)
def test_what_may_be_forgotten_is_a_warning(
    files: dict[str, str], warning: str | None, tmp_path: Path
):
    found = recipe(tmp_path, files).warnings
    assert (len(found) == 1 and warning in found[0]) if warning else not found


def test_missing_packages_are_read_from_any_builders_log():
    log = (
        "Step 5/9 : RUN x\nlaunch-async: could not install: no-such==1.0\n"
        "#8 12.31 launch-async: could not install: Torch.thing==2.1.0+cu118\r\n"
        "\x1b[91mlaunch-async: could not install: three\x1b[0m\n"
        "launch-async: could not install: no-such==1.0\n"
        "launch-async: could not install: a URL or path\nlaunch-async: the index\n"
    )
    found = ("no-such==1.0", "Torch.thing==2.1.0+cu118", "three", "a URL or path")
    assert missing_packages(log) == found
    assert missing_packages("") == ()
    many = "".join(f"launch-async: could not install: p{n}\n" for n in range(5000))
    assert len(missing_packages(many)) == 200
