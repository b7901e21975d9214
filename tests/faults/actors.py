"""Actors that the fault tests serve beside the example bank."""

from __future__ import annotations

import asyncio
from typing import Any

from kubeactor import Actor


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
