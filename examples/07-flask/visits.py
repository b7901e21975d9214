"""The actors of a site: a counter for each page, served apart from the web service.

kubeactor dev
"""

from __future__ import annotations

from kubeactor import Actor, Binding, Env, Key

COUNT = Key("count", int, 0)


class Page(Actor):
    """One page of the site."""

    async def visit(self) -> int:
        await self.ctx.storage.put(COUNT, count := await self.count() + 1)
        return count

    async def count(self) -> int:
        return await self.ctx.storage.get(COUNT)


class Site(Env):
    PAGE: Binding[Page]
