"""The list of mutants fits the code, and the check sees who survives."""

from pathlib import Path

import pytest
from mutants import Copy, Mutant, listed

RULE = Mutant(
    rule="a phase follows the table",
    file="domain/phase.py",
    old="if to is not current and to not in MOVES[current]:",
    new="if False:",
    tests=("tests/domain/test_phase.py",),
)


@pytest.mark.parametrize("mutant", listed(), ids=lambda mutant: mutant.rule)
def test_a_mutant_names_a_text_that_is_there_once_and_tests_that_exist(mutant: Mutant):
    assert mutant.fault() == ""


def test_there_are_enough_mutants_and_each_rule_is_said_once():
    rules = [mutant.rule for mutant in listed()]
    assert len(rules) >= 50
    assert len(set(rules)) == len(rules)


def test_a_mutant_that_no_test_minds_survives_and_leaves_no_trace(tmp_path: Path):
    copy = Copy(tmp_path)
    assert copy.killers(RULE)
    harmless = Mutant(rule="none", file=RULE.file, old=RULE.old, new=RULE.old, tests=RULE.tests)
    assert copy.killers(harmless) == []
