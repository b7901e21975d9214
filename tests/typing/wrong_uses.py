"""Wrong uses. Both type checkers report each line that has a comment, by the rules that it names, and no other.

`make lint` compares (check.py). The comment is `mypy: rule` and `pyright: rule`.
"""

from collections.abc import Awaitable
from datetime import datetime, timedelta

from bank import BALANCE, EVERY, Account, Bank

from kubeactor import Actor, AlarmInfo, Binding, Env, Key, Message, method
from kubeactor.client import connect, connect_sync


async def results(env: Bank) -> None:
    stub = env.ACCOUNT.id_from_name("alice")
    x: str = await stub.debit(30)  # mypy: assignment  pyright: reportAssignmentType
    y: int = stub.debit(30)  # mypy: assignment  pyright: reportAssignmentType
    await stub.debit("30")  # mypy: arg-type  pyright: reportArgumentType
    await stub.debit()  # mypy: call-arg  pyright: reportCallIssue
    await stub.debit(amont=30)  # mypy: call-arg  pyright: reportCallIssue
    await stub.debitt(30)  # mypy: attr-defined  pyright: reportAttributeAccessIssue
    stub.debit(30)  # mypy: unused-coroutine  pyright: reportUnusedCoroutine
    print(x, y)


async def bindings(env: Bank) -> None:
    env.ACOUNT  # mypy: attr-defined  pyright: reportAttributeAccessIssue
    env.ACCOUNT.id_from_name(5)  # mypy: arg-type  pyright: reportArgumentType
    env.ACCOUNT.balance()  # mypy: attr-defined  pyright: reportAttributeAccessIssue


class Careless(Actor):
    env: Bank

    async def alarm(self) -> None:  # mypy: override  pyright: reportIncompatibleMethodOverride
        pass

    async def undelivered(self, message: Message) -> None:  # mypy: override  pyright: reportIncompatibleMethodOverride
        pass

    async def activate(self, name: str) -> None:  # mypy: override  pyright: reportIncompatibleMethodOverride
        pass

    async def calls(self) -> None:
        stub = self.env.ACCOUNT.id_from_name("alice")
        self.ctx.send(stub.deposit, "30")  # mypy: arg-type  pyright: reportArgumentType
        self.ctx.send(stub.deposit)  # mypy: call-arg  pyright: reportCallIssue
        self.ctx.send(stub.deposit(30))  # mypy: arg-type  pyright: reportArgumentType  pyright: reportCallIssue

    async def storage(self) -> None:
        storage = self.ctx.storage
        storage.put(BALANCE, "30")  # mypy: misc  pyright: reportArgumentType  pyright: reportCallIssue
        storage.put({1: 2})  # mypy: dict-item  pyright: reportArgumentType
        text: str = await storage.get(BALANCE)  # mypy: arg-type  pyright: reportAssignmentType
        every: timedelta = await storage.get(EVERY)  # mypy: arg-type  pyright: reportAssignmentType
        storage.set_alarm(60)  # mypy: arg-type  pyright: reportArgumentType
        storage.set_alarm("2030-01-01")  # mypy: arg-type  pyright: reportArgumentType
        print(text, every, storage.get("x"))

    @method(timeout="5")  # mypy: call-arg  pyright: reportCallIssue
    async def slow(self) -> None:
        pass

    @method(internal=True)  # mypy: arg-type  pyright: reportArgumentType
    def plain(self) -> int:
        return 1


COUNT: Key[str] = Key("count", int)  # mypy: arg-type  mypy: assignment  pyright: reportAssignmentType


class Shop(Env):
    ACCOUNT: Binding[Account]


async def clients() -> None:
    async with connect(Account, "http://bank") as wrong:  # mypy: type-var  pyright: reportArgumentType
        print(wrong)
    with connect_sync(Shop, "http://bank") as shop:
        stub = shop.env.ACCOUNT.id_from_name("alice")
        shop.call(stub.debit, "30")  # mypy: arg-type  pyright: reportArgumentType
        shop.call(stub.debit)  # mypy: call-arg  pyright: reportCallIssue
        text: str = shop.call(stub.debit, 30)  # mypy: assignment  pyright: reportAssignmentType
        print(text)


def right(env: Shop, when: datetime, info: AlarmInfo) -> Awaitable[int]:
    """The other way round: what is right is not reported."""
    print(when, info.scheduled_time + timedelta(minutes=1))
    return env.ACCOUNT.id_from_name("alice").debit(30)
