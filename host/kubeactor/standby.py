"""A dispatcher for the time in which the volume can't be opened: calls wait for it, up to their deadline."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

from kubeactor.call import Call, Dispatcher
from kubeactor.errors import ActorOverloadedError, ActorShardUnavailableError
from kubeactor.limits import INGRESS_PARKED_BYTES, INGRESS_PARKED_CALLS

__all__ = ["Standby"]

SWEEP_S: Final = 0.25


class Standby:
    """Parks calls until there is an engine, then hands them on in their order; from then on it only passes through.

    Attributes:
        reason: why there is none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, shards: int) -> None:
        self.shards = shards
        self.reason = "starting"
        self._loop = loop
        self._engine: Dispatcher | None = None
        self._parked: deque[Call] = deque()
        self._bytes = 0
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)

    def submit(self, call: Call) -> None:
        """Part of Dispatcher."""
        if self._engine is not None:
            self._engine.submit(call)
        elif len(self._parked) >= INGRESS_PARKED_CALLS or self._bytes + len(call.body) > INGRESS_PARKED_BYTES:
            call.reply(ActorOverloadedError(f"{len(self._parked)} calls wait for the volume: {self.reason}"))
        else:
            self._parked.append(call)
            self._bytes += len(call.body)

    def epoch_of(self, shard: int) -> int:
        """No shard is served yet."""
        return 0

    def serve(self, engine: Dispatcher) -> None:
        """Hand on what waits."""
        self._sweeper.cancel()
        while self._parked:  # one that comes meanwhile, since an answer made it, takes its place at the end
            engine.submit(self._parked.popleft())
        self._engine = engine

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        now = time.monotonic()
        late = [call for call in self._parked if call.deadline <= now]
        if late:
            self._parked = deque(call for call in self._parked if call.deadline > now)
            self._bytes = sum(len(call.body) for call in self._parked)
            for call in late:
                call.reply(ActorShardUnavailableError(f"the volume can't be opened: {self.reason}"))
