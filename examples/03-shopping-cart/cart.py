"""A shopping cart that is emptied when nobody has touched it for half an hour.

kubeactor dev
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from msgspec import Meta

from kubeactor import Actor, AlarmInfo, Binding, Env, Key, Problem

Item = Annotated[str, Meta(min_length=1, max_length=100)]
Count = Annotated[int, Meta(ge=1, le=100)]

ITEMS = Key("items", dict[str, int], {})
EXPIRES_AFTER = timedelta(minutes=30)


class CartEmpty(Problem):
    """There is nothing to pay for."""

    status = 409


class Cart(Actor):
    """The cart of one visitor."""

    env: Shop

    async def items(self) -> dict[str, int]:
        return await self.ctx.storage.get(ITEMS)

    async def add(self, item: Item, count: Count = 1) -> dict[str, int]:
        items = await self.items()
        items[item] = items.get(item, 0) + count
        return await self._keep(items)

    async def remove(self, item: Item) -> dict[str, int]:
        items = await self.items()
        items.pop(item, None)
        return await self._keep(items)

    async def checkout(self) -> dict[str, int]:
        """Take all out of the cart, for an order."""
        items = await self.items()
        if not items:
            raise CartEmpty("put something into the cart first")
        await self.ctx.storage.delete_all()
        return items

    async def alarm(self, info: AlarmInfo) -> None:
        await self.ctx.storage.delete_all()

    async def _keep(self, items: dict[str, int]) -> dict[str, int]:
        await self.ctx.storage.put(ITEMS, items)
        await self.ctx.storage.set_alarm(EXPIRES_AFTER)  # replaces the one before: time begins anew
        return items


class Shop(Env):
    CART: Binding[Cart]
