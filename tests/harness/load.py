"""The traffic of the crash tests: tellers, debits of one shared account and payments, all at once, until told to stop.

Beside them alarms credit savers, which send messages; `Savings` looks at the end what has become of them.

Half of the callers use an Idempotency-Key and repeat; the others take an unknown outcome as it is and then look.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from tests.harness.client import Answer, Client, UnknownOutcomeError
from tests.harness.dev import until
from tests.harness.ledger import Counter, Payments, Savings, Teller

__all__ = ["Load"]

ACCOUNTS: Final = 4
SAVERS: Final = 4


class Load:
    """All clients of one bank, and what they know.

    Args:
        port: where the bank answers.
        tellers: how many accounts of their own, the odd ones with keys.
        debtors: how many clients share one account; payers: how many pay between accounts.

    Attributes:
        credits: how many credits of savers were looked at.
    """

    def __init__(self, port: int, rng: random.Random, *, tellers: int = 8, debtors: int = 4, payers: int = 4) -> None:
        self.port = port
        self.rng = rng
        self.tellers = [
            Teller(Client(port), f"teller-{i}", random.Random(rng.random()), keyed=i % 2 == 1) for i in range(tellers)
        ]
        self.counter = Counter("counter", 10**9)
        self.payments = [Payments([f"payer-{keyed}-{i}" for i in range(ACCOUNTS)], keyed) for keyed in (True, False)]
        self.savings = Savings(Client(port, "SAVER"), [f"saver-{i}" for i in range(SAVERS)])
        self.credits = 0
        self.debtors = [Client(port) for _ in range(debtors)]
        self.payers = [(Client(port), self.payments[i % 2]) for i in range(payers)]
        self._stop = asyncio.Event()

    @property
    def acknowledged(self) -> int:
        """How many writes were acknowledged so far."""
        tellers = sum(teller.acknowledged for teller in self.tellers)
        return tellers + sum(self.counter.seen.values()) + sum(payments.done for payments in self.payments)

    @property
    def unknown(self) -> int:
        """How many calls without a key ended with an unknown outcome."""
        return sum(teller.unknown for teller in self.tellers) + self.counter.unknown

    async def traffic(self, writes: int) -> None:
        """Wait until that many more writes were acknowledged. Raises TimeoutError after 60 s."""
        goal = self.acknowledged + writes
        await until(lambda: self.acknowledged >= goal, what=f"{writes} acknowledged writes")

    async def open(self) -> None:
        """Put the first money into the shared accounts."""
        client = Client(self.port)
        for payments in self.payments:
            await payments.open(client)
        answer = await client.keyed(self.counter.account, "deposit", "open", amount=self.counter.start)
        assert answer.status == 200, answer
        await self.savings.open()
        client.close()

    async def run(self, chaos: Awaitable[None]) -> None:
        """Keep all clients busy while `chaos` runs, then check everything.

        The first client that fails ends the run: `chaos` and the other clients are cancelled, and a step that outlives
        its cancellation is its client's last.

        Raises:
            ExceptionGroup: of the AssertionErrors of clients that saw what must not be.
        """
        async with asyncio.TaskGroup() as tasks:
            for teller in self.tellers:
                tasks.create_task(self._serve(teller.step, teller.check))
            for number, client in enumerate(self.debtors):
                tasks.create_task(self._serve(lambda c=client, n=number: self._debit(c, n)))  # type: ignore[misc]
            for client, payments in self.payers:
                tasks.create_task(self._serve(lambda c=client, p=payments: p.transfer(c, self.rng)))  # type: ignore[misc]
            try:
                await chaos
            finally:
                self._stop.set()
        await self.check()

    async def check(self) -> None:
        """Compare all that is there with all that was told. Raises AssertionError."""
        client = Client(self.port)
        for teller in self.tellers:
            await teller.check()
        balance = await client.until_known(lambda: client.call(self.counter.account, "balance"))
        self.counter.check(balance.value)
        for payments in self.payments:
            await payments.settle(client)
        self.credits = await self.savings.check()
        client.close()

    def close(self) -> None:
        """Close every connection."""
        payers = (client for client, _ in self.payers)
        for client in [self.savings.client, *self.debtors, *payers, *(teller.client for teller in self.tellers)]:
            client.close()

    async def _debit(self, client: Client, number: int) -> Answer:
        return await self.counter.debit(client, secrets.token_hex(8) if number % 2 else None)

    async def _serve(
        self, step: Callable[[], Awaitable[object]], look: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        lost_touch = False
        try:
            while not self._stop.is_set():
                try:
                    if lost_touch and look is not None:
                        await look()
                    lost_touch = False
                    await step()
                except (ConnectionRefusedError, UnknownOutcomeError):
                    lost_touch = True
                    await asyncio.sleep(0.005)  # nothing waits for it: a client that can't connect tries again
        finally:
            self._stop.set()  # before the others are cancelled
