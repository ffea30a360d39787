"""A staged context holds what is sent and nothing else; its digest is that of its content."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch_async.domain.errors import ItemError, Reason
from launch_async.images.staging import DOCKERFILE, Scanned, scan, stage


def all_of(path: str) -> bool:
    del path
    return True


def scanned(root: Path, **extra: str) -> Scanned:
    return scan(root, includes=all_of, extra_files=extra)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    root = tmp_path / "code"
    (root / "pkg" / "empty").mkdir(parents=True)
    (root / "train.py").write_text("print(1)\n")
    (root / "pkg" / "run.sh").write_text("#!/bin/sh\n")
    (root / "pkg" / "run.sh").chmod(0o755)
    (root / "pkg" / "latest").symlink_to("run.sh")
    return root


def test_a_staged_context_has_files_links_programs_and_empty_folders(code: Path, tmp_path: Path):
    into = tmp_path / "staged"
    stage(scanned(code, extra="x\n"), "FROM a\n", into)
    found = {path.relative_to(into).as_posix() for path in into.rglob("*")}
    assert found == {
        "train.py", "pkg", "pkg/run.sh", "pkg/latest", "pkg/empty", "extra", DOCKERFILE,
    }  # fmt: skip
    assert (into / "pkg" / "latest").readlink() == Path("run.sh")
    assert os.access(into / "pkg" / "run.sh", os.X_OK)
    assert (into / DOCKERFILE).read_text() == "FROM a\n"
    assert (into / "extra").read_text() == "x\n"


def test_what_is_ignored_is_neither_sent_nor_counted(code: Path, tmp_path: Path):
    (code / "secret.env").write_text("a")
    before = scan(code, includes=lambda path: path != "secret.env", extra_files={})
    (code / "secret.env").write_text("b")
    after = scan(code, includes=lambda path: path != "secret.env", extra_files={})
    assert before.digest == after.digest
    stage(after, "FROM a\n", tmp_path / "staged")
    assert not (tmp_path / "staged" / "secret.env").exists()


def test_an_extra_file_stands_in_for_one_of_the_code(code: Path, tmp_path: Path):
    stage(scan(code, includes=all_of, extra_files={"train.py": "ours"}), "", tmp_path / "staged")
    assert (tmp_path / "staged" / "train.py").read_text() == "ours"
    assert (code / "train.py").read_text() == "print(1)\n"


def test_a_second_staging_leaves_nothing_of_the_first(code: Path, tmp_path: Path):
    into = tmp_path / "staged"
    stage(scanned(code, old="1"), "", into)
    stage(scanned(code), "", into)
    assert not (into / "old").exists()


def test_times_owners_and_place_do_not_change_the_digest(code: Path, tmp_path: Path):
    first = scanned(code).digest
    os.utime(code / "train.py", (1, 1))
    moved = code.rename(tmp_path / "elsewhere")
    assert scanned(moved).digest == first


@pytest.mark.parametrize(
    "change",
    [
        lambda code: (code / "train.py").write_text("print(2)\n"),
        lambda code: (code / "train.py").rename(code / "other.py"),
        lambda code: (code / "train.py").chmod(0o755),
        lambda code: (code / "new").write_text(""),
        lambda code: (code / "pkg" / "empty").rmdir(),
        lambda code: ((code / "pkg/latest").unlink(), (code / "pkg/latest").symlink_to("b")),
    ],
    ids=["content", "name", "mode", "new file", "folder", "link"],
)
def test_whatever_changes_the_context_changes_its_digest(code: Path, change):
    before = scanned(code).digest
    change(code)
    assert scanned(code).digest != before


def test_a_link_out_of_the_context_is_sent_as_a_link_and_never_followed(code: Path, tmp_path: Path):
    (code / "out").symlink_to("/etc")
    found = {entry.path: entry for entry in scanned(code).entries}
    assert found["out"].kind == "link"
    assert not any(path.startswith("out/") for path in found)


def test_a_socket_is_refused_by_name(code: Path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(code / "s"))
        with pytest.raises(ItemError, match="holds s, which is no file") as error:
            scanned(code)
    assert error.value.reason is Reason.JOB_INVALID


@given(files=st.dictionaries(st.text("ab", min_size=1, max_size=3), st.text("ab", max_size=3)))
def test_only_equal_contents_have_equal_digests(
    files: dict[str, str], tmp_path_factory: pytest.TempPathFactory
):
    root = tmp_path_factory.getbasetemp() / "no-files-here"
    root.mkdir(exist_ok=True)
    moved = {f"{name}{text[:1]}": text[1:] for name, text in files.items()}
    first = scan(root, includes=all_of, extra_files=files)
    second = scan(root, includes=all_of, extra_files=moved)
    assert (first.digest == second.digest) == (files == moved)
