"""A ledger: accounts that book entries, transfers between them, and refusals that are booked back.

kubeactor dev
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from kubeactor import Actor, ActorError, Binding, Env, Key, Message, Problem, method

Cents = Annotated[int, Meta(gt=0, le=10**15)]

BALANCE = Key("balance", int, 0)
COUNT = Key("count", int, 0)
CLOSED = Key("closed", bool, False)


@dataclass
class Entry:
    """One line of an account."""

    at: datetime
    cents: int
    text: str


class InsufficientFunds(Problem):
    """The account holds less than that."""

    status = 409
    balance: int


class AccountClosed(Problem):
    """The account takes nothing any more."""

    status = 409


class Account(Actor):
    """One account: its balance is the sum of its entries, always, as both are written in one turn."""

    env: Books

    async def balance(self) -> int:
        return await self.ctx.storage.get(BALANCE)

    async def pay_in(self, cents: Cents) -> int:
        return await self._book(cents, "paid in")

    async def transfer(self, to: str, cents: Cents, text: str = "transfer") -> int:
        """Book it here, and there by a message that leaves if and only if this turn is on disk."""
        if (balance := await self.balance()) < cents:
            raise InsufficientFunds(f"{cents} is more than {balance}", balance=balance)
        self.ctx.send(self.env.ACCOUNT.id_from_name(to).receive, cents, f"{text} from {self.ctx.name}")
        return await self._book(-cents, f"{text} to {to}")

    @method(internal=True)
    async def receive(self, cents: Cents, text: str) -> None:
        """For other accounts only."""
        if await self.ctx.storage.get(CLOSED):
            raise AccountClosed(f"{self.ctx.name} is closed")
        await self._book(cents, text)

    async def undelivered(self, message: Message, error: ActorError) -> None:
        """The receiver refused: the money comes back, once, whatever crashes meanwhile."""
        await self._book(message.args[0], f"returned: {error.detail}")

    async def close(self) -> None:
        await self.ctx.storage.put(CLOSED, True)

    async def statement(self, last: Annotated[int, Meta(ge=1, le=100)] = 10) -> list[Entry]:
        """The last entries, the newest first."""
        count = await self.ctx.storage.get(COUNT)
        lines = [await self.ctx.storage.get(_line(n)) for n in range(count, max(0, count - last), -1)]
        return [line for line in lines if line is not None]

    async def _book(self, cents: int, text: str) -> int:
        count = await self.ctx.storage.get(COUNT) + 1
        balance = await self.balance() + cents
        await self.ctx.storage.put(_line(count), Entry(self.ctx.now(), cents, text))
        await self.ctx.storage.put(COUNT, count)
        await self.ctx.storage.put(BALANCE, balance)
        return balance


def _line(number: int) -> Key[Entry | None]:
    return Key(f"entry/{number:012}", Entry)


class Books(Env):
    ACCOUNT: Binding[Account]
