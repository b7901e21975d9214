# test_bank.py
from datetime import timedelta

import pytest
from bank import Bank, InsufficientFunds
from kubeactor.testing import Actors

async def test_interest_and_transfer_survive_a_crash(actors: Actors[Bank]) -> None:
    alice, bob = map(actors.env.ACCOUNT.id_from_name, ["alice", "bob"])
    await alice.deposit(100)
    await alice.interest(0.1, timedelta(minutes=5))
    await actors.advance(minutes=5)
    assert await alice.transfer("bob", 30) == 80
    await actors.settle()                              # outboxes empty
    await actors.crash()
    assert [await alice.balance(), await bob.balance()] == [80, 30]
    with pytest.raises(InsufficientFunds, match="more than 80"):
        await alice.debit(1000)
    assert (await actors.http.post("/alice", json={"amount": 0})).status_code == 400
