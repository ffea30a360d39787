"""The end of a file or stream, however large it is."""

from pathlib import Path

from launch_async.kit.tail import MAX_LINE_CHARACTERS, ByteTail, last_lines


def test_the_last_lines_come_oldest_first(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntwo\nthree\n")
    assert last_lines(path, lines=2) == ("two", "three")
    assert last_lines(path, lines=9) == ("one", "two", "three")
    assert last_lines(path, lines=0) == ()


def test_a_missing_file_and_an_empty_one_have_no_lines(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none", lines=3) == ()
    (tmp_path / "empty").touch()
    assert last_lines(tmp_path / "empty", lines=3) == ()


def test_only_the_end_of_a_large_file_is_read_and_its_cut_line_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(1000)))
    assert last_lines(path, lines=100, max_bytes=25) == ("line 998", "line 999")


def test_a_huge_line_is_shortened(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("x" * (MAX_LINE_CHARACTERS + 7) + "\n")
    (line,) = last_lines(path, lines=1)
    assert line.endswith("… (7 more characters)")


def test_a_progress_bar_shows_its_last_state(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"10%\r50%\r100%\r\nlast without end \xff")
    assert last_lines(path, lines=2) == ("100%", "last without end \ufffd")


def test_a_stream_is_kept_to_its_limit() -> None:
    tail = ByteTail(max_bytes=20)
    for number in range(100):
        tail.feed(f"line {number}\n".encode())
    assert tail.lines(5) == ("line 99",) or tail.lines(5) == ("line 98", "line 99")
    assert ByteTail().lines(5) == ()
