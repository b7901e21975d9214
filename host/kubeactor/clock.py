"""The two clocks of an engine: wall time for alarms, monotonic time for everything else. Tests bring their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

__all__ = ["Clock", "Timer"]

# The longest sleep until a wall time, so that a step of the wall clock is noticed.
WAKE_S: Final = 1.0


class Timer(Protocol):
    """What a clock was asked to call back later."""

    def cancel(self) -> None:
        """Forget it."""


class Clock:
    """The machine's clocks."""

    def now_us(self) -> int:
        """Microseconds since 1970; may be stepped."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    def wake_at(
        self, loop: asyncio.AbstractEventLoop, due_us: int, callback: Callable[..., object], *args: Any
    ) -> Timer:
        """Call back at that wall time, or earlier: the callback looks at the clock again."""
        return loop.call_later(min(max(0.0, (due_us - self.now_us()) / 1e6), WAKE_S), callback, *args)

    def call_later(
        self, loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[..., object], *args: Any
    ) -> Timer:
        """Call back when so many seconds have passed; for waits before an alarm or message is tried again."""
        return loop.call_later(seconds, callback, *args)
