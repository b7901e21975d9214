"""pytest"""

from __future__ import annotations

import pytest
from bank import MAX, Account, Bank

from kubeactor.testing import Actors


def accounts(actors: Actors[Bank]) -> tuple[Account, Account]:
    alice, bob = map(actors.env.ACCOUNT.id_from_name, ["alice", "bob"])
    return alice, bob


async def test_interest_and_transfers_survive_a_crash(actors: Actors[Bank]) -> None:
    alice, bob = accounts(actors)
    await alice.deposit(100)
    await alice.interest(0.1, 300)
    await actors.advance(minutes=5)
    assert await alice.transfer("bob", 30) == {"ok": True, "balance": 80}
    await actors.settle()
    await actors.crash()
    assert [await alice.balance(), await bob.balance()] == [80, 30]


@pytest.mark.parametrize("writes", range(1, 6))
async def test_a_transfer_is_made_once_at_whichever_write_the_power_goes(actors: Actors[Bank], writes: int) -> None:
    alice, bob = accounts(actors)
    await alice.deposit(100)
    actors.crash_after(writes=writes)
    assert await alice.transfer("bob", 30) == {"ok": True, "balance": 70}
    await actors.settle()
    assert [await alice.balance(), await bob.balance()] == [70, 30]


async def test_a_full_receiver_gives_the_money_back(actors: Actors[Bank]) -> None:
    alice, bob = accounts(actors)
    await alice.deposit(100)
    await bob.deposit(MAX)
    await alice.transfer("bob", 30)
    await actors.settle()
    assert [await alice.balance(), await bob.balance()] == [100, MAX]


async def test_the_front_door_names_the_field_that_is_wrong(actors: Actors[Bank]) -> None:
    response = await actors.http.post("/alice", json={"amount": 0})
    assert response.status_code == 400
    assert "amount" in response.json()["detail"]
