"""What reaches a terminal or a pipe, whatever it can show."""

import io
import sys
import warnings
from collections.abc import Iterator

import pytest
import structlog

from launch_async.cli.output import set_up_logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def settings_restored() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def fail_with(password: str) -> None:
    raise RuntimeError(f"no entry with {len(password)} characters")


@pytest.mark.usefixtures("settings_restored")
def test_a_traceback_shows_no_values_of_variables(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    set_up_logs(verbosity=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fail_with("hidden words")
        except RuntimeError:
            structlog.get_logger().exception("a fault")
    text = terminal.getvalue()
    assert "a fault" in text
    assert "fail_with(" in text
    assert "no entry with 12 characters" in text
    assert text.count("hidden words") == 1, "in the line of the source alone"
