"""Messages: rows of the sender's batch, delivered after the sync, in order per pair, applied once.

The receiver keeps the last number per sender in its own batch (results.py), so a delivery may be tried again after
any crash. A number that it has passed without effect (a `Problem`, or the tenth counted failure) is stored there too,
so the sender learns the same end however often it asks. Nothing is ended on an unknown outcome.

A message is PENDING until it is delivered, or ended without effect: then it is UNDELIVERED until the sender's
`undelivered` has run, and parked if that can't be. All rows are on disk; a bounded part is in memory, always the
oldest of its sender, and never one whose batch is not synced.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kubeactor import codec
from kubeactor.actor import Actor, Message
from kubeactor.call import CODEC, DAY, MESSAGE, Call, CallId
from kubeactor.engine.backoff import backoff_s, counts
from kubeactor.engine.instance import Instance
from kubeactor.engine.layout import NUMBER, OUTBOX, instance_key, numbered_key, range_end, shard_prefix
from kubeactor.engine.messages import (
    PENDING,
    UNDELIVERED,
    Entry,
    MessageRow,
    Pair,
    Sender,
    decode_message,
    encode_message,
)
from kubeactor.engine.store import StoreError, WriteBatch, new_batch
from kubeactor.engine.system import SystemCall
from kubeactor.engine.turn import Turn
from kubeactor.errors import ActorError, Problem, from_document, to_document
from kubeactor.ids import ActorId, shard_of
from kubeactor.limits import CALL_DEFAULT_S, CALL_MAX_S, MESSAGE_ATTEMPTS, METHOD_TIMEOUT_S
from kubeactor.scope import instance_text

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["Outbox"]

# What is in memory; the rest waits on disk: senders of a host, messages of a sender, bytes of all together.
SENDERS: Final = 4000
MESSAGES: Final = 1000
BYTES: Final = 64 * 1024 * 1024
UNKNOWN_RETRY_S: Final = 0.05
STALLED_RETRY_S: Final = 0.01

log = logging.getLogger("kubeactor.outbox")


class Outbox:
    """The messages of a host's instances.

    Attributes:
        delivered, failed: counters since start.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._senders: dict[bytes, Sender] = {}
        self._bytes = 0
        # By instance: the messages of each of its batches that wait for their sync.
        self._unsynced: dict[bytes, deque[list[Entry]]] = {}
        # By shard: the row from which on senders on disk have not been looked at.
        self._unread: dict[int, bytes] = {}
        self._last: dict[bytes, int] = {}
        self._loading = False
        self.delivered = 0
        self.failed = 0

    # --- the sender's batch

    def commit(self, batch: WriteBatch, turn: Turn) -> list[Entry]:
        """Put a turn's messages into its batch."""
        instance = turn.instance
        if turn.cleared:
            low = numbered_key(instance.shard, OUTBOX, instance.key, 0)
            self._engine.store.clear(batch, low, range_end(low[:-8]))
            self._engine.parked.clear_messages(batch, instance)
        if not turn.sends:
            return []
        entries = [
            Entry(number, MessageRow(receiver.binding, receiver.identity, method, body))
            for number, (receiver, method, body) in enumerate(turn.sends, self._last_number(instance) + 1)
        ]
        self._put(batch, instance, entries)
        return entries

    def _put(self, batch: WriteBatch, instance: Instance, entries: list[Entry]) -> None:
        for entry in entries:
            batch.put(numbered_key(instance.shard, OUTBOX, instance.key, entry.number), encode_message(entry.row))
        last = entries[-1].number
        batch.put(instance_key(instance.shard, NUMBER, instance.key), last.to_bytes(8, "big"))
        self._last[instance.key] = last

    def _last_number(self, instance: Instance) -> int:
        if (known := self._last.get(instance.key)) is not None:
            return known
        raw = self._engine.store.get(instance_key(instance.shard, NUMBER, instance.key))
        return 0 if raw is None else int.from_bytes(raw, "big")

    def written(self, turn: Turn, entries: list[Entry], batch: int) -> None:
        """The turn's batch was written: deliver after its sync."""
        if turn.cleared:
            self._forget(turn.instance.key)
        if entries:
            self._deliver_later(turn.instance, entries, batch)

    def _deliver_later(self, instance: Instance, entries: list[Entry], batch: int) -> None:
        self._unsynced.setdefault(instance.key, deque()).append(entries)
        self._engine.gate.after(batch, lambda: self._accept(instance, entries))

    def _forget(self, key: bytes) -> None:
        """Everything of that instance was deleted."""
        sender = self._senders.get(key)
        waiting = [entry for entries in self._unsynced.pop(key, ()) for entry in entries]
        if sender is not None:
            del self._senders[key]
            known = [entry for pair in sender.pairs.values() for entry in pair]
            self._bytes -= sum(entry.size for entry in known)
            waiting += known
            self._load_soon()
        self._last.pop(key, None)
        for entry in waiting:
            entry.end()

    # --- memory

    def _accept(self, instance: Instance, entries: list[Entry]) -> None:
        """Their batch is on disk."""
        key = instance.key
        waiting = self._unsynced.get(key)
        if not waiting or waiting[0] is not entries:
            return  # deleted meanwhile
        waiting.popleft()
        if not waiting:
            del self._unsynced[key]
        sender = self._senders.get(key)
        if sender is None and self._stays_on_disk(instance):
            self._last.pop(key, None)
            for entry in entries:
                entry.end()
            return
        if sender is None:
            sender = self._senders[key] = Sender(instance)
        self._take(sender, self._fitting(sender, entries))

    def _stays_on_disk(self, instance: Instance) -> bool:
        """Whether a sender that is not in memory has to wait: for earlier messages of its own, or for room."""
        row = numbered_key(instance.shard, OUTBOX, instance.key, 0)
        unread = self._unread.get(instance.shard)
        if unread is not None and unread <= row:
            return True
        if len(self._senders) < SENDERS and self._bytes < BYTES:
            return False
        self._unread[instance.shard] = row
        return True

    def _full(self, sender: Sender) -> bool:
        return sender.messages >= MESSAGES or (sender.messages > 0 and self._bytes >= BYTES)

    def _fitting(self, sender: Sender, entries: list[Entry]) -> Iterator[Entry]:
        for entry in entries:
            if sender.partial or self._full(sender):
                sender.partial = True  # it is read from disk when its turn comes
                entry.end()
            else:
                yield entry

    def _take(self, sender: Sender, entries: Iterable[Entry]) -> None:
        """Into memory first, all of them, then on their way: an answer may come before a delivery returns."""
        heads: list[Pair] = []
        refused: list[Entry] = []
        for entry in entries:
            sender.messages += 1
            sender.loaded = entry.number
            if entry.row.stage == UNDELIVERED:
                refused.append(entry)
                continue
            self._bytes += entry.size
            key = (entry.row.binding, entry.row.identity)
            if (pair := sender.pairs.get(key)) is not None:
                pair.append(entry)
            else:
                sender.pairs[key] = deque([entry])
                heads.append(key)
        for key in heads:
            self._deliver(sender, key)
        for entry in refused:
            self._tell(sender, entry)

    def _refill(self, sender: Sender) -> None:
        """Take up what a sender has on disk above what is in memory, as far as it is synced."""
        if self._alive(sender):
            self._take(sender, self._on_disk(sender))
            self._forget_if_idle(sender)

    def _on_disk(self, sender: Sender) -> Iterator[Entry]:
        low = numbered_key(sender.shard, OUTBOX, sender.key, sender.loaded + 1)
        end = range_end(low[:-8])
        if waiting := self._unsynced.get(sender.key):
            end = numbered_key(sender.shard, OUTBOX, sender.key, waiting[0][0].number)
        sender.partial = True
        for key, raw in self._engine.store.rows(low, end):
            if self._full(sender):
                return
            yield Entry(int.from_bytes(key[-8:], "big"), decode_message(raw))
        sender.partial = False

    def load(self, shards: list[int]) -> None:
        """Take up the messages that these shards' instances have not got rid of yet."""
        for shard in shards:
            self._unread[shard] = shard_prefix(shard, OUTBOX)
        self._load()

    def unload(self, shard: int) -> None:
        """Forget a shard that is not ours any more."""
        self._unread.pop(shard, None)
        for key in [key for key, sender in self._senders.items() if sender.shard == shard]:
            self._forget(key)

    def _load_soon(self) -> None:
        if self._unread and not self._loading:
            self._loading = True
            self._engine.loop.call_soon(self._load)

    def _load(self) -> None:
        """Look for senders on disk while there is room."""
        self._loading = False
        engine = self._engine
        if engine.stopping or not engine.background:  # what is sent meanwhile stays behind the unread on disk
            return
        try:
            while self._unread and len(self._senders) < SENDERS and self._bytes < BYTES:
                self._load_sender(*next(iter(self._unread.items())))
        except StoreError as error:
            engine.fail(str(error))

    def _load_sender(self, shard: int, low: bytes) -> None:
        first = next(self._engine.store.rows(low, range_end(shard_prefix(shard, OUTBOX))), None)
        if first is None:
            del self._unread[shard]
            return
        row = first[0]
        key = row[3:-9]
        self._unread[shard] = range_end(row[:-8])
        instance = self._engine.instance_of_key(key, shard)
        if instance is not None and key not in self._senders:
            sender = self._senders[key] = Sender(instance)
            self._refill(sender)

    def _one_less(self, sender: Sender) -> None:
        sender.messages -= 1
        if sender.partial and sender.messages <= MESSAGES // 2:
            self._engine.loop.call_soon(self._refill, sender)
        self._forget_if_idle(sender)

    def _forget_if_idle(self, sender: Sender) -> None:
        if not sender.messages and not sender.partial and self._senders.get(sender.key) is sender:
            del self._senders[sender.key]
            if sender.key not in self._unsynced:
                self._last.pop(sender.key, None)
            self._load_soon()

    def _alive(self, sender: Sender) -> bool:
        return self._senders.get(sender.key) is sender and not self._engine.stopping

    # --- delivery

    def _deliver(self, sender: Sender, key: Pair) -> None:
        """Send the head of a pair, or wait until it is time to."""
        pair = sender.pairs.get(key)
        if not pair or not self._alive(sender):
            return
        entry = pair[0]
        engine = self._engine
        if entry.row.next_us > engine.clock.now_us():
            engine.clock.wake_at(engine.loop, entry.row.next_us, self._deliver, sender, key)
            return
        binding, identity = key
        call = Call(
            binding,
            identity,
            entry.row.method,
            entry.row.body,
            shard=shard_of(identity, engine.shards),
            deadline=engine.clock.monotonic() + CALL_DEFAULT_S,
            reply=lambda outcome: self._answered(sender, key, entry, outcome),
            format=CODEC,
            id=CallId(MESSAGE, sender.key, entry.row.attempts, entry.number),
            bucket=DAY,
            repeat=True,
            internal=True,
        )
        call.root = call.token()
        engine.dispatcher.submit(call)

    def _answered(self, sender: Sender, key: Pair, entry: Entry, outcome: bytes | ActorError) -> None:
        if not self._alive(sender):
            return
        if not isinstance(outcome, ActorError):
            self.delivered += 1
            self._change(sender, entry, None, lambda: self._ended(sender, key))
            return
        if not counts(outcome):
            delay = UNKNOWN_RETRY_S if outcome.started == "unknown" else float(outcome.retry_after_s or 1)
            self._engine.clock.call_later(self._engine.loop, delay, self._deliver, sender, key)
            return
        self.failed += 1
        attempts = entry.row.attempts + 1
        row = msgspec.structs.replace(entry.row, attempts=attempts, error=to_document(outcome))
        if isinstance(outcome, Problem) or attempts >= MESSAGE_ATTEMPTS:
            # On disk before the next one of the pair leaves, or before `undelivered` does anything: otherwise, after
            # a power loss here, this one would be sent again to a receiver that has passed its number.
            row = msgspec.structs.replace(row, stage=UNDELIVERED, next_us=0)
            gate = self._engine.gate
            self._change(sender, entry, row, lambda: gate.after(gate.written, lambda: self._refused(sender, key)))
        else:
            row = msgspec.structs.replace(row, next_us=self._due_us(attempts))
            self._change(sender, entry, row, lambda: self._deliver(sender, key))

    def _due_us(self, failures: int) -> int:
        return self._engine.clock.now_us() + int(backoff_s(failures) * 1e6)

    def _change(self, sender: Sender, entry: Entry, row: MessageRow | None, then: Callable[[], None]) -> None:
        """Change a message's row in a system batch; None deletes it."""
        name = numbered_key(sender.shard, OUTBOX, sender.key, entry.number)

        def fill(batch: WriteBatch) -> None:
            if row is None:
                batch.delete(name)
            else:
                batch.put(name, encode_message(row))
                entry.row = row

        self._write(sender, fill, then)

    def _write(self, sender: Sender, fill: Callable[[WriteBatch], None], then: Callable[[], None]) -> None:
        """Write a batch, but not behind one of the sender's that waits for the disk: it may delete all messages."""
        engine = self._engine
        if engine.commits.stalled:
            engine.loop.call_later(STALLED_RETRY_S, self._write, sender, fill, then)
        elif self._alive(sender):
            batch = new_batch()
            fill(batch)
            engine.system_write(batch, then, None)

    def _pop(self, sender: Sender, key: Pair) -> Entry:
        entry = sender.pairs[key].popleft()
        self._bytes -= entry.size
        entry.end()
        if sender.pairs[key]:
            # Not at once: a thousand answers that are ready would be a thousand frames deep.
            self._engine.loop.call_soon(self._deliver, sender, key)
        else:
            del sender.pairs[key]
        return entry

    def _ended(self, sender: Sender, key: Pair) -> None:
        if self._alive(sender):
            self._pop(sender, key)
            self._one_less(sender)

    def _refused(self, sender: Sender, key: Pair) -> None:
        if self._alive(sender):
            self._tell(sender, self._pop(sender, key))

    # --- undelivered

    def _tell(self, sender: Sender, entry: Entry) -> None:
        """Run the sender's `undelivered` when it is time to; park the message if there is none."""
        if not self._alive(sender):
            return
        engine = self._engine
        instance = engine.instance_of_key(sender.key, sender.shard)
        assert instance is not None, "the binding of a sender in memory is declared"
        if not instance.type.has_undelivered:
            self._park(sender, entry)
            return
        if entry.row.next_us > engine.clock.now_us():
            engine.clock.wake_at(engine.loop, entry.row.next_us, self._tell, sender, entry)
            return
        deadline = engine.clock.monotonic() + CALL_MAX_S * 100
        engine.admit(instance, UndeliveredCall(self, instance, sender, entry, deadline))

    def told(self, sender: Sender) -> None:
        """`undelivered` has run."""
        if self._alive(sender):
            self._one_less(sender)

    def tell_failed(self, sender: Sender, entry: Entry, error: ActorError) -> None:
        """`undelivered` is tried again, or the message parked."""
        if not self._alive(sender):
            return
        if not counts(error):
            delay = float(error.retry_after_s or 1)
            self._engine.clock.call_later(self._engine.loop, delay, self._tell, sender, entry)
            return
        told = entry.row.told + 1
        if told >= MESSAGE_ATTEMPTS:
            self._park(sender, entry)
            return
        row = msgspec.structs.replace(entry.row, told=told, next_us=self._due_us(told))
        self._change(sender, entry, row, lambda: self._tell(sender, entry))

    # --- parked

    def _park(self, sender: Sender, entry: Entry) -> None:
        engine = self._engine
        log.warning("message %d of %s is parked", entry.number, instance_text(sender.key))
        instance = engine.instance_of_key(sender.key, sender.shard)
        assert instance is not None
        parked = engine.parked.key(instance, entry.number)
        row = msgspec.structs.replace(entry.row, next_us=engine.clock.now_us())

        def fill(batch: WriteBatch) -> None:
            batch.delete(numbered_key(sender.shard, OUTBOX, sender.key, entry.number))
            batch.put(parked, encode_message(row))
            engine.parked.messages += 1

        self._write(sender, fill, lambda: self.told(sender))

    def release(self, instance: Instance, number: int) -> bool:
        """Send a parked message again, by hand, under a new number; False if there is none."""
        engine = self._engine
        parked = engine.parked.key(instance, number)
        raw = engine.store.get(parked)
        if raw is None or not number:
            return False
        row = msgspec.structs.replace(decode_message(raw), stage=PENDING, attempts=0, next_us=0, error=b"", told=0)
        entries = [Entry(self._last_number(instance) + 1, row)]
        batch = new_batch()
        batch.delete(parked)
        self._put(batch, instance, entries)
        engine.parked.messages -= 1
        engine.system_write(batch, lambda: self._deliver_later(instance, entries, instance.batch), instance)
        return True

    @property
    def pending_in_memory(self) -> int:
        """Messages in memory, and shards that were not read to their end, for metrics and tests that wait for none."""
        unsynced = sum(len(entries) for batches in self._unsynced.values() for entries in batches)
        return sum(sender.messages for sender in self._senders.values()) + unsynced + len(self._unread)


class UndeliveredCall(SystemCall):
    """The sender's `undelivered` hook; deletes the message in its batch, so it is applied once."""

    __slots__ = ("_entry", "_outbox", "_sender")

    def __init__(self, outbox: Outbox, instance: Instance, sender: Sender, entry: Entry, deadline: float) -> None:
        super().__init__(instance, "undelivered", number=entry.number, deadline=deadline, timeout_s=METHOD_TIMEOUT_S)
        self._outbox = outbox
        self._sender = sender
        self._entry = entry
        self.target = instance

    def current(self) -> bool:
        """Whether the message was not deleted while this was queued."""
        return self._outbox._alive(self._sender)

    def begin(self, actor: Actor, turn: Turn) -> Coroutine[Any, Any, Any]:
        """The hook."""
        row = self._entry.row
        args, kwargs = codec.decode(row.body)
        receiver = str(ActorId(row.binding, row.identity))
        message = Message(receiver, row.method, tuple(args), kwargs, self._entry.number, row.attempts)
        return actor.undelivered(message, from_document(row.error))

    def commit(self, turn: Turn, batch: WriteBatch) -> None:
        """The message is dealt with."""
        batch.delete(numbered_key(turn.instance.shard, OUTBOX, turn.instance.key, self._entry.number))

    def committed(self, turn: Turn) -> None:
        """As is its place in memory."""
        self._outbox.told(self._sender)

    def failed(self, error: ActorError) -> None:
        """It is tried again, or parked."""
        self._outbox.tell_failed(self._sender, self._entry, error)
