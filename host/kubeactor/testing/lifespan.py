"""The ASGI lifespan of a front door, as uvicorn runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.types import ASGIApp, Message

__all__ = ["entered"]

LIFESPAN_S: Final = 30.0


@asynccontextmanager
async def entered(app: ASGIApp) -> AsyncIterator[dict[str, Any]]:
    """Run the app's lifespan around the block; gives the state that each request gets a copy of.

    Raises:
        RuntimeError: when it fails, or takes more than 30 s. An app without a lifespan has nothing to run.
    """
    state: dict[str, Any] = {}
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    outgoing: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}

    async def run() -> None:
        try:
            await app(scope, incoming.get, outgoing.put)
        except Exception as error:
            await outgoing.put({"type": "raised", "message": f"{type(error).__name__}: {error}"})

    async def step(phase: str) -> str:
        await incoming.put({"type": f"lifespan.{phase}"})
        async with asyncio.timeout(LIFESPAN_S):
            told = await outgoing.get()
        if told["type"] == f"lifespan.{phase}.failed":
            raise RuntimeError(f"the front door's lifespan failed: {told.get('message', '')}")
        return str(told["type"])

    task = asyncio.create_task(run())
    try:
        supported = await step("startup") == "lifespan.startup.complete"
        try:
            yield state
        finally:
            if supported:
                await step("shutdown")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
