"""The comparison of `make lint` itself: it misses no line, and takes no report for granted."""

from __future__ import annotations

import re

import pytest
from tests.typing.check import WRONG, Report, clean, wrong_uses

LINES = WRONG.read_text().splitlines()


def expected(checker: str) -> list[Report]:
    """What the comments say."""
    return [
        Report(str(WRONG), number, rule, "")
        for number, line in enumerate(LINES, 1)
        for rule in re.findall(rf"{checker}: ([\w-]+)", line.partition("  # ")[2])
    ]


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_what_the_comments_say_is_right_and_nothing_else_is(checker: str) -> None:
    reports = expected(checker)
    assert wrong_uses(checker, reports) == []
    missed = wrong_uses(checker, reports[1:])
    assert missed == [f"wrong_uses.py:{reports[0].line}: {checker} does not report {reports[0].rule}"]
    more = wrong_uses(checker, [*reports, Report(str(WRONG), 1, "name", "")])
    assert more == [f"wrong_uses.py:1: {checker} reports name"]
    assert len(wrong_uses(checker, [])) == len(reports)


def test_each_wrong_use_is_one_for_both() -> None:
    assert {report.line for report in expected("mypy")} == {report.line for report in expected("pyright")}


def test_any_report_on_the_program_is_told() -> None:
    assert clean("mypy", []) == []
    assert clean("mypy", [Report("bank.py", 3, "misc", "no")]) == ["bank.py:3: mypy: no [misc]"]
