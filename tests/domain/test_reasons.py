"""docs/reasons.md has each code once, in the enum's order, with a remedy."""

import re
from pathlib import Path

from launch_async.domain.errors import Reason

PAGE = Path(__file__).parents[2] / "docs" / "reasons.md"
ROW = re.compile(r"^\| `(\w+)` \| (.+) \| (.+) \|$", re.MULTILINE)


def test_each_reason_has_a_meaning_and_a_remedy():
    rows = ROW.findall(PAGE.read_text())
    assert [code for code, _, _ in rows] == [reason.value for reason in Reason]
    assert all(meaning.strip() and remedy.strip() for _, meaning, remedy in rows)
