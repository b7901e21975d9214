"""What the tests of the kit serve: a purse with an alarm and messages, and a front door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kubeactor import Actor, ActorError, AlarmInfo, Binding, Env, Key, Message, Problem

COINS = Key("coins", int, 0)
EVERY = Key("every", timedelta, timedelta(0))
# What ran, whether it was committed or not.
ran: list[str] = []


class Empty(Problem):
    """Nothing is left."""

    status = 409


class Purse(Actor):
    """Coins that are put, taken, sent, and grow by an alarm."""

    env: Ward

    def __init__(self) -> None:
        self.seen = 0

    async def activate(self) -> None:
        ran.append(f"activate {self.ctx.name}")

    async def coins(self) -> int:
        return await self.ctx.storage.get(COINS)

    async def put(self, amount: int) -> int:
        ran.append(f"put {amount}")
        coins = await self.coins() + amount
        await self.ctx.storage.put(COINS, coins)
        return coins

    async def take(self, amount: int) -> int:
        coins = await self.coins() - amount
        if coins < 0:
            raise Empty("not that many")
        await self.ctx.storage.put(COINS, coins)
        return coins

    async def give(self, to: str, amount: int) -> int:
        self.ctx.send(self.env.PURSE.id_from_name(to).put, amount)
        return await self.take(amount)

    async def hand(self, to: str, amount: int) -> int:
        """As give, by a call."""
        await self.env.PURSE.id_from_name(to).put(amount)
        return await self.take(amount)

    async def whim(self, to: str) -> None:
        """Calls the other at the first try only, and is not done with it."""
        ran.append("whim")
        if ran.count("whim") == 1:
            await self.env.PURSE.id_from_name(to).put(1)
            await asyncio.sleep(20)

    async def throw(self, to: str) -> None:
        self.ctx.send(self.env.PURSE.id_from_name(to).lose)

    async def lose(self) -> None:
        raise Empty("it is refused")

    async def shout(self, to: str) -> None:
        self.ctx.send(self.env.PURSE.id_from_name(to).fail)

    async def fail(self) -> None:
        ran.append("fail")
        raise ValueError("it fails")

    async def look(self) -> int:
        self.seen += 1
        return self.seen

    async def slow(self, seconds: float) -> int:
        await self.ctx.storage.put(COINS, 1)
        await asyncio.sleep(seconds)
        return 1

    async def grow(self, every: timedelta) -> None:
        await self.ctx.storage.put(EVERY, every)
        await self.ctx.storage.set_alarm(every)

    async def alarm(self, info: AlarmInfo) -> None:
        ran.append(f"alarm {self.ctx.now():%H:%M:%S}")
        if self.ctx.name == "broken":
            raise ValueError("it rings no more")
        await self.put(1)
        await self.ctx.storage.set_alarm(info.scheduled_time + await self.ctx.storage.get(EVERY))

    async def fee(self) -> int:
        return self.env.FEE

    async def rate(self) -> str:
        return self.env.rates


class Tray(Purse):
    """Takes back what nobody took."""

    async def undelivered(self, message: Message, error: ActorError) -> None:
        await self.put(100)


class Ward(Env):
    PURSE: Binding[Purse]
    TRAY: Binding[Tray]
    FEE: int = 1
    rates: str
    closed = 0

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.rates = "real"
        yield
        Ward.closed += 1


async def put(request: Request) -> Response:
    coins = await Ward.of(request).PURSE.id_from_name(request.path_params["name"]).put(int(await request.body()))
    return JSONResponse({"coins": coins, "opened": request.state.opened})


async def broken(request: Request) -> Response:
    raise ValueError("the door is broken")


@asynccontextmanager
async def opened(app: Starlette) -> AsyncIterator[dict[str, str]]:
    ran.append("door opens")
    yield {"opened": "yes"}
    ran.append("door closes")


app = Starlette(routes=[Route("/{name}", put, methods=["POST"]), Route("/broken", broken)], lifespan=opened)


async def fetch(request: Request, env: Ward) -> Response:
    return PlainTextResponse(str(await env.PURSE.id_from_name("fetched").put(5)))
