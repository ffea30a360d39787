"""What a job's code says that it needs: which file counts, and what its lines mean."""

from pathlib import Path

import pytest

from launch_async.domain.errors import ItemError, Stage
from launch_async.domain.requirements import (
    MAX_BYTES,
    find_requirements,
    is_local,
    without_local,
)

PROJECT = '[project]\nname = "x"\nversion = "1"\ndependencies = ["numpy >=1", "wandb"]\n'


def test_requirements_come_before_the_project_and_that_before_the_frozen_list(tmp_path: Path):
    assert find_requirements(tmp_path).lines == ()
    (tmp_path / "requirements.frozen.txt").write_text("frozen==1\n")
    found = find_requirements(tmp_path)
    assert (found.lines, found.frozen) == (("frozen==1",), True)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    found = find_requirements(tmp_path)
    assert (found.lines, found.frozen, found.file) == (("numpy >=1", "wandb"), False, None)
    (tmp_path / "requirements.txt").write_text("plain\n")
    assert find_requirements(tmp_path).lines == ("plain",)


@pytest.mark.parametrize(
    "project",
    [
        "[tool.poetry.dependencies]\nnumpy = '*'\n",
        '[project]\nname = "x"\ndynamic = ["dependencies"]\n',
    ],
)
def test_a_project_that_names_no_dependencies_leaves_the_frozen_list(project: str, tmp_path: Path):
    (tmp_path / "pyproject.toml").write_text(project)
    (tmp_path / "requirements.frozen.txt").write_text("frozen==1\n")
    assert find_requirements(tmp_path).frozen


def test_a_project_that_is_no_toml_is_an_error_of_the_build(tmp_path: Path):
    (tmp_path / "pyproject.toml").write_text("[project\n")
    with pytest.raises(ItemError, match=r"pyproject\.toml cannot be read") as caught:
        find_requirements(tmp_path)
    assert caught.value.stage == Stage.BUILD


def test_files_that_are_referred_to_are_read_in_once(tmp_path: Path):
    (tmp_path / "more").mkdir()
    (tmp_path / "requirements.txt").write_text("-r more/base.txt\n-c limits.txt\na\n")
    (tmp_path / "more" / "base.txt").write_text(
        "--requirement=deep.txt\n-r ../requirements.txt\nb\n"
    )
    (tmp_path / "more" / "deep.txt").write_text("c  # why\n")
    (tmp_path / "limits.txt").write_text("a<2\n")
    found = find_requirements(tmp_path)
    assert set(found.texts) == {"requirements.txt", "more/base.txt", "more/deep.txt", "limits.txt"}
    assert set(found.lines) >= {"a", "b", "c", "a<2"}
    assert found.missing == ()


def test_files_that_are_not_in_the_code_are_named(tmp_path: Path):
    code = tmp_path / "code"
    code.mkdir()
    (tmp_path / "outside.txt").write_text("secret\n")
    (code / "link.txt").symlink_to(tmp_path / "outside.txt")
    (code / "requirements.txt").write_text(
        "-r ../outside.txt\n-r link.txt\n-r gone.txt\n-r https://index.example/r.txt\na\n"
    )
    found = find_requirements(code)
    assert found.missing == ("../outside.txt", "link.txt", "gone.txt")
    assert "secret" not in found.lines


def test_a_list_that_links_out_of_the_code_does_not_count(tmp_path: Path):
    code = tmp_path / "code"
    code.mkdir()
    (tmp_path / "outside.txt").write_text("secret\n")
    (code / "requirements.txt").symlink_to(tmp_path / "outside.txt")
    assert find_requirements(code).lines == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_list_may_have_any_mark_of_byte_order(encoding: str, tmp_path: Path):
    (tmp_path / "requirements.txt").write_bytes("idna==3.7\r\nwandb\r\n".encode(encoding))
    assert find_requirements(tmp_path).lines == ("idna==3.7", "wandb")


def test_a_list_that_is_none_by_its_length_is_refused(tmp_path: Path):
    (tmp_path / "requirements.txt").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ItemError, match="longer than 4 MiB"):
        find_requirements(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        *(".", ".[dev]", "..", "./pkg", "pkg/", "pkg/[dev]", "-e .", "-e ./pkg", "--editable=pkg/"),
        *("--editable pkg/sub", "wheels/x-1.0-py3-none-any.whl", "x-1.0.tar.gz", "file:pkg"),
        *("file:///code/pkg", "x @ file:///code/pkg", "git+file:///code", "-f wheels"),
        *("--find-links=./wheels", "./pkg ; python_version < '4'", "--index-url ./simple"),
        "--extra-index-url=file:///code/simple",
    ],
)
def test_a_line_that_names_a_path_is_local(line: str):
    assert is_local(line)


@pytest.mark.parametrize(
    "line",
    [
        *("numpy", "numpy>=1,<2", "numpy[extra]==1.0", "x @ https://host.example/x-1.0.whl"),
        *("git+https://host.example/x.git@main", "-e git+https://host.example/x.git#egg=x"),
        *("https://host.example/x-1.0.tar.gz", "--index-url https://host.example/simple/"),
        *("-r more/base.txt", "-c limits.txt", "--hash=sha256:00", "-f https://host.example/links"),
        *("x @ git+ssh://git@host.example/x.git", "x==1.0 ; sys_platform == 'a/b'"),
    ],
)
def test_a_line_that_an_index_serves_is_not_local(line: str):
    assert not is_local(line)


def test_what_is_local_is_left_out_with_all_its_lines():
    text = (
        "a==1 \\\n  --hash=sha256:00\n-e . # mine\n./pkg \\\n  ; python_version > '3'\n-r b.txt\n"
    )
    assert without_local(text) == "a==1 --hash=sha256:00\n-r b.txt\n"
