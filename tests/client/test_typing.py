"""What mypy --strict accepts and what it reports of the client."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent / "typing"
MYPY = (sys.executable, "-m", "mypy", "--strict", "--show-error-codes", "--no-error-summary")
REPORT = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: .*\[(?P<code>[\w-]+)\]$", re.MULTILINE)

Reports = dict[str, list[tuple[int, str]]]


@pytest.fixture(scope="module")
def reports() -> Reports:
    """Per file, line and code of each error."""
    command = [*MYPY, str(FOLDER / "right.py"), str(FOLDER / "wrong.py")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not result.stderr
    found: Reports = {}
    for match in REPORT.finditer(result.stdout):
        found.setdefault(Path(match["file"]).name, []).append((int(match["line"]), match["code"]))
    return found


def test_right_uses_are_accepted(reports: Reports) -> None:
    assert "right.py" not in reports


def test_each_wrong_use_is_reported_and_nothing_else_is(reports: Reports) -> None:
    expected = []
    for number, line in enumerate((FOLDER / "wrong.py").read_text().splitlines(), 1):
        if codes := re.search(r"  # ([a-z, -]+)$", line):
            expected += [(number, code) for code in codes[1].split(", ")]
    assert len(expected) >= 15
    assert sorted(reports["wrong.py"]) == sorted(expected)
