# bank.py
from datetime import timedelta
from typing import Annotated
from msgspec import Meta
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from kubeactor import Actor, ActorError, AlarmInfo, Binding, Env, Key, Message, Problem

Amount = Annotated[int, Meta(gt=0, le=2**63 - 1)]
BALANCE, RATE, EVERY = Key("balance", int, 0), Key("rate", float, 0.0), Key("every", timedelta)

class InsufficientFunds(Problem):
    status = 409
    balance: int

class Account(Actor):
    env: "Bank"
    async def balance(self) -> int:
        return await self.ctx.storage.get(BALANCE)
    async def deposit(self, amount: Amount) -> int:
        await self.ctx.storage.put(BALANCE, balance := await self.balance() + amount)
        return balance
    async def debit(self, amount: Amount) -> int:
        if (balance := await self.balance()) < amount:
            raise InsufficientFunds(f"{amount} is more than {balance}", balance=balance)
        await self.ctx.storage.put(BALANCE, balance - amount)
        return balance - amount
    async def transfer(self, to: str, amount: Amount) -> int:
        self.ctx.send(self.env.ACCOUNT.id_from_name(to).deposit, amount)
        return await self.debit(amount)
    async def undelivered(self, message: Message, error: ActorError) -> None:
        await self.deposit(message.args[0])            # the receiver refused: take it back
    async def interest(self, rate: float, every: timedelta) -> None:
        await self.ctx.storage.put(RATE, rate)
        await self.ctx.storage.put(EVERY, every)
        await self.ctx.storage.set_alarm(every)
    async def alarm(self, info: AlarmInfo) -> None:
        await self.deposit(round(await self.balance() * await self.ctx.storage.get(RATE)))
        if every := await self.ctx.storage.get(EVERY):
            await self.ctx.storage.set_alarm(info.scheduled_time + every)

class Bank(Env):
    ACCOUNT: Binding[Account]

async def debit(request: Request) -> JSONResponse:
    account = Bank.of(request).ACCOUNT.id_from_name(request.path_params["account"])
    return JSONResponse({"balance": await account.debit((await request.json()).get("amount"))})
app = Starlette(routes=[Route("/{account}", debit, methods=["POST"])])
