"""Every test that docs/contract.md names as a proof exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "contract.md"
PROOFS = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text())


@pytest.mark.parametrize(("file", "name"), PROOFS, ids=lambda part: part)
def test_a_test_that_the_contract_names_exists(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE)


def test_every_promise_of_the_contract_names_a_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| promise", "| ---"))]
    assert len(promises) > 50
    assert [row for row in promises if not re.search(r"`[\w/]+\.py::\w+`", row)] == []
