"""Actors that a test asks for anything: slow, large, refused, internal, beyond JSON. Served by the real commands."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kubeactor import Actor, ActorError, AlarmInfo, Binding, Env, Problem, method


class TooPoor(Problem):
    """More than there is."""

    status = 402
    balance: int


class Lab(Actor):
    """Each name counts for itself."""

    env: Laboratory

    async def add(self, amount: int = 1) -> int:
        count = (await self.ctx.storage.get("count", 0)) + amount
        await self.ctx.storage.put("count", count)
        return int(count)

    async def count(self) -> int:
        return int(await self.ctx.storage.get("count", 0))

    async def slow(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return await self.add()

    async def echo(self, value: Any) -> Any:
        return value

    async def fill(self, size: int) -> int:
        await self.ctx.storage.put("filled", b"x" * size)
        return size

    async def large(self, size: int) -> str:
        return "x" * size

    async def number(self, text: str) -> float:
        return float(text)

    async def thing(self) -> Any:
        return object()

    async def fail(self) -> None:
        await self.add()
        raise ZeroDivisionError("of the lab")

    async def refuse(self) -> None:
        await self.add()
        raise TooPoor("too poor", balance=5)

    async def meet(self, other: str) -> dict[str, Any]:
        try:
            await self.env.LAB.id_from_name(other).refuse()
        except ActorError as error:
            return {"same": type(error) is TooPoor, "balance": getattr(error, "balance", None)}
        return {}

    async def ask_hidden(self, other: str) -> str:
        return await self.env.LAB.id_from_name(other).hidden()

    @method(internal=True)
    async def hidden(self) -> str:
        return "seen"

    async def remind(self, other: str, after_s: float) -> None:
        await self.ctx.storage.put("other", other)
        await self.ctx.storage.set_alarm(timedelta(seconds=after_s))

    async def alarm(self, info: AlarmInfo) -> None:
        await self.env.LAB.id_from_name(await self.ctx.storage.get("other")).add()

    async def pid(self) -> int:
        return os.getpid()

    async def _private(self) -> str:
        return "never"


class Laboratory(Env):
    """One binding."""

    LAB: Binding[Lab]


async def fetch(request: Request, env: Laboratory) -> Response:
    """POST /{name}/{method} with the arguments as the body; what it raises it does not catch, but for `caught`."""
    _, name, called = request.url.path.split("/")
    lab = env.LAB.id_from_name(name)
    if called == "caught":
        try:
            await lab.refuse()
        except TooPoor as error:
            return JSONResponse({"caught": error.balance})
    if called == "twice":
        return JSONResponse([await lab.add(), await lab.add()])
    return JSONResponse(await getattr(lab, called)(**(await request.json())))
