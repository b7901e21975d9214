"""What `helm test` runs: an account, and nothing more."""

from __future__ import annotations

from kubeactor import Actor


class Account(Actor):
    """One balance."""

    async def deposit(self, amount: int) -> int:
        """Add to it; the new balance."""
        balance = (await self.ctx.storage.get("balance") or 0) + amount
        await self.ctx.storage.put("balance", balance)
        return balance

    async def debit(self, amount: int) -> int:
        """Take from it; the new balance."""
        return await self.deposit(-amount)
