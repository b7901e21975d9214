"""The two clocks of an engine: wall time for alarms, monotonic time for everything else. Tests bring their own."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """The machine's clocks."""

    def now_us(self) -> int:
        """Microseconds since 1970; may be stepped."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()
