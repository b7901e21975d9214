"""Who does the next sync of the WAL: the loop, which waits for it, or the thread, while the loop runs further turns.

The way to the thread and back (two wake-ups, the GIL) costs about as much as a fast disk's sync, and a caller who is
alone has nothing to gain from it. Where many callers share a sync that takes longer, their next turns run meanwhile:
at 16 connections on a disk of 0.4 ms that was worth 13-15 % (decision 2). Only the loop can tell how long a sync takes,
since what the thread measures includes its wait for the GIL; so it tries again now and then.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SyncPolicy"]

FAST_S: Final = 0.0003
SLOW_S: Final = 0.001
SHARED_BATCHES: Final = 2.0
# How much the last sync counts in the mean number of batches that shared one.
WEIGHT: Final = 1 / 16
# Syncs by the thread until the loop tries again, doubled each time that the disk was no faster.
PATIENCE_FIRST: Final = 64
PATIENCE_LAST: Final = 4096


class SyncPolicy:
    """Plain numbers; no clock and no thread of its own."""

    def __init__(self) -> None:
        self._before_s = 0.0
        self._slow = False
        self._shared = 1.0
        self._by_thread = 0  # syncs that the thread may do until the loop tries again
        self._patience = PATIENCE_FIRST

    def wants_thread(self) -> bool:
        """Whether the thread does the sync that is due now."""
        if not self._by_thread or not (self._slow or self._shared > SHARED_BATCHES):
            return False
        self._by_thread -= 1
        return True

    def synced(self, batches: int) -> None:
        """A sync has made so many batches durable."""
        self._shared += (batches - self._shared) * WEIGHT

    def took(self, seconds: float) -> None:
        """The loop's own sync took so long.

        A process that is put aside for a moment makes one sync look slow, hardly two in a row: the faster of the last
        two counts.
        """
        faster, self._before_s = min(seconds, self._before_s), seconds
        self._slow = faster > SLOW_S
        if faster <= FAST_S:
            self._by_thread = 0
            self._patience = PATIENCE_FIRST
        elif not self._by_thread:
            self._by_thread = self._patience
            self._patience = min(2 * self._patience, PATIENCE_LAST)
