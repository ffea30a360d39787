"""Small files are whole or not there, and for their owner only."""

import stat
from pathlib import Path

import pytest

from launch_async.kit.addresses import is_loopback
from launch_async.kit.files import write_atomically


def test_a_file_is_replaced_whole_and_private(tmp_path: Path):
    path = tmp_path / "identity"
    write_atomically(path, b"a longer first text")
    write_atomically(path, b"short")
    assert path.read_bytes() == b"short"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["identity"]


def test_what_a_crash_left_aside_is_written_over(tmp_path: Path):
    (tmp_path / "identity.new").write_bytes(b"half of a much longer tex")
    write_atomically(tmp_path / "identity", b"whole")
    assert (tmp_path / "identity").read_bytes() == b"whole"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:1/x", True),
        ("http://127.8.0.1", True),
        ("https://[::1]:2", True),
        ("http://a.localhost", True),
        ("http://172.17.0.1", False),
        ("http://localhost.example", False),
        ("no url", False),
    ],
)
def test_loopback_is_known_by_name_and_number(url: str, expected: bool):
    assert is_loopback(url) is expected
