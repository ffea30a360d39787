"""docs/faults.md names every row of the catalogue, and only tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| (R\d\d) \| (.+) \|$", PAGE, re.MULTILINE))
WAITING = {"R22", "R23", "R24", "R40"}


def test_every_row_is_there_and_has_a_test_or_waits_for_a_reason():
    assert list(ROWS) == [f"R{number:02}" for number in range(1, 41)]
    waiting = {row for row, text in ROWS.items() if " waits for " in text}
    assert waiting == WAITING
    assert all("::test_" in text for row, text in ROWS.items() if row not in waiting)


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", PAGE))))
def test_a_named_test_exists(named: str):
    path, _, name = named.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), named
