"""A bank: every account is an actor with a balance of its own, behind a small HTTP front door.

kubeactor dev
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kubeactor import Actor, ActorError, AlarmInfo, Binding, Env, Key, Message, Problem

MAX = 2**63 - 1
Amount = Annotated[int, Meta(gt=0, le=MAX)]
Rate = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=10 * 365 * 86_400)]
T = TypeVar("T")

BALANCE = Key("balance", int, 0)
RATE = Key("rate", float, 0.0)
EVERY = Key("every", timedelta)


class AccountFull(Problem):
    """An account holds at most 2**63 - 1."""

    status = 409
    balance: int


class BadRequest(Problem):
    """A request whose body is not what the route takes."""

    status = 400


class Account(Actor):
    """One account. A turn's writes are on disk before its caller hears of them, and never applied twice."""

    env: Bank

    async def balance(self) -> int:
        return await self.ctx.storage.get(BALANCE)

    async def deposit(self, amount: Amount) -> int:
        balance = await self.balance()
        if balance + amount > MAX:
            raise AccountFull(f"{amount} more than {balance} is above {MAX}", balance=balance)
        await self.ctx.storage.put(BALANCE, balance + amount)
        return balance + amount

    async def debit(self, amount: Amount) -> dict[str, Any]:
        balance = await self.balance()
        if balance < amount:
            return {"ok": False, "balance": balance}
        await self.ctx.storage.put(BALANCE, balance - amount)
        return {"ok": True, "balance": balance - amount}

    async def transfer(self, to: str, amount: Amount) -> dict[str, Any]:
        try:
            receiver = self.env.ACCOUNT.id_from_name(to)
        except ValueError as error:
            raise BadRequest(f"to: {error}") from error
        answer = await self.debit(amount)
        if answer["ok"]:  # the deposit leaves if and only if this debit is on disk, and arrives once
            self.ctx.send(receiver.deposit, amount)
        return answer

    async def undelivered(self, message: Message, error: ActorError) -> None:
        await self.deposit(message.args[0])  # the receiver refused: take it back

    async def interest(self, rate: Rate, every_s: Seconds) -> None:
        """Credit that share of the balance every so many seconds; 0 seconds end it."""
        await self.ctx.storage.put(RATE, rate)
        await self.ctx.storage.put(EVERY, timedelta(seconds=every_s))
        if every_s:
            await self.ctx.storage.set_alarm(timedelta(seconds=every_s))
        else:
            await self.ctx.storage.delete_alarm()

    async def alarm(self, info: AlarmInfo) -> None:
        credit = round(await self.balance() * await self.ctx.storage.get(RATE))
        if credit:
            await self.deposit(credit)
        every = await self.ctx.storage.get(EVERY)
        assert every, "interest() sets it together with the alarm"
        await self.ctx.storage.set_alarm(info.scheduled_time + every)


class Bank(Env):
    """What accounts and the front door share."""

    ACCOUNT: Binding[Account]


class Payment(msgspec.Struct, forbid_unknown_fields=True):
    """{"amount": 30}"""

    amount: Amount


class Transfer(Payment, forbid_unknown_fields=True):
    """{"to": "bob", "amount": 30}"""

    to: str


class Interest(msgspec.Struct, forbid_unknown_fields=True):
    """{"rate": 0.01, "every_s": 60}"""

    rate: Rate
    every_s: Seconds


async def body(request: Request, shape: type[T]) -> T:
    """The body of a request. Raises BadRequest, which shows the fields and names the wrong one."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=shape)
    except msgspec.DecodeError as error:
        raise BadRequest(f"send {shape.__doc__}: {error}") from error


def account(request: Request) -> tuple[str, Account]:
    """The name in the path and the stub of its account. Raises BadRequest if that can't be a name."""
    name = request.path_params["account"]
    try:
        return name, Bank.of(request).ACCOUNT.id_from_name(name)
    except ValueError as error:
        raise BadRequest(f"account: {error}") from error


async def pay(request: Request) -> Response:
    _, stub = account(request)
    return JSONResponse(await stub.debit((await body(request, Payment)).amount))


async def debit(request: Request) -> Response:
    name, stub = account(request)
    return JSONResponse({"account": name} | await stub.debit((await body(request, Payment)).amount))


async def deposit(request: Request) -> Response:
    name, stub = account(request)
    return JSONResponse({"account": name, "balance": await stub.deposit((await body(request, Payment)).amount)})


async def transfer(request: Request) -> Response:
    name, stub = account(request)
    wanted = await body(request, Transfer)
    return JSONResponse({"account": name} | await stub.transfer(wanted.to, wanted.amount))


async def interest(request: Request) -> Response:
    name, stub = account(request)
    wanted = await body(request, Interest)
    await stub.interest(wanted.rate, wanted.every_s)
    return JSONResponse({"account": name, "balance": await stub.balance()})


async def balance(request: Request) -> Response:
    name, stub = account(request)
    return JSONResponse({"account": name, "balance": await stub.balance()})


async def health(request: Request) -> Response:
    """It answers, so it lives and is ready: calls to accounts that are not ready wait, they do not fail."""
    return JSONResponse({"status": "ok"})


app = Starlette(
    routes=[
        Route("/health/liveness", health),
        Route("/health/readiness", health),
        Route("/accounts/{account}/balance", balance),
        Route("/accounts/{account}/deposit", deposit, methods=["POST"]),
        Route("/accounts/{account}/debit", debit, methods=["POST"]),
        Route("/accounts/{account}/transfer", transfer, methods=["POST"]),
        Route("/accounts/{account}/interest", interest, methods=["POST"]),
        Route("/{account}", pay, methods=["POST"]),
    ]
)
