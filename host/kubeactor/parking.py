"""Where calls wait whose shard has no owner, or whose host can't be reached: bounded, in order of arrival per shard."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from kubeactor.limits import INGRESS_PARKED_BYTES, INGRESS_PARKED_CALLS, SHARD_PARKED_CALLS

__all__ = ["Lane", "Parked", "Parking"]


class Parked(Protocol):
    """What can be parked: its place in the order of arrival, its size in bytes, and its shard."""

    order: int
    size: int
    shard: int


P = TypeVar("P", bound=Parked)


class Lane(Generic[P]):
    """The calls of one shard that wait.

    Attributes:
        hold: while set, the lane waits for this timer, since its host has just refused it.
    """

    __slots__ = ("calls", "hold", "mixed")

    def __init__(self) -> None:
        self.calls: deque[P] = deque()
        self.hold: asyncio.TimerHandle | None = None
        self.mixed = False

    def release(self) -> None:
        """Wait for no timer any more."""
        if self.hold is not None:
            self.hold.cancel()
            self.hold = None


class Parking(Generic[P]):
    """All lanes and their common bounds. A lane exists while it holds a call.

    Attributes:
        calls, bytes: how many wait in all lanes, and the bytes of their bodies.
    """

    def __init__(
        self,
        max_calls: int = INGRESS_PARKED_CALLS,
        max_bytes: int = INGRESS_PARKED_BYTES,
        max_shard_calls: int = SHARD_PARKED_CALLS,
    ) -> None:
        self.lanes: dict[int, Lane[P]] = {}
        self.calls = 0
        self.bytes = 0
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._max_shard_calls = max_shard_calls

    def full(self, shard: int, size: int) -> str:
        """Which bound one more call of the shard would pass, as a sentence; empty when it may come in."""
        lane = self.lanes.get(shard)
        if lane is not None and len(lane.calls) >= self._max_shard_calls:
            return f"{self._max_shard_calls} calls wait for shard {shard}"
        if self.calls >= self._max_calls:
            return f"{self._max_calls} calls wait for their hosts"
        if self.bytes + size > self._max_bytes:
            return f"the calls that wait for their hosts hold {self.bytes} bytes"
        return ""

    def add(self, item: P) -> Lane[P]:
        """Park at the place of its arrival, which for a retried call is before those that came later."""
        lane = self.lanes.get(item.shard)
        if lane is None:
            lane = self.lanes[item.shard] = Lane()
        elif lane.calls[-1].order > item.order:
            lane.mixed = True
        lane.calls.append(item)
        self.calls += 1
        self.bytes += item.size
        return lane

    def drain(self, shard: int, send: Callable[[P], bool]) -> None:
        """Send the shard's calls in order, up to the first that finds no way out or makes the lane hold."""
        lane = self.lanes[shard]
        if lane.mixed:
            lane.calls = deque(sorted(lane.calls, key=_order))
            lane.mixed = False
        while lane.calls and lane.hold is None and send(lane.calls[0]):
            self._gone(lane.calls.popleft())
        if not lane.calls:
            self._close(shard, lane)

    def drop(self, unwanted: Callable[[P], bool]) -> list[P]:
        """Take out what is unwanted, wherever it waits, and give it back."""
        dropped: list[P] = []
        for shard, lane in list(self.lanes.items()):
            out = [item for item in lane.calls if unwanted(item)]
            if out:
                lane.calls = deque(item for item in lane.calls if not unwanted(item))
                for item in out:
                    self._gone(item)
                if not lane.calls:
                    self._close(shard, lane)
                dropped += out
        return dropped

    def _gone(self, item: P) -> None:
        self.calls -= 1
        self.bytes -= item.size

    def _close(self, shard: int, lane: Lane[P]) -> None:
        lane.release()
        del self.lanes[shard]


def _order(item: Parked) -> int:
    return item.order
