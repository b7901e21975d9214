"""Types and reasons are what the docs and the CRD say they are."""

from __future__ import annotations

import re

import pytest
from tests.operator.user_errors import ALWAYS, CONDITIONS, MENDS, UPDATES

from kubeactor_operator import conditions
from kubeactor_operator.conditions import REASONS, TYPES, Reason


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS)
def test_a_reason_is_one_word_of_a_known_type_and_is_explained(reason: Reason) -> None:
    assert re.fullmatch("[A-Z][A-Za-z]{1,63}", reason.name)
    assert reason.type in TYPES
    assert reason.status in ("True", "False", "Unknown")
    assert reason.meaning.endswith(".")


@pytest.mark.parametrize("reason", [one for one in REASONS.values() if (one.type, one.status) == ("Degraded", "True")])
def test_whatever_is_wrong_comes_with_what_to_do(reason: Reason) -> None:
    assert reason.mend.endswith(".")


def test_every_type_has_a_reason_for_being_true_and_for_not_being_so() -> None:
    mirrors = {conditions.RECONCILING, conditions.STALLED}  # they carry the reasons of Progressing and Degraded
    for kind in TYPES.keys() - mirrors:
        assert {reason.status for reason in REASONS.values() if reason.type == kind} >= {"True", "False"}


def test_each_reason_is_a_constant_of_its_name() -> None:
    words = {name: value for name, value in vars(conditions).items() if name.isupper() and isinstance(value, str)}
    for reason in REASONS:
        constant = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", reason).upper()
        assert words[constant] == reason


def test_what_users_get_wrong_is_mended_in_the_docs_and_told_by_a_reason_that_exists() -> None:
    assert MENDS.keys() == {mistake.title for mistake in [*ALWAYS, *UPDATES]}
    assert set(CONDITIONS.values()) <= REASONS.keys()
    assert all(REASONS[reason].mend for reason in CONDITIONS.values())
