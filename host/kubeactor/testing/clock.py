"""Time that stands still until a test moves it.

What waits for a wall time is kept here in due order, so moving on goes from one event to the next and none is late.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any

from kubeactor.clock import Clock, Timer

__all__ = ["VirtualClock", "Wait"]


class Wait:
    """A callback and the virtual time that it waits for."""

    __slots__ = ("args", "callback", "due_us", "live", "loop")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, due_us: int, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self.loop = loop
        self.due_us = due_us
        self.callback = callback
        self.args = args
        self.live = True

    def cancel(self) -> None:
        """Forget it."""
        self.live = False

    def run(self) -> None:
        """Call back, unless it was forgotten meanwhile."""
        if self.live:
            self.live = False
            self.callback(*self.args)


class VirtualClock(Clock):
    """Wall time begins at the machine's and stands still; monotonic time runs, and is moved on together with it.

    Attributes:
        skipped_s: how far monotonic time was moved on.
    """

    def __init__(self) -> None:
        self._wall_us = time.time_ns() // 1000
        self.skipped_s = 0.0
        self._waiting: list[tuple[int, int, Wait]] = []
        self._numbers = itertools.count()

    def now_us(self) -> int:
        """Virtual microseconds since 1970."""
        return self._wall_us

    def monotonic(self) -> float:
        """The machine's, and what was skipped."""
        return time.monotonic() + self.skipped_s

    def wake_at(
        self, loop: asyncio.AbstractEventLoop, due_us: int, callback: Callable[..., object], *args: Any
    ) -> Timer:
        """Call back when a test has moved on to that time."""
        wait = Wait(loop, due_us, callback, args)
        if due_us <= self._wall_us:
            loop.call_soon(wait.run)
        else:
            heapq.heappush(self._waiting, (due_us, next(self._numbers), wait))
        return wait

    def call_later(
        self, loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[..., object], *args: Any
    ) -> Timer:
        """Call back when a test has moved on by so many seconds."""
        return self.wake_at(loop, self._wall_us + round(seconds * 1e6), callback, *args)

    def next_us(self, wanted: Callable[[Wait], bool] = lambda wait: True) -> int | None:
        """When the next of what waits is due; None if nothing does."""
        while self._waiting and not self._waiting[0][2].live:
            heapq.heappop(self._waiting)
        return min((due_us for due_us, _, wait in self._waiting if wait.live and wanted(wait)), default=None)

    def move_to(self, us: int) -> None:
        """Let time pass; what is due is called back in a moment, in due order."""
        if us > self._wall_us:
            self.skipped_s += (us - self._wall_us) / 1e6
            self._wall_us = us
        while self._waiting and self._waiting[0][0] <= self._wall_us:
            wait = heapq.heappop(self._waiting)[2]
            wait.loop.call_soon(wait.run)

    def forget_all(self) -> None:
        """What waited belonged to a host that is gone."""
        for _, _, wait in self._waiting:
            wait.cancel()
        self._waiting.clear()
