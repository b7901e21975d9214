"""Uses that type checkers accept, with the types that they give."""

from __future__ import annotations

from typing import Any, Protocol, assert_type

from kubeactor import Actor, Binding, Env
from kubeactor.client import SyncClient, connect, connect_sync, idempotency_key

URL = "http://bank-api.default:8081"


class Account(Actor):
    env: Bank

    async def debit(self, amount: int, *, note: str = "") -> int:
        return amount

    async def history(self) -> list[str]:
        return []


class AuditApi(Protocol):
    async def entries(self, first: int) -> dict[str, Any]: ...


class Bank(Env):
    ACCOUNT: Binding[Account]
    AUDIT: Binding[AuditApi]


async def pay(order: str) -> int:
    async with connect(Bank, URL, token=None, timeout_s=60) as bank:
        assert_type(bank, Bank)
        with idempotency_key(order):
            balance = await bank.ACCOUNT.id_from_name("alice").debit(30)
        assert_type(balance, int)
        assert_type(await bank.ACCOUNT.id_from_name("alice").debit(amount=30, note="rent"), int)
        assert_type(await bank.AUDIT.new_unique_id().entries(1), dict[str, Any])
        return balance


def pay_sync() -> int:
    with connect_sync(Bank, URL) as bank:
        assert_type(bank, SyncClient[Bank])
        account = bank.env.ACCOUNT.id_from_name("alice")
        assert_type(bank.call(account.debit, 30, note="rent"), int)
        assert_type(bank.call(account.history), list[str])
        assert_type(bank.call(bank.env.AUDIT.id_from_name("a").entries, first=1), dict[str, Any])
        return bank.call(account.debit, 30)


shared: SyncClient[Bank] = connect_sync(Bank, URL)
