"""Idempotency keys, without a network."""

from __future__ import annotations

import asyncio
import contextvars
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeactor import IdempotencyConflictError
from kubeactor.client import idempotency_key
from kubeactor.client.keys import take_key


def test_each_call_has_a_key_of_its_own() -> None:
    keys = {take_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(re.fullmatch(rb"[0-9a-f]{32}", key) for key in keys)


def test_a_given_key_is_for_exactly_one_call() -> None:
    with idempotency_key("order-17"):
        assert take_key() == b"order-17"
        with pytest.raises(IdempotencyConflictError, match=r"idempotency_key\('order-17'\) is for exactly one call"):
            take_key()
    assert take_key() != b"order-17"


def test_an_inner_block_is_for_its_own_call() -> None:
    with idempotency_key("outer"):
        with idempotency_key("inner"):
            assert take_key() == b"inner"
        assert take_key() == b"outer"


def test_tasks_share_the_key_of_the_block_that_started_them() -> None:
    async def take() -> bytes:
        return take_key()

    async def main() -> None:
        with idempotency_key("one"):
            taken = await asyncio.gather(take(), take(), return_exceptions=True)
        assert taken[0] == b"one"
        assert isinstance(taken[1], IdempotencyConflictError)

    asyncio.run(main())


def test_code_left_behind_by_a_block_can_not_take_its_key() -> None:
    with idempotency_key("late"):
        left = contextvars.copy_context()
    with pytest.raises(IdempotencyConflictError, match="late"):
        left.run(take_key)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("", "1 to 256 bytes of UTF-8, this one has 0"),
        ("x" * 257, "this one has 257"),
        ("ü" * 129, "this one has 258"),
        (" a", "no spaces at its ends"),
        ("a ", "no spaces at its ends"),
        ("a\r\nX: y", "no control characters"),
        ("a\0", "no control characters"),
        ("\ud800", "lone surrogates"),
    ],
)
def test_a_key_that_can_not_be_sent_is_refused(key: str, text: str) -> None:
    with pytest.raises(ValueError, match=text), idempotency_key(key):
        pass


def test_a_key_that_is_no_text_is_refused_with_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"is text, not int: write idempotency_key\(str"), idempotency_key(17):  # type: ignore[arg-type]
        pass


@given(st.text(min_size=1, max_size=300))
def test_a_key_that_is_taken_stays_as_it_is_in_a_header(key: str) -> None:
    try:
        with idempotency_key(key):
            taken = take_key()
    except ValueError:
        return
    assert taken == key.encode()
    assert taken.strip(b" \t") == taken
    assert not re.search(rb"[\x00-\x1f\x7f]", taken)
