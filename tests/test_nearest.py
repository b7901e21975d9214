"""What a misspelt name was meant to be."""

from __future__ import annotations

import pytest

from kubeactor.nearest import did_you_mean


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("debitt", "; did you mean 'debit'?"),
        ("DEBIT", "; did you mean 'debit'?"),
        ("Acount", "; did you mean 'Account'?"),
        ("ACOUNT", "; did you mean 'ACCOUNT'?"),
        ("other", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_found_in_any_case(name: str, says: str) -> None:
    assert did_you_mean(name, ["ACCOUNT", "Account", "debit"]) == says
