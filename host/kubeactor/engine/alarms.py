"""Alarms: one per instance, in due order on disk, retried with back-off, parked after ten counted attempts.

Two rows per alarm, always written in one batch: the alarm's own (`a`) and one that puts it in due order (`t`). Of the
due rows of a shard the next ones are in a heap; the rest stay on disk until those have been used up, so a host with a
million pending alarms starts as fast as one with ten.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kubeactor.actor import Actor, AlarmInfo
from kubeactor.clock import Timer
from kubeactor.engine.backoff import backoff_s, counts
from kubeactor.engine.instance import UNKNOWN, Instance
from kubeactor.engine.layout import ALARM, DUE, due_key, instance_key, range_end, shard_prefix
from kubeactor.engine.store import StoreError, WriteBatch, new_batch
from kubeactor.engine.system import SystemCall
from kubeactor.engine.turn import UNCHANGED, Turn
from kubeactor.errors import ActorError, ActorUnknownMethodError
from kubeactor.limits import ALARM_ATTEMPTS, CALL_MAX_S
from kubeactor.scope import instance_text
from kubeactor.storage import from_us

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["AlarmRow", "Alarms"]

# Due rows of a host that are in memory: this many in all, but at least 16 a shard.
LOADED: Final = 16_384
LOADED_PER_SHARD_MIN: Final = 16
# Alarms under way at once, and started in one go before calls get their turn again.
RUNNING: Final = 256
BURST: Final = 8

log = logging.getLogger("kubeactor.alarms")


class AlarmRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An alarm as stored.

    Attributes:
        generation: grows with each set_alarm; kept over retries.
        scheduled_us: as it was set; next_us: when it runs next; of a parked one, since when it is.
        retries: counted failed runs.
        parked: kept and listed, but not run again by itself.
        error: of the last failed run.
    """

    generation: int
    scheduled_us: int
    next_us: int
    retries: int = 0
    parked: bool = False
    error: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AlarmRow).decode


class AlarmCall(SystemCall):
    """The turn of an alarm that is due."""

    __slots__ = ("_alarms", "_row")

    def __init__(self, alarms: Alarms, instance: Instance, row: AlarmRow, deadline: float, timeout_s: float) -> None:
        super().__init__(instance, "alarm", number=row.generation, deadline=deadline, timeout_s=timeout_s)
        self._alarms = alarms
        self._row = row
        self.target = instance

    def begin(self, actor: Actor, turn: Turn) -> Coroutine[Any, Any, Any]:
        """The handler; in its turn the alarm is already cleared, which commits with its batch."""
        if not turn.instance.type.has_alarm:
            raise ActorUnknownMethodError(f"{turn.instance.type.cls.__qualname__} has no `alarm` any more")
        turn.alarm = None
        row = self._row
        return actor.alarm(AlarmInfo(from_us(row.scheduled_us), row.retries, row.retries > 0))

    def current(self) -> bool:
        """Whether the alarm is still the one that was due when this was queued."""
        assert self.target is not None
        return self._alarms.row(self.target) == self._row

    def dropped(self) -> None:
        """Another one has taken its place, or none."""
        assert self.target is not None
        self._alarms.ended(self.target)

    def committed(self, turn: Turn) -> None:
        """It ran."""
        self._alarms.ran += 1
        self._alarms.ended(turn.instance)

    def failed(self, error: ActorError) -> None:
        """It is tried again, or parked."""
        assert self.target is not None
        if counts(error):
            self._alarms.retry(self.target, self._row, error)
            self._alarms.ended(self.target)
        else:
            self._alarms.ended(self.target, after_s=float(error.retry_after_s or 1))


class Alarms:
    """The alarms of a host.

    Attributes:
        ran, failed: counters since start.
    """

    def __init__(self, engine: Engine, timeout_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._heap: list[tuple[int, int, bytes]] = []
        self._count: dict[int, int] = {}
        # Shard -> due row up to which all are in the heap; None: all of them.
        self._horizon: dict[int, bytes | None] = {}
        self._running: set[bytes] = set()
        self._timer: Timer | None = None
        self._per_shard = LOADED_PER_SHARD_MIN
        self.ran = 0
        self._generation = 0
        self.failed = 0

    # --- rows

    def row(self, instance: Instance) -> AlarmRow | None:
        """The stored alarm of an instance."""
        if instance.alarm is UNKNOWN:
            instance.alarm = self.stored(instance.shard, instance.key)
        return instance.alarm  # type: ignore[no-any-return]

    def stored(self, shard: int, key: bytes) -> AlarmRow | None:
        """The same from disk, for an instance that need not be in memory."""
        raw = self._engine.store.get(instance_key(shard, ALARM, key))
        return None if raw is None else _decode(raw)

    def commit(self, batch: WriteBatch, turn: Turn) -> AlarmRow | None:
        """Put a turn's alarm change into its batch; the row that will hold."""
        old = self.row(turn.instance)
        if turn.alarm is None:
            if old is not None:
                self._put(batch, turn.instance, old, None)
            return None
        # Ids of calls are made from it, so no two alarms share one, even after a deletion or when time stands still.
        self._generation = max(self._generation, old.generation if old else 0, self._engine.clock.now_us() - 1) + 1
        new = AlarmRow(self._generation, turn.alarm, turn.alarm)
        self._put(batch, turn.instance, old, new)
        return new

    def _put(self, batch: WriteBatch, instance: Instance, old: AlarmRow | None, new: AlarmRow | None) -> None:
        row_key = instance_key(instance.shard, ALARM, instance.key)
        parked = self._engine.parked
        if old is not None and old.parked:
            batch.delete(parked.key(instance))
            parked.alarms -= 1
        elif old is not None:
            batch.delete(due_key(instance.shard, old.next_us, instance.key))
        if new is None:
            batch.delete(row_key)
            return
        batch.put(row_key, _encode(new))
        if new.parked:
            batch.put(parked.key(instance), b"")
            parked.alarms += 1
        else:
            batch.put(due_key(instance.shard, new.next_us, instance.key), b"")

    def written(self, instance: Instance, new: AlarmRow | None) -> None:
        """The batch with the change was written."""
        instance.alarm = new
        if new is not None and not new.parked:
            self._add(instance.shard, new.next_us, instance.key)
            self._arm()

    def retry(self, instance: Instance, row: AlarmRow, error: ActorError) -> None:
        """Write down a failed run, if the alarm is still the same one."""
        if self.row(instance) != row:
            return
        self.failed += 1
        retries = row.retries + 1
        parked = retries >= ALARM_ATTEMPTS
        next_us = self._engine.clock.now_us() + (0 if parked else int(backoff_s(retries) * 1e6))
        text = f"{error.name}: {error.detail}"[:500].encode(errors="replace").decode()
        new = msgspec.structs.replace(row, retries=retries, parked=parked, next_us=next_us, error=text)
        attempt = f"attempt {retries} of {ALARM_ATTEMPTS}{', and is parked' if parked else ''}"
        log.warning("the alarm of %s failed at %s: %s", instance_text(instance.key), attempt, text)
        self._system_write(instance, row, new)

    def _system_write(self, instance: Instance, old: AlarmRow, new: AlarmRow) -> None:
        batch = new_batch()
        self._put(batch, instance, old, new)
        self._engine.system_write(batch, lambda: self.written(instance, new), instance)

    def release(self, instance: Instance) -> bool:
        """Run a parked alarm again, by hand; False if none is parked."""
        row = self.row(instance)
        if row is None or not row.parked:
            return False
        new = msgspec.structs.replace(row, parked=False, retries=0, next_us=self._engine.clock.now_us(), error="")
        self._system_write(instance, row, new)
        return True

    # --- due order

    def load(self, shards: list[int]) -> None:
        """Read the next alarms of these shards."""
        self._per_shard = max(LOADED_PER_SHARD_MIN, LOADED // max(1, len(self._engine.epochs)))
        for shard in shards:
            self._load(shard, shard_prefix(shard, DUE))
        self._arm()

    def _load(self, shard: int, after: bytes) -> None:
        prefix = shard_prefix(shard, DUE)
        last = None
        self._count[shard] = 0
        for key, _ in self._engine.store.rows(after, range_end(prefix)):
            if key == after:
                continue
            cut = len(prefix)
            heapq.heappush(self._heap, (int.from_bytes(key[cut : cut + 8], "big"), shard, key[cut + 8 :]))
            self._count[shard] += 1
            last = key
            if self._count[shard] >= self._per_shard:
                self._horizon[shard] = last
                return
        self._horizon[shard] = None

    def _add(self, shard: int, due_us: int, key: bytes) -> None:
        horizon = self._horizon.get(shard)
        if horizon is not None and due_key(shard, due_us, key) > horizon:
            return
        heapq.heappush(self._heap, (due_us, shard, key))
        self._count[shard] = self._count.get(shard, 0) + 1
        if self._count[shard] > 4 * self._per_shard:
            self._heap = [entry for entry in self._heap if entry[1] != shard]
            heapq.heapify(self._heap)
            self._load(shard, shard_prefix(shard, DUE))

    def unload(self, shard: int) -> None:
        """Forget a shard that is not ours any more."""
        self._heap = [entry for entry in self._heap if entry[1] != shard]
        heapq.heapify(self._heap)
        self._horizon.pop(shard, None)
        self._count.pop(shard, None)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        engine = self._engine
        if not self._heap or len(self._running) >= RUNNING or engine.stopping or not engine.background:
            return
        self._timer = engine.clock.wake_at(engine.loop, self._heap[0][0], self.fire)

    def fire(self) -> None:
        """Start what is due, a few at a time so that calls keep their latency."""
        if self._engine.stopping:
            return
        try:
            self._fire()
        except StoreError as error:
            self._engine.fail(str(error))
        self._arm()

    def _fire(self) -> None:
        now_us = self._engine.clock.now_us()
        started = 0
        while self._heap and self._heap[0][0] <= now_us and started < BURST and len(self._running) < RUNNING:
            due_us, shard, key = heapq.heappop(self._heap)
            self._count[shard] -= 1
            if self._count[shard] <= 0 and (horizon := self._horizon.get(shard)) is not None:
                self._load(shard, horizon)
            started += self._start(shard, due_us, key)

    def _start(self, shard: int, due_us: int, key: bytes) -> bool:
        engine = self._engine
        if key in self._running or shard not in engine.epochs:
            return False
        instance = engine.instance_of_key(key, shard)
        if instance is None:
            return False
        row = self.row(instance)
        if row is None or row.parked or row.next_us != due_us:
            return False
        self._running.add(key)
        engine.admit(
            instance, AlarmCall(self, instance, row, engine.clock.monotonic() + CALL_MAX_S * 100, self._timeout_s)
        )
        return True

    def ended(self, instance: Instance, after_s: float = 0.0) -> None:
        """An alarm's turn is over, one way or the other; a due one is looked at again after that many seconds."""
        self._running.discard(instance.key)
        row = self.row(instance)
        if row is not None and not row.parked and not self._engine.stopping:
            if after_s:
                engine = self._engine
                engine.clock.call_later(engine.loop, after_s, self._again, instance.shard, row.next_us, instance.key)
            else:
                self._add(instance.shard, row.next_us, instance.key)
        self._arm()

    def _again(self, shard: int, due_us: int, key: bytes) -> None:
        self._add(shard, due_us, key)
        self._arm()

    @property
    def running(self) -> int:
        """Alarms whose turn runs or waits for its turn."""
        return len(self._running)

    @property
    def pending_in_memory(self) -> int:
        """Due rows in the heap, for the metrics."""
        return len(self._heap)


def changed(turn: Turn) -> bool:
    """Whether a turn changes its alarm."""
    return turn.alarm is not UNCHANGED
