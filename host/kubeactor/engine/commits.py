"""From a turn to its batch: data, alarm, messages and recorded result in one atomic write.

When RocksDB asks to wait (a write stall), the batch waits, its instance runs no further turn, and nothing new starts
on the host: it is tried again every 5 ms. Batches are written in the order in which they were made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kubeactor.call import CLIENT, MESSAGE
from kubeactor.engine.alarms import changed
from kubeactor.engine.instance import Instance
from kubeactor.engine.layout import range_end
from kubeactor.engine.messages import Delivery
from kubeactor.engine.store import StoreError, WriteBatch, WriteStallError, new_batch
from kubeactor.engine.system import SystemCall
from kubeactor.engine.turn import Turn

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["Commits"]

STALL_RETRY_S: Final = 0.005


class Commits:
    """Builds and writes batches.

    Attributes:
        stalls: how often RocksDB asked to wait.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stalled: deque[tuple[WriteBatch, Callable[[], None], Instance | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.stalls = 0

    @property
    def stalled(self) -> bool:
        """Whether batches wait, so that nothing new may start."""
        return bool(self._stalled)

    def write(self, batch: WriteBatch, then: Callable[[], None], instance: Instance | None) -> None:
        """Write a batch and go on with `then`; `instance` is the one whose next turn can see it."""
        if self._stalled:
            self._stalled.append((batch, then, instance))
        elif self._engine.failure is None and self._put(batch, then, instance):
            then()

    def _put(self, batch: WriteBatch, then: Callable[[], None], instance: Instance | None) -> bool:
        """Write one batch; False when it has to wait, as the head of those that do, or failed."""
        engine = self._engine
        try:
            engine.store.write(batch)
        except WriteStallError:
            self._stall(batch, then, instance)
            return False
        except StoreError as error:
            engine.fail(str(error))
            return False
        number = engine.gate.wrote()
        if instance is not None:
            instance.batch = number
        return True

    def _stall(self, batch: WriteBatch, then: Callable[[], None], instance: Instance | None) -> None:
        self.stalls += 1
        if not self._stalled:
            self._stalled.append((batch, then, instance))
        if self._timer is None:
            self._timer = self._engine.loop.call_later(STALL_RETRY_S, self._again)

    def _again(self) -> None:
        """Write what waits, in order; as long as something does, nothing new starts."""
        self._timer = None
        waiting = self._stalled
        while waiting and self._put(*waiting[0]):
            _, then, _ = waiting.popleft()
            then()
        if not waiting:
            for instance in list(self._engine.waiting_instances):
                self._engine.next_turn(instance)

    def end_turn(self, turn: Turn, body: bytes) -> None:
        """Commit what the turn wrote and its result; then the engine replies."""
        engine = self._engine
        call = turn.call
        call_id = call.id
        if not turn.wrote and turn.method is not None and (call_id is None or call_id.kind not in (CLIENT, MESSAGE)):
            engine.turn_committed(turn, body)
            return
        instance = turn.instance
        batch = new_batch()
        if turn.cleared:
            engine.store.clear(batch, instance.data, range_end(instance.data))
        if turn.overlay:
            data = instance.data
            for key, value in turn.overlay.items():
                if value is None:
                    batch.delete(data + key)
                else:
                    batch.put(data + key, value)
        if turn.method is not None:
            if call_id is not None:
                engine.results.record(batch, instance, call, body, wrote=turn.wrote)
        else:
            assert isinstance(call, SystemCall)
            call.commit(turn, batch)
        if turn.cleared or turn.sends or changed(turn):
            self._write_full(turn, body, batch)
        elif batch.is_empty():
            engine.turn_committed(turn, body)
        else:
            self.write_turn(turn, body, batch)

    def write_turn(self, turn: Turn, body: bytes, batch: WriteBatch) -> None:
        """Write the batch of a turn that changed nothing but data: the common case, on the path of a call."""
        engine = self._engine
        if self._stalled or engine.failure is not None:
            self._stalled.append((batch, lambda: self._data_written(turn, body), turn.instance))
            return
        try:
            engine.store.write(batch)
        except WriteStallError:
            self._stall(batch, lambda: self._data_written(turn, body), turn.instance)
            return
        except StoreError as error:
            engine.fail(str(error))
            return
        turn.instance.batch = engine.gate.wrote()
        self._data_written(turn, body)

    def _data_written(self, turn: Turn, body: bytes) -> None:
        if turn.overlay:
            instance = turn.instance
            for key, value in turn.overlay.items():
                instance.remember(key, value)
        self._engine.turn_committed(turn, body)

    def _write_full(self, turn: Turn, body: bytes, batch: WriteBatch) -> None:
        engine, instance, call = self._engine, turn.instance, turn.call
        alarm_changes = changed(turn)
        alarm = engine.alarms.commit(batch, turn) if alarm_changes else None
        entries = engine.outbox.commit(batch, turn) if turn.sends or turn.cleared else []

        def written() -> None:
            if turn.cleared:
                instance.cache = None
            if alarm_changes:
                engine.alarms.written(instance, alarm)
            # A caller in this chain may be the receiver, whose turn waits for this very reply; for a message nobody
            # waits, but the next one of its pair, which may be the one sent here.
            message = call.id is not None and call.id.kind == MESSAGE
            waits = bool(entries) and turn.method is not None and not call.chain and not message
            if waits:
                number = instance.batch
                delivery = Delivery(engine.loop, len(entries), lambda: engine.reply(instance, call, body, number))
                for entry in entries:
                    entry.delivery = delivery
            if entries or turn.cleared:
                engine.outbox.written(turn, entries, instance.batch)
            for key, value in (turn.overlay or {}).items():
                instance.remember(key, value)
            engine.turn_committed(turn, body, reply=not waits)

        self.write(batch, written, instance)
