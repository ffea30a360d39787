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
        with pytest.raises(ItemError, match=r"holds 's', which is no file") as error:
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


def test_names_that_are_no_text_are_sent_and_tell_contents_apart(code: Path, tmp_path: Path):
    names = [os.fsdecode(b"caf\xe9"), "two\nlines", "-rf", "..a", " ", "\\", "$(id)", "a" * 255]
    for name in names:
        (code / name).write_text(name[:1])
    (code / "linked").symlink_to(os.fsdecode(b"caf\xe9"))
    first = scanned(code)
    stage(first, "FROM a\n", tmp_path / "staged")
    staged = {path.name for path in (tmp_path / "staged").iterdir()}
    assert staged == {path.name for path in code.iterdir()} | {DOCKERFILE}
    (code / names[0]).rename(code / os.fsdecode(b"caf\xe8"))
    assert scanned(code).digest != first.digest


@pytest.mark.parametrize("kind", ["file", "folder", "link", "link to a folder"])
def test_nothing_of_the_job_stands_where_something_of_ours_goes(
    code: Path, tmp_path: Path, kind: str
):
    outside = tmp_path / "outside"
    (outside / "first").mkdir(parents=True)
    (outside / "a").write_text("theirs")
    for place in (code / DOCKERFILE, code / ".ours", code / "pkg" / "list"):
        match kind:
            case "file":
                place.write_text("the job's")
            case "folder":
                place.mkdir()
                (place / "inner").write_text("the job's")
            case "link":
                place.symlink_to(outside / "a")
            case _:
                place.symlink_to(outside)
    into = tmp_path / "staged"
    ours = {".ours/first/list": "ours", ".ours/a": "ours", "pkg/list": "ours"}
    stage(scan(code, includes=all_of, extra_files=ours), "FROM a\n", into)
    assert (into / DOCKERFILE).read_text() == "FROM a\n"
    for path, text in ours.items():
        assert (into / path).read_text() == text
        assert (into / path).resolve().is_relative_to(into)
    assert (outside / "a").read_text() == "theirs"
    assert list((outside / "first").iterdir()) == []


def test_modes_are_those_of_git_whatever_the_umask(code: Path, tmp_path: Path):
    before = os.umask(0o077)
    try:
        stage(scanned(code, **{"new/extra": "x"}), "FROM a\n", tmp_path / "staged")
    finally:
        os.umask(before)
    modes = {
        path.name: path.stat().st_mode & 0o777
        for path in (tmp_path / "staged").rglob("*")
        if path.name in ("pkg", "new", "empty", "extra", DOCKERFILE)
    }
    assert modes == {"pkg": 0o755, "new": 0o755, "empty": 0o755, "extra": 0o644, DOCKERFILE: 0o644}


def test_a_links_target_is_kept_to_the_letter(code: Path, tmp_path: Path):
    (code / "odd").symlink_to("./pkg//run.sh")
    stage(scanned(code), "FROM a\n", tmp_path / "staged")
    assert os.readlink(tmp_path / "staged" / "odd") == "./pkg//run.sh"  # noqa: PTH115


def test_a_look_and_a_staging_can_be_ended_at_any_file(code: Path, tmp_path: Path):
    class Ended(Exception):
        pass

    def end() -> None:
        raise Ended

    with pytest.raises(Ended):
        scan(code, includes=all_of, extra_files={}, checkpoint=end)
    with pytest.raises(Ended):
        stage(scanned(code), "", tmp_path / "staged", checkpoint=end)
    assert not list((tmp_path / "staged").iterdir())
