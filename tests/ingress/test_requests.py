"""Paths and headers, read without a socket."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeactor.errors import ActorArgumentError, ActorError, ActorUnknownBindingError, ActorUnknownMethodError
from kubeactor.ingress.requests import Conditions, Target, conditions_of, is_call_path, target_of

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(name=NAMES, safe=st.sampled_from(["", "!$&'()*+,;=:@"]))
def test_any_name_is_found_again_in_its_path(name: str, safe: str) -> None:
    target = target_of(f"/v1/actors/ACCOUNT/{quote(name, safe=safe)}/debit".encode())
    assert target == Target("ACCOUNT", name.encode(), "debit")
    assert target.instance == f"ACCOUNT/{name}"


@given(path=st.binary(max_size=60), prefix=st.sampled_from([b"", b"/v1/actors/", b"/v1/actors/A/", b"/v1/ids/A/"]))
def test_any_path_has_a_target_or_a_documented_error(path: bytes, prefix: bytes) -> None:
    outcome = outcome_of(prefix + path)
    if isinstance(outcome, ActorError):
        assert outcome.http_status() in (400, 404)
    else:
        assert is_call_path(prefix + path)
        assert 1 <= len(outcome.identity) <= 1024


def outcome_of(path: bytes) -> Target | ActorError:
    try:
        return target_of(path)
    except ActorError as error:
        return error


def test_all_segments_are_decoded() -> None:
    assert target_of(b"/v1/actors/%41CCOUNT/a+b/d%65bit") == Target("ACCOUNT", b"a+b", "debit")
    unique = target_of(b"/v1/ids/ACCOUNT/" + b"0" * 32 + b"/debit")
    assert unique.instance == "ACCOUNT!" + "0" * 32


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"/v1/actors/ACCOUNT/a", ActorUnknownMethodError),
        (b"/v1/actors/ACCOUNT/a/b/c", ActorUnknownMethodError),
        (b"/v2/actors/ACCOUNT/a/b", ActorUnknownMethodError),
        (b"/v1/actors/lower/a/b", ActorUnknownBindingError),
        (b"/v1/actors/ACCOUNT/%fe/b", ActorArgumentError),
        (b"/v1/actors/ACCOUNT/%4/b", ActorArgumentError),
        (b"/v1/ids/ACCOUNT/a/b", ActorArgumentError),
    ],
)
def test_a_path_that_is_no_call_says_why(path: bytes, error: type[ActorError]) -> None:
    with pytest.raises(error):
        target_of(path)


def test_conditions_have_defaults() -> None:
    assert conditions_of([(b"host", b"x")]) == Conditions(None, 60.0, None)


@pytest.mark.parametrize("name", [b"idempotency-key", b"kubeactor-timeout", b"content-length"])
def test_a_condition_given_twice_is_refused(name: bytes) -> None:
    with pytest.raises(ActorArgumentError, match="twice"):
        conditions_of([(name, b"1"), (name, b"1")])


@pytest.mark.parametrize("length", [b"", b"+1", b"-1", b"1_0", b"1" * 19])
def test_a_length_that_is_no_number_is_refused(length: bytes) -> None:
    with pytest.raises(ActorArgumentError, match="content-length"):
        conditions_of([(b"content-length", length)])


def test_a_binding_in_lower_case_is_answered_with_how_to_write_one() -> None:
    with pytest.raises(ActorUnknownBindingError, match=r"'account': write a binding as in ACCOUNT$"):
        target_of(b"/v1/actors/account/alice/debit")
