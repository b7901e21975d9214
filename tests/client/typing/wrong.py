"""Uses that mypy reports, each with the code that stands beside it."""

# ruff: noqa: F841

from __future__ import annotations

from typing import Protocol

from kubeactor import Binding, Env
from kubeactor.client import connect, connect_sync, idempotency_key

URL = "http://bank-api.default:8081"


class Account(Protocol):
    async def debit(self, amount: int, *, note: str = "") -> int: ...


class Bank(Env):
    ACCOUNT: Binding[Account]


class NoEnv:
    ACCOUNT: Binding[Account]


async def wrong() -> None:
    async with connect(Bank, URL) as bank:
        account = bank.ACCOUNT.id_from_name("alice")
        text: str = await account.debit(30)  # assignment
        await account.debit("30")  # arg-type
        await account.debitt(30)  # attr-defined
        await bank.ACOUNT.id_from_name("alice").debit(30)  # attr-defined
        account.debit(30)  # unused-coroutine
        bank.ACCOUNT.id_from_name(7)  # arg-type
    with connect(Bank, URL) as bank:  # attr-defined, attr-defined
        pass
    connect(NoEnv, URL)  # type-var
    connect(Bank, URL, timeout_s="60")  # arg-type


def wrong_sync() -> None:
    with connect_sync(Bank, URL) as bank:
        account = bank.env.ACCOUNT.id_from_name("alice")
        text: str = bank.call(account.debit, 30)  # assignment
        bank.call(account.debit, "30")  # arg-type
        bank.call(account.debit)  # call-arg
        bank.call(account.debit, 30, text="rent")  # call-arg
        bank.call(account.debit, 30, note=1)  # arg-type
        bank.call(account.debitt, 30)  # attr-defined
        bank.call(account.debit(30))  # arg-type
        bank.ACCOUNT.id_from_name("alice")  # attr-defined
    with idempotency_key(17):  # arg-type
        pass
