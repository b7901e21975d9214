"""The output gate: nothing that a turn could have seen leaves before it is on disk (contract, guarantee 3).

Each batch has a host-wide number. A sync covers the batches written *before* it began: the number is noted first,
then the WAL is synced, then everything that waits for a number up to the noted one goes out. A batch written while
the sync runs waits for the next.

The loop does it by itself, once a tick for all batches of the tick together, or one thread does it while the loop goes
on: `sync_policy.py` chooses.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any

from kubeactor.call import Call
from kubeactor.engine.loop import EngineLoop
from kubeactor.engine.store import FLUSH_BATCHES, Store, StoreError
from kubeactor.engine.sync_policy import SyncPolicy
from kubeactor.errors import ActorError

__all__ = ["Gate"]

log = logging.getLogger("kubeactor.gate")


class Gate:
    """Numbers batches, syncs them, and lets out what waited.

    Attributes:
        written: number of the last batch written; synced: of the last one known to be on disk.
        waiting: (number, call, outcome) in order of number; with None as call, outcome is a callable.
    """

    def __init__(
        self,
        store: Store,
        loop: EngineLoop,
        reply: Callable[[Call, bytes | ActorError], None],
        failed: Callable[[str], None],
    ) -> None:
        self._store = store
        self._loop = loop
        self._reply = reply
        self._failed = failed
        self.written = 0
        self.synced = 0
        self.waiting: deque[tuple[int, Call | None, Any]] = deque()
        self.syncs = 0
        self.sync_seconds = 0.0
        self.broken = False
        self._scheduled = False
        self._policy = SyncPolicy()
        self._flushed = 0
        self._flushing: threading.Thread | None = None
        self._busy = False
        self._closed = False
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="kubeactor-wal-sync", daemon=True)
        self._thread.start()

    def wrote(self) -> int:
        """Number the batch that was just written, and see to its sync."""
        self.written = number = self.written + 1
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._tick)
        return number

    def after(self, number: int, callback: Callable[[], None]) -> None:
        """Call back when that batch is on disk; at once if it is."""
        if number <= self.synced:
            callback()
        else:
            self._insert(number, None, callback)

    def hold(self, number: int, call: Call, outcome: bytes | ActorError) -> None:
        """Reply when that batch is on disk."""
        if not self.waiting or self.waiting[-1][0] <= number:
            self.waiting.append((number, call, outcome))
        else:
            self._insert(number, call, outcome)

    def _insert(self, number: int, call: Call | None, outcome: Any) -> None:
        at = len(self.waiting)
        while at and self.waiting[at - 1][0] > number:
            at -= 1
        self.waiting.insert(at, (number, call, outcome))

    def overdue(self, now: float) -> list[Call]:
        """Take out the calls whose deadline has passed."""
        if not any(call is not None and call.deadline <= now for _, call, _ in self.waiting):
            return []
        late = [call for _, call, _ in self.waiting if call is not None and call.deadline <= now]
        self.waiting = deque(entry for entry in self.waiting if entry[1] is None or entry[1].deadline > now)
        return late

    def _tick(self) -> None:
        self._scheduled = False
        if self._busy or self.broken or self._closed or self.written == self.synced:
            return
        if self._policy.wants_thread():
            self._busy = True
            self._orders.put(self._sync_in_thread)
            return
        number = self.written
        began = perf_counter()
        page = self._loop.page
        page.enter_rocksdb()
        try:
            self._store.sync()
        except StoreError as error:
            self._break(str(error))
            return
        finally:
            page.leave_rocksdb()
        seconds = perf_counter() - began
        self._policy.took(seconds)
        self._release(number, seconds)

    def _sync_in_thread(self) -> None:
        number = self.written
        began = perf_counter()
        failure = None
        try:
            self._store.sync()
        except StoreError as error:
            failure = str(error)
        self._loop.call_soon_threadsafe(self._thread_done, number, perf_counter() - began, failure)

    def _thread_done(self, number: int, seconds: float, failure: str | None) -> None:
        self._busy = False
        if failure is not None:
            self._break(failure)
            return
        if self.broken or self._closed:
            return  # a write failed meanwhile, and nothing leaves any more; or `close` has let out what waited
        self._release(number, seconds)
        if self.written > self.synced:
            self._tick()

    def _release(self, number: int, seconds: float) -> None:
        self.syncs += 1
        self.sync_seconds += seconds
        self._policy.synced(number - self.synced)
        self.synced = number
        waiting = self.waiting
        reply = self._reply
        while waiting and waiting[0][0] <= number:
            _, call, outcome = waiting.popleft()
            try:
                if call is None:
                    outcome()
                else:
                    reply(call, outcome)
            except Exception:
                # One closed client must not keep the others of its batch waiting.
                log.exception("a reply could not be handed out")
        if self.written - self._flushed >= FLUSH_BATCHES and not self._flushing:
            self._flushed = self.written
            self._flush(self._store.flush)

    def lay_out_wals(self) -> None:
        """Have syncs overwrite WAL files from now on; calls go on meanwhile."""
        self._flush(lambda: self._store.lay_out_wals(lambda: self._closed))

    def _flush(self, work: Callable[[], None]) -> None:
        self._flushing = threading.Thread(
            target=self._flush_in_thread, args=(work,), name="kubeactor-flush", daemon=True
        )
        self._flushing.start()

    def _flush_in_thread(self, work: Callable[[], None]) -> None:
        failure = None
        try:
            work()
        except (OSError, StoreError) as error:
            failure = str(error)
        self._flushing = None
        if failure is not None and not self._closed:
            self._loop.call_soon_threadsafe(self._break, failure)

    def _break(self, why: str) -> None:
        self.broken = True
        self._failed(why)

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            order()

    def close(self) -> None:
        """Sync what is written, let out what waits, and end the threads, after which the store may be closed.

        Raises:
            StoreError: when that last sync fails; what waited stays in.
        """
        self._closed = True
        self._orders.put(None)
        self._thread.join()
        if flushing := self._flushing:
            flushing.join()
        if not self.broken and self.written > self.synced:
            began = perf_counter()
            number = self.written
            self._store.sync()
            self._release(number, perf_counter() - began)
