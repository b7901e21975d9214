"""Which namespace is looked at next: one look at a time for each, wishes that come meanwhile are one wish."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import Callable
from typing import Final

__all__ = ["Key", "Schedule"]

Key = tuple[str, str]  # Kubernetes namespace, name

BACKOFF_S: Final = (0.2, 60.0)


class Schedule:
    """A queue of keys with due times. As long as it is: one entry for each namespace that exists."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: monotonic seconds."""
        self._clock = clock
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = itertools.count()
        self._running: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._not_before: dict[Key, float] = {}  # after an error: an event does not mend it, and events may be many
        self._changed = asyncio.Event()

    def wake(self, key: Key, in_s: float = 0.0) -> None:
        """Look at it in that time, or earlier if that was wished before."""
        due = max(self._clock() + in_s, self._not_before.get(key, float("-inf")))
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._count), key))
        self._changed.set()

    async def next(self) -> Key:
        """The next key that is due and not looked at by anybody else; `done` it."""
        while True:
            self._changed.clear()
            key, wait_s = self._pop()
            if key is not None:
                return key
            # Not `wait_for`, which until Python 3.12 loses a cancellation that comes in the moment of a change.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    def _pop(self) -> tuple[Key | None, float | None]:
        later = []
        found, wait_s = None, None
        while self._heap:
            due, count, key = heapq.heappop(self._heap)
            if self._due.get(key) != due:
                continue  # an earlier wish took its place, or it is gone
            if key in self._running:
                later.append((due, count, key))
                continue
            if due > self._clock():
                later.append((due, count, key))
                wait_s = due - self._clock()
                break
            del self._due[key]
            self._running.add(key)
            found = key
            break
        for entry in later:
            heapq.heappush(self._heap, entry)
        return found, wait_s

    def done(self, key: Key, again_s: float | None) -> None:
        """The look is over; look again in that time. None: it is gone."""
        self._running.discard(key)
        self._failures.pop(key, None)
        self._not_before.pop(key, None)
        if again_s is not None:
            self.wake(key, again_s)
        self._changed.set()

    def failed(self, key: Key) -> None:
        """The look ended with an error: look again, later each time."""
        self._running.discard(key)
        failures = self._failures.get(key, 0)
        self._failures[key] = min(failures + 1, 16)
        wait_s = min(BACKOFF_S[1], BACKOFF_S[0] * 2.0**failures)
        self._not_before[key] = self._clock() + wait_s
        self._due.pop(key, None)
        self.wake(key, wait_s)
        self._changed.set()
