"""Actors that the fault tests serve beside the example bank."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from kubeactor import Actor, AlarmInfo


class Sleeper(Actor):
    """An account whose debit lets the loop go between reading and writing."""

    async def deposit(self, amount: int) -> int:
        balance = await self.ctx.storage.get("balance") or 0
        await self.ctx.storage.put("balance", balance + amount)
        return int(balance + amount)

    async def debit(self, amount: int) -> dict[str, Any]:
        balance = await self.ctx.storage.get("balance") or 0
        await asyncio.sleep(0.0005)
        if balance < amount:
            return {"ok": False, "balance": balance}
        await self.ctx.storage.put("balance", balance - amount)
        await asyncio.sleep(0)
        return {"ok": True, "balance": balance - amount}


class Note(Actor):
    """Keeps and gives back a token, whose bytes can be found in the WAL and in the replies."""

    async def write(self, token: str) -> str:
        await self.ctx.storage.put("token", token)
        return token

    async def read(self) -> str | None:
        token: str | None = await self.ctx.storage.get("token")
        return token

    async def fail(self) -> None:
        """Raise after reading and writing: its error tells what it read."""
        token = await self.ctx.storage.get("token")
        await self.ctx.storage.put("token", "never")
        raise RuntimeError(f"saw {token}")

    async def fill(self, text: str) -> int:
        await self.ctx.storage.put("text", text)
        return len(text)


class Saver(Actor):
    """Is credited by an alarm ten times a second, and tells another one of each credit by a message."""

    async def open(self, listener: str) -> None:
        self.ctx.storage.put("listener", listener)
        self.ctx.storage.set_alarm(timedelta(0))

    async def alarm(self, info: AlarmInfo, /) -> None:
        number = await self.ctx.storage.get("count", 0) + 1
        self.ctx.storage.put("count", number)
        self.ctx.storage.put(f"credit-{number:06}", info.scheduled_time)
        self.ctx.send(self.env.SAVER.id_from_name(await self.ctx.storage.get("listener")).hear, number)
        self.ctx.storage.set_alarm(info.scheduled_time + timedelta(seconds=0.1))

    async def hear(self, number: int) -> None:
        heard = await self.ctx.storage.get("heard", 0) + 1
        self.ctx.storage.put("heard", heard)
        self.ctx.storage.put(f"heard-{heard:06}", number)

    async def credits(self) -> list[datetime]:
        """When each credit was due."""
        return [due async for _, due in self.ctx.storage.scan(prefix="credit-")]

    async def all_heard(self) -> list[int]:
        """The numbers of the other one's credits, as they arrived."""
        return [number async for _, number in self.ctx.storage.scan(prefix="heard-")]
