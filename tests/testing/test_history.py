"""What a history keeps, and whether it finds out an order that can't be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from tests.testing import ward
from tests.testing.ward import Empty, Ward

from kubeactor import ActorError, ActorMethodError, testing
from kubeactor.testing import history
from kubeactor.testing.history import Entry


class Model:
    """What a purse does, one call after another."""

    def __init__(self) -> None:
        self.held = 0

    def coins(self) -> int:
        return self.held

    def put(self, amount: int) -> int:
        self.held += amount
        return self.held

    def take(self, amount: int) -> int:
        if self.held < amount:
            raise Empty("not that many")
        self.held -= amount
        return self.held

    def fail(self) -> None:
        raise ValueError("it fails")


class Forgetful(Model):
    """A model of something else."""

    def put(self, amount: int) -> int:
        return amount


@pytest.mark.asyncio
async def test_calls_and_replies_of_all_callers_are_kept_in_order() -> None:
    async with testing.run(Ward) as actors:
        alice, bob = map(actors.env.PURSE.id_from_name, ["alice", "bob"])
        await alice.put(10)
        await alice.give("bob", 3)
        await actors.settle()
        with pytest.raises(Empty):
            await bob.take(amount=9)
        await actors.http.post("/v1/actors/PURSE/bob/put", json={"amount": 1})
        assert list(map(repr, actors.history)) == [
            "PURSE/alice.put(10) -> 10",
            "PURSE/alice.give('bob', 3) -> 7",
            "PURSE/bob.put(3) -> 3",
            "PURSE/bob.take(amount=9) -> Empty: not that many",
            "PURSE/bob.put(amount=1) -> 4",
        ]
        message = actors.history[2]
        assert str(message.caller) == "PURSE/alice"
        assert [message.args, message.kwargs, message.result, message.error] == [(3,), {}, 3, None]
        assert message.caller is not None
        assert actors.history[0].caller is None
        assert len(actors.history.of(bob)) == 3
        assert len(actors.history[:2]) == 2
        assert "take" in repr(actors.history)


@pytest.mark.asyncio
async def test_concurrent_calls_over_crashes_are_linearizable() -> None:
    async with testing.run(Ward) as actors:
        alice = actors.env.PURSE.id_from_name("alice")

        async def client() -> None:
            for amount in range(1, 5):
                await alice.put(amount)
                try:
                    await alice.take(amount + 1)
                except Empty:
                    pass

        async with asyncio.TaskGroup() as clients:
            for _ in range(4):
                clients.create_task(client())
            for _ in range(3):
                await asyncio.sleep(0.001)
                await actors.crash()
        with pytest.raises(ActorMethodError):
            await alice.fail()
        assert actors.crashes == 3
        assert len(actors.history.of(alice)) == 33
        actors.history.check(alice, Model)
        with pytest.raises(AssertionError, match=r"no order of these calls of PURSE/alice"):
            actors.history.check(alice, Forgetful)


@pytest.mark.asyncio
async def test_what_a_turn_got_unsynced_before_both_were_lost_is_no_outcome() -> None:
    ward.ran.clear()
    async with testing.run(Ward) as actors:
        bob = actors.env.PURSE.id_from_name("bob")
        whim = asyncio.get_running_loop().create_task(_awaited(actors.env.PURSE.id_from_name("alice").whim("bob")))
        await asyncio.sleep(0)
        (put,) = actors.history.of(bob)
        assert (put.done, put.result) == (True, 1)
        await actors.crash()
        await whim
        assert await bob.coins() == 0
        assert (put.done, repr(put)) == (False, "PURSE/bob.put(1) -> ?")
        actors.history.check(bob, Model)


@pytest.mark.asyncio
async def test_what_came_back_before_a_restart_stays_known_over_a_crash() -> None:
    async with testing.run(Ward) as actors:
        alice = actors.env.PURSE.id_from_name("alice")
        for total in range(1, 6):
            assert await alice.put(1) == total
        await actors.restart()
        await actors.crash()
        assert await alice.coins() == 5
        assert [entry.result for entry in actors.history.of(alice)] == [1, 2, 3, 4, 5, 5]
        with pytest.raises(AssertionError, match="no order of these calls"):
            actors.history.check(alice, Forgetful)


async def _awaited(call: Awaitable[None]) -> None:
    await call


@pytest.mark.asyncio
async def test_a_history_that_was_cut_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "ENTRIES_MAX", 1)
    async with testing.run(Ward) as actors:
        alice = actors.env.PURSE.id_from_name("alice")
        await alice.put(1)
        await alice.put(1)
        with pytest.raises(ValueError, match="keeps 1 calls"):
            actors.history.check(alice, Model)


class Told(Entry):
    """An entry as a test wants it."""

    def __init__(self, method: str, argument: int | None, outcome: Any, began: int, ended: int | None) -> None:
        self.method = method
        self.began = began
        self.ended = ended
        self.error = outcome if isinstance(outcome, ActorError) else None
        self._given = () if argument is None else (argument,)
        self._told = outcome

    @property
    def args(self) -> tuple[Any, ...]:
        return self._given

    @property
    def kwargs(self) -> dict[str, Any]:
        return {}

    @property
    def result(self) -> Any:
        return self._told


def explained(*calls: Told) -> bool:
    return history._explained(list(calls), Model())


def test_a_read_must_see_what_was_acknowledged_before_it_began() -> None:
    put = Told("put", 1, 1, began=1, ended=2)
    assert explained(put, Told("coins", None, 1, began=3, ended=4))
    assert not explained(put, Told("coins", None, 0, began=3, ended=4))
    assert explained(Told("put", 1, 1, began=1, ended=3), Told("coins", None, 0, began=2, ended=4))


def test_a_call_without_an_outcome_may_have_run_or_not_but_not_before_it_began() -> None:
    lost = Told("put", 1, None, began=3, ended=None)
    assert explained(lost, Told("coins", None, 0, began=4, ended=5))
    assert explained(lost, Told("coins", None, 1, began=4, ended=5))
    assert not explained(Told("coins", None, 1, began=1, ended=2), lost)


def test_two_reads_must_not_go_back() -> None:
    put = Told("put", 1, 1, began=1, ended=10)
    reads = [Told("coins", None, 1, began=2, ended=3), Told("coins", None, 0, began=4, ended=5)]
    assert not explained(put, *reads)
    assert explained(put, reads[1], Told("coins", None, 1, began=6, ended=7))


def test_a_refusal_changes_nothing_and_must_be_the_same() -> None:
    refused = Told("take", 5, Empty("no"), began=1, ended=2)
    refused.error.started = "yes"  # type: ignore[union-attr]
    assert explained(refused, Told("coins", None, 0, began=3, ended=4))
    assert not explained(Told("put", 9, 9, began=-2, ended=-1), refused)


def test_a_search_that_is_too_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "STEPS_MAX", 50)
    many = [Told("put", n, -1, began=n, ended=100) for n in range(8)]
    lost = [Told("put", 2**n, None, began=n, ended=None) for n in range(8)]
    with pytest.raises(ValueError, match="too many of them were under way"):
        explained(*lost, *many)
