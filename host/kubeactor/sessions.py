"""Call ids of a router's own: which slot of which shard a call uses (RIFL, SOSP 2015).

A host keeps one recorded result per (shard, session, slot) and overwrites it with the slot's next use, so what it keeps
is as much as there are calls in flight, and nothing has to be purged. That is sound only if a slot is not used again
while an attempt of its last call may still run: `free` it after the final answer, else `retire` it.
"""

from __future__ import annotations

import secrets
from collections import deque
from heapq import heappop, heappush
from typing import Final

from kubeactor.call import SESSION, CallId
from kubeactor.limits import CALL_MAX_S

__all__ = ["Sessions"]

# Longer than an attempt can live that reached a host but whose connection was lost: no deadline is further away.
RETIRED_S: Final = CALL_MAX_S


class Sessions:
    """Hands out the ids of one router's life.

    Attributes:
        key: 8 random bytes, the session.
    """

    def __init__(self) -> None:
        self.key = secrets.token_bytes(8)
        self._counts: dict[int, list[int]] = {}
        self._idle: dict[int, list[int]] = {}
        self._retired: deque[tuple[float, int, int]] = deque()

    def take(self, shard: int, now: float) -> CallId:
        """An id that was never used, in the shard's lowest free slot; `now` is of the monotonic clock."""
        while self._retired and self._retired[0][0] <= now:
            _, retired_shard, slot = self._retired.popleft()
            self.free(retired_shard, slot)
        idle = self._idle.get(shard)
        counts = self._counts.get(shard)
        if idle and counts:
            slot = heappop(idle)
            counts[slot] += 1
            return CallId(SESSION, self.key, slot, counts[slot])
        if counts is None:
            counts = self._counts[shard] = []
        counts.append(1)
        return CallId(SESSION, self.key, len(counts) - 1, 1)

    def free(self, shard: int, slot: int) -> None:
        """The call of this slot got its final answer."""
        idle = self._idle.get(shard)
        if idle is None:
            idle = self._idle[shard] = []
        heappush(idle, slot)

    def retire(self, shard: int, slot: int, now: float) -> None:
        """The call of this slot was given up without a final answer: the slot rests until no attempt can be alive."""
        self._retired.append((now + RETIRED_S, shard, slot))
