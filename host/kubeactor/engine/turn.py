"""One turn's state: what it has written, its alarm change, its messages. Nothing of it is seen before it commits."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Final

from kubeactor.call import Call
from kubeactor.engine.instance import Instance
from kubeactor.engine.layout import range_end
from kubeactor.errors import StorageLimitError
from kubeactor.ids import ActorId
from kubeactor.limits import TURN_BYTES
from kubeactor.scope import Scope
from kubeactor.storage import merged

if TYPE_CHECKING:
    from kubeactor.actor import Method
    from kubeactor.engine.engine import Engine

__all__ = ["UNCHANGED", "Turn"]

UNCHANGED: Final[Any] = object()
ROW_OVERHEAD_BYTES: Final = 16
# The page shows a system turn without a method's name.
ENGINE_LABEL: Final = b"\0-\0"


class Turn(Scope):
    """A running turn.

    Attributes:
        overlay: written values by user key, None for a deleted one; None as long as nothing was written.
        cleared: whether `delete_all` ran, which hides all stored rows.
        alarm: UNCHANGED, or the new due time in microseconds, or None for deleted.
        sends: messages in order: receiver, method, body.
        seen: number of the last batch of another instance of this host that this turn saw.
        expired: whether its budget ended it.
    """

    __slots__ = (
        "_now_us",
        "alarm",
        "call",
        "cleared",
        "engine",
        "expired",
        "instance",
        "label",
        "method",
        "overlay",
        "seen",
        "sends",
        "size",
        "task",
        "timer",
        "wrote",
    )

    def __init__(self, engine: Engine, instance: Instance, call: Call, method: Method | None, deadline: float) -> None:
        self.dispatcher = engine.dispatcher
        self.bucket = call.bucket
        self.deadline = deadline
        self.root = call.root
        self.chain = call.chain
        self.repeat = call.repeat
        self.parent = b""
        self.live = True
        self.numbers = None
        self.waiting = None
        self.unawaited = None
        self.engine = engine
        self.instance = instance
        self.label = instance.key + (method.label if method is not None else ENGINE_LABEL)
        self.call = call
        self.method = method
        self.task: asyncio.Task[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.overlay: dict[bytes, bytes | None] | None = None
        self.cleared = False
        self.alarm: Any = UNCHANGED
        self.sends: list[tuple[ActorId, str, bytes]] | None = None
        self.size = 0
        self.seen = 0
        self.expired = False
        self.wrote = False
        self._now_us = 0

    # --- as a scope

    def parent_token(self) -> bytes:
        """The token of this turn's own call."""
        if not self.parent:
            self.parent = self.call.origin() or secrets.token_bytes(16)
        return self.parent

    def inner_chain(self) -> tuple[bytes, ...]:
        """The chain with this instance at its end."""
        return (*self.chain, self.instance.key)

    def ready(self, shard: int) -> asyncio.Future[None] | None:
        """Another process may hear of what this turn saw only when that is on disk; this host shares the WAL."""
        number = max(self.instance.batch, self.seen)
        if shard in self.engine.epochs or number <= self.engine.gate.synced:
            return None
        future: asyncio.Future[None] = self.engine.loop.create_future()
        self.engine.gate.after(number, lambda: None if future.done() else future.set_result(None))
        return future

    def saw(self, batch: int) -> None:
        """This turn's reply waits for that batch as well."""
        if batch > self.seen:
            self.seen = batch

    # --- data

    def now_us(self) -> int:
        """Wall time, the same during the whole turn."""
        if not self._now_us:
            self._now_us = self.engine.clock.now_us()
        return self._now_us

    def read(self, key: bytes) -> bytes | None:
        """The value as this turn sees it."""
        if self.overlay is not None and key in self.overlay:
            return self.overlay[key]
        if self.cleared:
            return None
        instance = self.instance
        if instance.cache is not None and key in instance.cache:
            return instance.cache[key]
        value = self.engine.store.get(instance.data + key)
        instance.remember(key, value)
        return value

    def write(self, key: bytes, value: bytes) -> None:
        """Lay a value over the stored one.

        Raises:
            StorageLimitError: when the turn's writes pass 16 MiB or the disk is nearly full.
        """
        if self.engine.disk_full:
            raise StorageLimitError("the disk is nearly full: free some space; reads and deletes go on", disk=True)
        self.size += len(key) + len(value) + ROW_OVERHEAD_BYTES
        if self.size > TURN_BYTES:
            raise StorageLimitError(f"a turn writes at most {TURN_BYTES} bytes; split the work over several")
        if self.overlay is None:
            self.overlay = {}
        self.overlay[key] = value
        self.wrote = True

    def write_many(self, rows: list[tuple[bytes, bytes]]) -> None:
        """Lay several values over, all or none.

        Raises:
            StorageLimitError: as `write`.
        """
        if self.size + sum(len(k) + len(v) + ROW_OVERHEAD_BYTES for k, v in rows) > TURN_BYTES:
            raise StorageLimitError(f"a turn writes at most {TURN_BYTES} bytes; split the work over several")
        for key, value in rows:
            self.write(key, value)

    def remove(self, key: bytes) -> bool:
        """Hide a key; True if it was there."""
        there = self.read(key) is not None
        if there:
            if self.overlay is None:
                self.overlay = {}
            self.overlay[key] = None
            self.wrote = True
        return there

    def rows(self, low: bytes, high: bytes | None, reverse: bool, limit: int, bound: int) -> list[tuple[bytes, bytes]]:
        """Keys and values of [low, high) as this turn sees them: at most `limit`, and until they pass `bound` bytes."""
        ours = [
            (key, value)
            for key, value in sorted((self.overlay or {}).items(), reverse=reverse)
            if key >= low and (high is None or key < high)
        ]
        if high is not None and high <= low:
            return []
        data = self.instance.data
        end = range_end(data) if high is None else data + high
        stored = iter(()) if self.cleared else self.engine.store.rows(data + low, end, reverse)
        cut = len(data)
        return merged(((key[cut:], value) for key, value in stored), ours, reverse, limit, bound)

    def delete_all(self, *, keep_alarm: bool) -> None:
        """Hide every row, the alarm unless it is kept, and the outbox."""
        self.overlay = {}
        self.cleared = True
        self.sends = None
        self.size = 0
        self.wrote = True
        if not keep_alarm:
            self.alarm = None

    def savepoint(self) -> tuple[Any, ...]:
        """What `rollback` goes back to."""
        overlay = None if self.overlay is None else dict(self.overlay)
        sends = None if self.sends is None else list(self.sends)
        return overlay, self.cleared, self.alarm, sends, self.size

    def rollback(self, savepoint: tuple[Any, ...]) -> None:
        """Discard what was written since the savepoint; `wrote` stays: the object's fields may tell of it."""
        self.overlay, self.cleared, self.alarm, self.sends, self.size = savepoint

    # --- alarm and messages

    def set_alarm(self, due_us: int) -> None:
        """Replace the alarm."""
        self.alarm = due_us
        self.wrote = True

    def delete_alarm(self) -> None:
        """Delete the alarm."""
        self.alarm = None
        self.wrote = True

    def get_alarm(self) -> int | None:
        """When the alarm runs next, as this turn sees it."""
        if self.alarm is not UNCHANGED:
            return self.alarm  # type: ignore[no-any-return]
        row = self.engine.alarms.row(self.instance)
        return None if row is None or row.parked else row.next_us

    def send(self, receiver: ActorId, method: str, body: bytes) -> None:
        """Add a message to the batch.

        Raises:
            StorageLimitError: as `write`.
        """
        if self.engine.disk_full:
            raise StorageLimitError("the disk is nearly full: free some space; reads and deletes go on", disk=True)
        self.size += len(body) + ROW_OVERHEAD_BYTES
        if self.size > TURN_BYTES:
            raise StorageLimitError(f"a turn writes at most {TURN_BYTES} bytes, messages included")
        if self.sends is None:
            self.sends = []
        self.sends.append((receiver, method, body))
        self.wrote = True
