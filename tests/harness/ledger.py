"""What clients did to the bank, what they were told, and what must therefore be there.

A `Teller` owns an account: it alone writes there, one call at a time, so it knows the exact balance, or the few that
are possible while the outcome of a call is unknown. At a `Counter` many debit one account by 1: each success has a
balance of its own there, so a lost write shows as a balance that was handed out twice.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter as Tally
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from tests.harness.client import Answer, Client, UnknownOutcomeError

__all__ = ["Counter", "Payments", "Savings", "Teller"]

HISTORY: Final = 30
CREDITED_EVERY: Final = timedelta(seconds=0.1)  # as the `Saver` of the fault tests does it


def unknown(answer: Answer) -> bool:
    """Whether a call that got this answer may have been applied nevertheless."""
    return answer.status != 200 and answer.value.get("started") != "no"


@dataclass
class Teller:
    """One account and all that may be in it.

    Attributes:
        keyed: whether each call has an Idempotency-Key and is repeated under it until its outcome is known.
        acknowledged: calls whose 200 came; unknown: calls whose outcome never became known.
    """

    client: Client
    account: str
    rng: random.Random
    keyed: bool = False
    possible: set[int] = field(default_factory=lambda: {0})
    acknowledged: int = 0
    unknown: int = 0
    history: deque[Any] = field(default_factory=lambda: deque(maxlen=HISTORY))

    async def step(self) -> None:
        """Deposit or debit something.

        Raises:
            AssertionError: when the answer can't be, after what was acknowledged before.
            ConnectionRefusedError, UnknownOutcomeError: as they came; what may have happened is noted.
        """
        amount = self.rng.randint(1, 9)
        method = "deposit" if min(self.possible) < 50 or self.rng.random() < 0.5 else "debit"
        change = amount if method == "deposit" else -amount
        before = set(self.possible)
        key = secrets.token_hex(8) if self.keyed else None
        self.possible |= {balance + change for balance in before}
        self.history.append((method, amount, key, sorted(before)))
        try:
            answer = await (
                self.client.keyed(self.account, method, key, amount=amount)
                if key
                else self.client.call(self.account, method, amount=amount)
            )
        except ConnectionRefusedError:
            self.possible = before
            raise
        except UnknownOutcomeError:
            self.unknown += 1
            raise
        self._learn(answer, before, change)
        if key and self.rng.random() < 0.1:
            again = await self.client.keyed(self.account, method, key, amount=amount)
            assert (again.status, again.body) == (answer.status, answer.body), self._story(
                "a retry was answered", again
            )

    def _learn(self, answer: Answer, before: set[int], change: int) -> None:
        self.history.append((answer.status, answer.body))
        if answer.status != 200:
            if unknown(answer):
                self.unknown += 1
            else:
                self.possible = before
            return
        value = answer.value
        balance = value["balance"] if isinstance(value, dict) else value
        assert balance - change in before, self._story("a write was answered", answer)
        self.possible = {balance}
        self.acknowledged += 1

    async def check(self) -> None:
        """Read the balance.

        Raises:
            AssertionError: when an acknowledged write is missing, or one was applied twice.
            UnknownOutcomeError: when no answer came.
        """
        answer = await self.client.until_known(lambda: self.client.call(self.account, "balance"))
        self.history.append((answer.status, answer.body))
        assert answer.status == 200, self._story("a read was answered", answer)
        assert answer.value in self.possible, self._story("a read was answered", answer)
        self.possible = {answer.value}

    def _story(self, what: str, answer: Answer) -> str:
        steps = "\n".join(f"  {step}" for step in self.history)
        return (
            f"{self.account}: {what} {answer.status} {answer.body!r}, possible {sorted(self.possible)}, after\n{steps}"
        )


@dataclass
class Counter:
    """One account that many debit by 1.

    Attributes:
        seen: the balance of each acknowledged debit, and how often.
    """

    account: str
    start: int
    seen: Tally[int] = field(default_factory=Tally)
    refused: int = 0
    unknown: int = 0

    async def debit(self, client: Client, key: str | None = None) -> Answer:
        """Debit 1 and note the outcome. Raises as the client does."""
        try:
            answer = await (
                client.keyed(self.account, "debit", key, amount=1)
                if key
                else client.call(self.account, "debit", amount=1)
            )
        except UnknownOutcomeError:
            self.unknown += 1
            raise
        if answer.status != 200:
            self.unknown += unknown(answer)
        elif answer.value["ok"]:
            self.seen[answer.value["balance"]] += 1
        else:
            self.refused += 1
        return answer

    def check(self, balance: int) -> None:
        """Compare with the balance that is there.

        Raises:
            AssertionError: when an acknowledged debit is missing, or more was applied than could have been.
        """
        twice = [value for value, times in self.seen.items() if times > 1]
        assert not twice, f"balances handed out twice: {sorted(twice)[:10]}"
        applied = self.start - balance
        acknowledged = sum(self.seen.values())
        assert acknowledged <= applied <= acknowledged + self.unknown, (acknowledged, applied, self.unknown)
        assert not self.seen or balance <= min(self.seen), "the balance is above one that was acknowledged"


@dataclass
class Payments:
    """Accounts that pay each other. Under keys each balance is known in the end; without, their sum is.

    Attributes:
        due: what each account will hold when all that was sent has arrived.
    """

    accounts: list[str]
    keyed: bool
    each: int = 10_000
    done: int = 0
    due: Tally[str] = field(default_factory=Tally)

    async def open(self, client: Client) -> None:
        """Put the same sum into every account."""
        for account in self.accounts:
            answer = await client.keyed(account, "deposit", f"open-{account}", amount=self.each)
            assert answer.status == 200, answer
            self.due[account] = self.each

    async def transfer(self, client: Client, rng: random.Random) -> None:
        """Pay something from one to another. Raises as the client does."""
        payer, payee = rng.sample(self.accounts, 2)
        amount = rng.randint(1, 5)
        if self.keyed:
            answer = await client.keyed(payer, "transfer", secrets.token_hex(8), to=payee, amount=amount)
            assert answer.status == 200, answer
        else:
            answer = await client.call(payer, "transfer", to=payee, amount=amount)
        if answer.status == 200 and answer.value["ok"]:
            self.done += 1
            self.due[payer] -= amount
            self.due[payee] += amount

    async def settle(self, client: Client, within_s: float = 60.0) -> None:
        """Wait until what was sent has arrived, once.

        Raises:
            AssertionError: when something came twice, or still has not come at the end.
        """
        end = time.monotonic() + within_s
        while missing := await self._missing(client):
            assert not self.keyed or min(missing.values()) >= 0, f"came twice: {missing}"
            assert sum(missing.values()) >= 0, f"came twice: {missing}"
            assert time.monotonic() < end, f"of {self.done} payments these did not come: {missing}"

    async def _missing(self, client: Client) -> dict[str, int]:
        missing = {}
        for account in self.accounts:
            answer = await client.until_known(lambda name=account: client.call(name, "balance"))  # type: ignore[misc]
            assert answer.status == 200, answer
            if answer.value != self.due[account]:
                missing[account] = self.due[account] - answer.value
        return missing if self.keyed or sum(missing.values()) else {}


@dataclass
class Savings:
    """Savers, each of which hears of the credits of the one before."""

    client: Client
    names: list[str]

    async def open(self) -> None:
        """Set the first alarm of each."""
        for name, listener in self._pairs():
            answer = await self.client.keyed(name, "open", f"open-{name}", listener=listener)
            assert answer.status == 200, answer

    async def check(self, within_s: float = 60.0) -> int:
        """Look at all credits so far, and wait for another one of each and for what is to be heard; how many they are.

        Raises:
            AssertionError: when a credit was made twice, a message came twice or out of order, or something is missing.
        """
        found = 0
        for name, listener in self._pairs():
            so_far = len(await self._get(name, "credits"))
            end = time.monotonic() + within_s
            while len(heard := await self._get(listener, "all_heard")) <= so_far:
                assert time.monotonic() < end, f"{listener} heard of {len(heard)} of {so_far} credits of {name} and one"
                await asyncio.sleep(0.01)
            assert heard == list(range(1, len(heard) + 1)), f"{listener} heard of {name} {heard}"
            due = [datetime.fromisoformat(text) for text in await self._get(name, "credits")]
            twice = [later for earlier, later in pairwise(due) if later - earlier < CREDITED_EVERY]
            assert not twice, f"{name} was credited twice for {twice}"
            found += so_far
        return found

    def _pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.names, [*self.names[1:], self.names[0]], strict=True))

    async def _get(self, name: str, method: str) -> Any:
        answer = await self.client.until_known(lambda: self.client.call(name, method))
        assert answer.status == 200, answer
        return answer.value
