"""What clients of the bank were told, and what must therefore be in it: every sum, every key, every call. No I/O."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

__all__ = ["Books", "Call", "Order"]

FUNDS: Final = 10_000
LARGEST: Final = 9
KINDS: Final = ("deposit", "debit", "transfer")


@dataclass(frozen=True)
class Order:
    """One call that an account's owner makes, under a key of its own."""

    account: str
    kind: str
    amount: int
    key: str
    to: str = ""

    @property
    def path(self) -> str:
        return f"/accounts/{self.account}/{self.kind}"

    @property
    def body(self) -> dict[str, Any]:
        return {"amount": self.amount} | ({"to": self.to} if self.to else {})


@dataclass(frozen=True)
class Call:
    """A call that was acknowledged; times are seconds of the wall clock, which nodes have too."""

    account: str
    began: float
    ended: float


@dataclass
class Books:
    """All that the owners of the accounts know.

    Attributes:
        due: what each account holds once all that was sent has arrived.
        acknowledged: how many calls of each account's owner were acknowledged.
        calls: these calls, in the order of their answers.
        broken: each connection error, which is no failure as long as the call succeeds on another connection.
        failed: each call without a 2xx, and each repeat that was answered otherwise.
    """

    accounts: Sequence[str]
    due: dict[str, int] = field(init=False)
    acknowledged: dict[str, int] = field(init=False)
    calls: list[Call] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _orders: int = 0

    def __post_init__(self) -> None:
        self.due = dict.fromkeys(self.accounts, 0)
        self.acknowledged = dict.fromkeys(self.accounts, 0)

    def order(self, account: str, rng: random.Random) -> Order:
        """What the account's owner does next; first of all money comes in."""
        self._orders += 1
        key = f"{account}-{self._orders}"
        if not self.acknowledged[account]:
            return Order(account, "deposit", FUNDS, key)
        kind, amount = rng.choice(KINDS), rng.randint(1, LARGEST)
        others = [one for one in self.accounts if one != account]
        return Order(account, kind, amount, key, rng.choice(others) if kind == "transfer" else "")

    def answered(self, order: Order, status: int, answer: Mapping[str, Any], began: float, ended: float) -> None:
        """Note what an order was answered with."""
        if not 200 <= status < 300:
            self.failed.append(f"{order}: {status} {dict(answer)}")
            return
        self.calls.append(Call(order.account, began, ended))
        self.acknowledged[order.account] += 1
        if order.kind == "deposit":
            self.due[order.account] += order.amount
        elif answer["ok"]:
            self.due[order.account] -= order.amount
            if order.to:
                self.due[order.to] += order.amount

    def repeated(self, order: Order, first: object, again: object) -> None:
        """Note that the same key was used again: the answer must be the same."""
        if again != first:
            self.failed.append(f"{order}: answered {first}, and then {again}")

    def gave_up(self, order: Order, why: str) -> None:
        """Note that no answer came in time."""
        self.failed.append(f"{order}: {why}")

    def differences(self, balances: Mapping[str, int]) -> list[str]:
        """What is wrong with these balances, a sentence each: none once all that was sent has arrived."""
        found = []
        for account, due in self.due.items():
            if (more := balances[account] - due) > 0:
                found.append(f"{account} has {more} more than was acknowledged: something was applied twice")
            elif more < 0:
                found.append(f"{account} has {-more} less than was acknowledged: something was lost")
        return found

    def silence_s(self, accounts: Collection[str], since: float) -> float:
        """The longest time since then in which none of these accounts was answered."""
        ends = [since, *(call.ended for call in self.calls if call.ended >= since and call.account in accounts)]
        return max(after - before for before, after in pairwise(ends))

    def longest_s(self, since: float = 0.0) -> float:
        """The longest of the calls that were answered since then."""
        return max((call.ended - call.began for call in self.calls if call.ended >= since), default=0.0)
