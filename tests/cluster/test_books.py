"""The books of the load find what they are there for: a call that was lost, doubled, failed, or answered twice."""

from __future__ import annotations

import random

import pytest
from tests.cluster.books import FUNDS, Books, Order


def paid() -> Books:
    """Two accounts with money, of which one has paid the other 5."""
    books = Books(["alice", "bob"])
    for account in books.accounts:
        books.answered(books.order(account, random.Random(0)), 200, {"balance": FUNDS}, 1.0, 1.1)
    order = Order("alice", "transfer", 5, "key", "bob")
    books.answered(order, 200, {"ok": True, "balance": FUNDS - 5}, 2.0, 2.5)
    return books


def test_balances_that_were_acknowledged_are_right() -> None:
    assert paid().differences({"alice": FUNDS - 5, "bob": FUNDS + 5}) == []
    assert not paid().failed


def test_the_first_order_brings_money_and_each_has_a_key_of_its_own() -> None:
    books, rng = paid(), random.Random(1)
    orders = [books.order("alice", rng) for _ in range(50)]
    assert {order.kind for order in orders} == {"deposit", "debit", "transfer"}
    assert {order.to for order in orders} == {"", "bob"}
    assert len({order.key for order in orders}) == len(orders)
    assert Books(["carol"]).order("carol", rng).amount == FUNDS


@pytest.mark.parametrize(
    ("balances", "told"),
    [
        ({"alice": FUNDS - 5, "bob": FUNDS}, "bob has 5 less than was acknowledged: something was lost"),
        ({"alice": FUNDS - 10, "bob": FUNDS + 5}, "alice has 5 less than was acknowledged: something was lost"),
        ({"alice": FUNDS - 5, "bob": FUNDS + 10}, "bob has 5 more than was acknowledged: something was applied twice"),
    ],
    ids=["lost message", "doubled debit", "doubled message"],
)
def test_a_lost_and_a_doubled_call_are_found(balances: dict[str, int], told: str) -> None:
    assert paid().differences(balances) == [told]


def test_a_debit_that_was_refused_for_want_of_money_changes_nothing() -> None:
    books = paid()
    books.answered(Order("alice", "debit", 9, "k"), 200, {"ok": False, "balance": FUNDS - 5}, 3.0, 3.1)
    assert books.differences({"alice": FUNDS - 5, "bob": FUNDS + 5}) == []


def test_a_failed_call_and_one_without_an_answer_are_found() -> None:
    books, order = paid(), Order("alice", "debit", 1, "k")
    books.answered(order, 503, {"name": "ActorShardUnavailableError"}, 3.0, 3.1)
    books.gave_up(order, "no answer within 60 s")
    assert ["503" in books.failed[0], "no answer" in books.failed[1]] == [True, True]
    assert books.acknowledged["alice"] == 2


def test_a_key_that_was_answered_otherwise_the_second_time_is_found() -> None:
    books, order = paid(), Order("alice", "debit", 1, "k")
    books.repeated(order, (200, b"7"), (200, b"7"))
    assert not books.failed
    books.repeated(order, (200, b"7"), (200, b"6"))
    assert "b'6'" in books.failed[0]


def test_silence_is_the_longest_time_without_an_answer() -> None:
    books = paid()
    assert books.silence_s({"alice"}, 0.0) == pytest.approx(1.4)
    assert books.silence_s({"bob"}, 1.0) == pytest.approx(0.1)
    assert books.longest_s() == 0.5
