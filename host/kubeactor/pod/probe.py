"""The built-in probe, as an ingress asks a host for it: down the same connections as calls."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from kubeactor.connection import ConnectionLost
from kubeactor.errors import ActorShardUnavailableError
from kubeactor.router import Router
from kubeactor.wire import CheckRequest

__all__ = ["Prober"]

ANSWER_S: Final = 5.0


class Prober:
    """Probes hosts; questions about the same host share one probe.

    Args:
        router: gives the router once there is one.
        starting: why there is none.
    """

    def __init__(self, router: Callable[[], Router | None], starting: Callable[[], str]) -> None:
        self._router = router
        self._starting = starting
        self._running: dict[str, asyncio.Task[dict[str, Any]]] = {}

    async def probe(self, host: str) -> dict[str, Any] | None:
        """Let a host write, sync and read in one of its shards; None when it owns none by the table.

        Raises:
            ActorError: what the host answered; ActorShardUnavailableError when it did not, or can't be reached.
        """
        router = self._router()
        if router is None:
            raise ActorShardUnavailableError(self._starting())
        shards = router.table.shards_of(host)
        if not shards:
            return None
        running = self._running.get(host)
        if running is None:
            running = asyncio.create_task(_ask(router, host, random.choice(shards)))
            self._running[host] = running
            running.add_done_callback(partial(self._done, host))
        return await asyncio.shield(running)

    def _done(self, host: str, task: asyncio.Task[dict[str, Any]]) -> None:
        del self._running[host]
        if not task.cancelled():
            task.exception()  # whoever asked may have gone


async def _ask(router: Router, host: str, shard: int) -> dict[str, Any]:
    began = time.monotonic()
    epoch = router.table.epoch(shard)
    connection = router.connected(host)
    try:
        async with asyncio.timeout(ANSWER_S):
            await connection.answer(partial(CheckRequest, shard=shard, epoch=epoch))
    except TimeoutError as error:
        raise ActorShardUnavailableError(f"{host} did not answer within {ANSWER_S:g} s", started="unknown") from error
    except ConnectionLost as error:
        raise ActorShardUnavailableError(f"{host} went away: {error}", started="unknown") from error
    return {"host": host, "shard": shard, "epoch": epoch, "ms": round((time.monotonic() - began) * 1000, 2)}
