"""The actor behind it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from till_api import Receipt, TillIsShort

from kubeactor import Actor, ActorId, Key, method

COUNT = Key("count", int, 0)


class Till(Actor):
    async def add(self, n: int = 1) -> int:
        count = await self.ctx.storage.get(COUNT) + n
        await self.ctx.storage.put(COUNT, count)
        return count

    async def count(self) -> int:
        return await self.ctx.storage.get(COUNT)

    async def take(self, amount: Decimal) -> Decimal:
        raise TillIsShort(f"{amount} is more than 1.50", left=Decimal("1.50"))

    async def print(self, receipt: Receipt) -> Receipt:
        return receipt

    async def follow(self, id: ActorId, *, deep: bool = False) -> ActorId | None:
        return id if deep else None

    async def sum(self, first: int, /, *rest: int, **named: int) -> int:
        return first + sum(rest) + sum(named.values())

    async def anything(self, value: Any) -> Any:
        return value

    async def text(self, size: int) -> str:
        return "x" * size

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def fail(self) -> None:
        raise KeyError("drawer")

    @method(internal=True)
    async def hidden(self) -> None:
        pass

    async def lies(self) -> str:
        return "seven"
