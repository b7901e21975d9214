"""pytest"""

from __future__ import annotations

import pytest
from ledger import Account, Books, InsufficientFunds

from kubeactor import ActorError, ActorPrivateMethodError
from kubeactor.testing import Actors


def accounts(actors: Actors[Books]) -> tuple[Account, Account]:
    alice, bob = map(actors.env.ACCOUNT.id_from_name, ["alice", "bob"])
    return alice, bob


async def lines(account: Account) -> list[tuple[int, str]]:
    return [(entry.cents, entry.text) for entry in await account.statement()]


async def test_a_transfer_is_booked_on_both_sides(actors: Actors[Books]) -> None:
    alice, bob = accounts(actors)
    await alice.pay_in(1000)
    assert await alice.transfer("bob", 300, "rent") == 700
    await actors.settle()
    assert await lines(alice) == [(-300, "rent to bob"), (1000, "paid in")]
    assert await lines(bob) == [(300, "rent from alice")]


async def test_a_closed_account_refuses_and_the_money_comes_back(actors: Actors[Books]) -> None:
    alice, bob = accounts(actors)
    await alice.pay_in(1000)
    await bob.close()
    await alice.transfer("bob", 300)
    await actors.settle()
    assert [await alice.balance(), await bob.balance()] == [1000, 0]
    assert (await lines(alice))[0] == (300, "returned: bob is closed")


@pytest.mark.parametrize("writes", range(1, 8))
async def test_money_and_entries_add_up_at_whichever_write_the_power_goes(actors: Actors[Books], writes: int) -> None:
    alice, bob = accounts(actors)
    await alice.pay_in(1000)
    actors.crash_after(writes=writes)
    await alice.transfer("bob", 300)
    await bob.close()
    await alice.transfer("bob", 200)
    await actors.settle()
    assert [await alice.balance(), await bob.balance()] == [700, 300]
    for account in (alice, bob):
        assert await account.balance() == sum(cents for cents, _ in await lines(account))


async def test_more_than_there_is_can_not_be_sent(actors: Actors[Books]) -> None:
    alice, _ = accounts(actors)
    with pytest.raises(InsufficientFunds, match="1 is more than 0") as caught:
        await alice.transfer("bob", 1)
    assert caught.value.balance == 0
    assert await lines(alice) == []


async def test_nobody_outside_books_by_hand(actors: Actors[Books]) -> None:
    response = await actors.http.post("/v1/actors/ACCOUNT/bob/receive", json=[5, "a gift"])
    assert (response.status_code, response.json()["name"]) == (403, ActorPrivateMethodError.__name__)
    assert issubclass(ActorPrivateMethodError, ActorError)
