"""Messages: rows of the sender's batch, delivered after the sync, in order per pair, applied once.

The receiver keeps the last number per sender in its own batch (results.py), so a delivery may be tried again after
any crash. A number that it has passed without effect (a `Problem`, or the tenth counted failure) is stored there too,
so the sender learns the same end however often it asks. Nothing is ended on an unknown outcome.

stage        meaning
PENDING      to be delivered
UNDELIVERED  ended without effect; the sender's `undelivered` has to run
PARKED       kept and listed until it is retried by hand, under a new number
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kubeactor import codec
from kubeactor.actor import Actor, Message
from kubeactor.call import CODEC, DAY, MESSAGE, Call, CallId
from kubeactor.engine.backoff import backoff_s
from kubeactor.engine.instance import Instance
from kubeactor.engine.layout import NUMBER, OUTBOX, instance_key, range_end, shard_prefix
from kubeactor.engine.store import WriteBatch, new_batch
from kubeactor.engine.system import SystemCall
from kubeactor.engine.turn import Turn
from kubeactor.errors import ActorError, ActorMethodTimeoutError, Problem, from_wire
from kubeactor.ids import ActorId, shard_of
from kubeactor.limits import CALL_DEFAULT_S, CALL_MAX_S, MESSAGE_ATTEMPTS, METHOD_TIMEOUT_S

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["MessageRow", "Outbox"]

PENDING: Final = 0
UNDELIVERED: Final = 1
PARKED: Final = 2

# Senders of a host and messages of a sender that are in memory; the others wait on disk.
SENDERS: Final = 1000
MESSAGES: Final = 1000
REPLY_WAITS_S: Final = 1.0
UNKNOWN_RETRY_S: Final = 0.05
# Errors that tell nothing about the message itself: it is tried again, uncounted, as long as it takes.
UNCOUNTED: Final = frozenset(
    {
        "ActorFencedError",
        "ActorOutputGateError",
        "ActorOverloadedError",
        "ActorQuarantinedError",
        "ActorShardUnavailableError",
    }
)

log = logging.getLogger("kubeactor.outbox")


class MessageRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message as stored at its sender."""

    binding: str
    identity: bytes
    method: str
    body: bytes
    stage: int = PENDING
    attempts: int = 0
    next_us: int = 0
    error: dict[str, Any] | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(MessageRow).decode


def counted(error: ActorError) -> bool:
    """Whether a failed delivery counts towards the ten: the receiver's code had its chance."""
    if isinstance(error, ActorMethodTimeoutError) and error.started == "no":
        return False
    return error.name not in UNCOUNTED and error.started != "unknown" and not error.overloaded


class Delivery:
    """A reply that waits for the messages of its turn, at most a second."""

    __slots__ = ("_finish", "_left", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, messages: int, finish: Callable[[], None]) -> None:
        self._left = messages
        self._finish: Callable[[], None] | None = finish
        self._timer = loop.call_later(REPLY_WAITS_S, self._end)

    def one_ended(self) -> None:
        """One of the messages was delivered or ended."""
        self._left -= 1
        if self._left == 0:
            self._end()

    def _end(self) -> None:
        self._timer.cancel()
        if (finish := self._finish) is not None:
            self._finish = None
            finish()


class Entry:
    """A message in memory."""

    __slots__ = ("delivery", "number", "row")

    def __init__(self, number: int, row: MessageRow, delivery: Delivery | None = None) -> None:
        self.number = number
        self.row = row
        self.delivery = delivery

    def end(self) -> None:
        """Tell the reply that waits for it."""
        if self.delivery is not None:
            self.delivery.one_ended()
            self.delivery = None


class Sender:
    """The messages of one instance that are in memory, by receiver.

    Attributes:
        partial: whether there are more on disk.
        batch: number of the last batch that added one.
    """

    __slots__ = ("instance", "jobs", "messages", "pairs", "partial")

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.pairs: dict[tuple[str, bytes], deque[Entry]] = {}
        self.messages = 0
        self.jobs = 0
        self.partial = False


class Outbox:
    """The messages of a host's instances."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._senders: dict[bytes, Sender] = {}
        self._unread: dict[int, bytes] = {}
        self._last: dict[bytes, int] = {}
        self.delivered = 0
        self.failed = 0
        self.parked = 0

    # --- the sender's batch

    def commit(self, batch: WriteBatch, turn: Turn) -> list[Entry]:
        """Put a turn's messages into its batch."""
        instance = turn.instance
        entries: list[Entry] = []
        if turn.cleared:
            low = self._row_prefix(instance)
            self._engine.store.clear(batch, low, range_end(low))
        if turn.sends:
            number = self._last_number(instance)
            for receiver, method, body in turn.sends:
                number += 1
                entry = Entry(number, MessageRow(receiver.binding, receiver.identity, method, body))
                batch.put(self._row_key(instance, number), _encode(entry.row))
                entries.append(entry)
            self._put_number(batch, instance, number)
        return entries

    def written(self, turn: Turn, entries: list[Entry], number: int) -> None:
        """The batch was written: deliver after its sync."""
        instance = turn.instance
        if turn.cleared and (sender := self._senders.pop(instance.key, None)) is not None:
            for pair in sender.pairs.values():
                for entry in pair:
                    entry.end()
        if entries:
            self._last[instance.key] = entries[-1].number
            self._engine.gate.after(number, lambda: self._accept(instance, entries))

    def _last_number(self, instance: Instance) -> int:
        if (known := self._last.get(instance.key)) is not None:
            return known
        raw = self._engine.store.get(instance_key(instance.shard, NUMBER, instance.key))
        return 0 if raw is None else int.from_bytes(raw, "big")

    def _put_number(self, batch: WriteBatch, instance: Instance, number: int) -> None:
        batch.put(instance_key(instance.shard, NUMBER, instance.key), number.to_bytes(8, "big"))

    def _row_prefix(self, instance: Instance) -> bytes:
        return instance_key(instance.shard, OUTBOX, instance.key) + b"\0"

    def _row_key(self, instance: Instance, number: int) -> bytes:
        return self._row_prefix(instance) + number.to_bytes(8, "big")

    # --- memory

    def _accept(self, instance: Instance, entries: list[Entry]) -> None:
        sender = self._senders.get(instance.key)
        if sender is None:
            sender = self._senders[instance.key] = Sender(instance)
        for entry in entries:
            if sender.partial or sender.messages >= MESSAGES:
                sender.partial = True
                entry.end()
            else:
                self._push(sender, entry)

    def _push(self, sender: Sender, entry: Entry) -> None:
        sender.messages += 1
        key = (entry.row.binding, entry.row.identity)
        pair = sender.pairs.get(key)
        if pair is None:
            sender.pairs[key] = deque([entry])
            self._deliver(sender, key)
        else:
            pair.append(entry)

    def load(self, shards: list[int]) -> None:
        """Take up the messages that these shards' instances have not got rid of yet."""
        for shard in shards:
            self._unread[shard] = shard_prefix(shard, OUTBOX)
        self._load_more()

    def unload(self, shard: int) -> None:
        """Forget a shard that is not ours any more."""
        self._unread.pop(shard, None)
        for key in [key for key, sender in self._senders.items() if sender.instance.shard == shard]:
            del self._senders[key]

    def _load_more(self) -> None:
        while self._unread and len(self._senders) < SENDERS:
            shard, low = next(iter(self._unread.items()))
            end = range_end(shard_prefix(shard, OUTBOX))
            first = next(self._engine.store.rows(low, end), None)
            if first is None:
                del self._unread[shard]
                continue
            key = first[0][3:-9]
            instance = self._engine.instance_of_key(key, shard)
            self._unread[shard] = range_end(first[0][:-8])
            if instance is not None and key not in self._senders:
                self._load_sender(Sender(instance))

    def _load_sender(self, sender: Sender) -> None:
        instance = sender.instance
        self._senders[instance.key] = sender
        sender.partial = False
        for number, row in list(self._rows(instance)):
            if row.stage == PARKED:
                self.parked += 1
            elif sender.messages >= MESSAGES:
                sender.partial = True
                break
            elif row.stage == UNDELIVERED:
                sender.messages += 1
                self._tell_later(sender, Entry(number, row))
            else:
                self._push(sender, Entry(number, row))
        self._forget_if_idle(sender)

    def _rows(self, instance: Instance) -> Iterator[tuple[int, MessageRow]]:
        low = self._row_prefix(instance)
        for key, raw in self._engine.store.rows(low, range_end(low)):
            yield int.from_bytes(key[-8:], "big"), _decode(raw)

    def _forget_if_idle(self, sender: Sender) -> None:
        if sender.messages or self._senders.get(sender.instance.key) is not sender:
            return
        del self._senders[sender.instance.key]
        self._last.pop(sender.instance.key, None)
        if sender.partial:
            self._load_sender(Sender(sender.instance))
        elif self._unread:
            self._load_more()

    def _alive(self, sender: Sender) -> bool:
        return self._senders.get(sender.instance.key) is sender and not self._engine.stopping

    # --- delivery

    def _deliver(self, sender: Sender, key: tuple[str, bytes]) -> None:
        """Send the head of a pair, or wait until it is time to."""
        pair = sender.pairs.get(key)
        if not pair or not self._alive(sender):
            return
        entry = pair[0]
        engine = self._engine
        wait_s = (entry.row.next_us - engine.clock.now_us()) / 1e6
        if wait_s > 0:
            # In steps, so that a step of the wall clock is noticed.
            engine.loop.call_later(min(wait_s, 1.0), self._deliver, sender, key)
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
            id=CallId(MESSAGE, sender.instance.key, entry.row.attempts, entry.number),
            bucket=DAY,
            repeat=True,
            internal=True,
        )
        call.root = call.token()
        engine.dispatcher.submit(call)

    def _answered(self, sender: Sender, key: tuple[str, bytes], entry: Entry, outcome: bytes | ActorError) -> None:
        if not self._alive(sender):
            return
        if not isinstance(outcome, ActorError):
            self.delivered += 1
            self._write(sender, entry, None, lambda: self._next(sender, key))
        elif not counted(outcome):
            delay = UNKNOWN_RETRY_S if outcome.started == "unknown" else float(outcome.retry_after_s or 1)
            self._engine.loop.call_later(delay, self._deliver, sender, key)
        elif isinstance(outcome, Problem) or entry.row.attempts + 1 >= MESSAGE_ATTEMPTS:
            row = msgspec.structs.replace(entry.row, stage=UNDELIVERED, attempts=0, next_us=0, error=outcome.to_wire())
            self._write(sender, entry, row, lambda: self._refused(sender, key, entry))
        else:
            self.failed += 1
            attempts = entry.row.attempts + 1
            due = self._engine.clock.now_us() + int(backoff_s(attempts) * 1e6)
            row = msgspec.structs.replace(entry.row, attempts=attempts, next_us=due, error=outcome.to_wire())
            self._write(sender, entry, row, lambda: self._deliver(sender, key))

    def _write(self, sender: Sender, entry: Entry, row: MessageRow | None, then: Callable[[], None]) -> None:
        """Change a message's row in a system batch; None deletes it."""
        batch = new_batch()
        if row is None:
            batch.delete(self._row_key(sender.instance, entry.number))
        else:
            batch.put(self._row_key(sender.instance, entry.number), _encode(row))
            entry.row = row
        self._engine.system_write(batch, then, None)

    def _next(self, sender: Sender, key: tuple[str, bytes]) -> None:
        pair = sender.pairs[key]
        pair.popleft().end()
        sender.messages -= 1
        self._advance(sender, key)

    def _advance(self, sender: Sender, key: tuple[str, bytes]) -> None:
        if sender.pairs[key]:
            self._deliver(sender, key)
        else:
            del sender.pairs[key]
            self._forget_if_idle(sender)

    def _refused(self, sender: Sender, key: tuple[str, bytes], entry: Entry) -> None:
        pair = sender.pairs[key]
        pair.popleft()
        entry.end()
        self._tell_later(sender, entry)
        self._advance(sender, key)

    # --- undelivered

    def _tell_later(self, sender: Sender, entry: Entry) -> None:
        """Run the sender's `undelivered` when it is time to; park the message if there is none."""
        if not self._alive(sender):
            return
        engine = self._engine
        if not sender.instance.type.has_undelivered:
            self._park(sender, entry)
            return
        wait_s = (entry.row.next_us - engine.clock.now_us()) / 1e6
        if wait_s > 0:
            engine.loop.call_later(min(wait_s, 1.0), self._tell_later, sender, entry)
            return
        engine.admit(sender.instance, UndeliveredCall(self, sender, entry, engine.clock.monotonic() + CALL_MAX_S * 100))

    def _park(self, sender: Sender, entry: Entry) -> None:
        row = msgspec.structs.replace(entry.row, stage=PARKED)
        log.warning("message parked", extra={"sender": sender.instance.key, "number": entry.number})
        self.parked += 1
        self._write(sender, entry, row, lambda: self._told(sender))

    def _told(self, sender: Sender) -> None:
        sender.messages -= 1
        self._forget_if_idle(sender)

    def _tell_failed(self, sender: Sender, entry: Entry, error: ActorError, *, counted: bool) -> None:
        if not counted or not self._alive(sender):
            return
        attempts = entry.row.attempts + 1
        if attempts >= MESSAGE_ATTEMPTS:
            self._park(sender, entry)
            return
        due = self._engine.clock.now_us() + int(backoff_s(attempts) * 1e6)
        row = msgspec.structs.replace(entry.row, attempts=attempts, next_us=due)
        self._write(sender, entry, row, lambda: self._tell_later(sender, entry))

    # --- by hand

    def list_parked(self, shard: int) -> list[tuple[bytes, int, MessageRow]]:
        """Sender, number and row of a shard's parked messages, at most 1,000."""
        prefix = shard_prefix(shard, OUTBOX)
        found = []
        for key, raw in self._engine.store.rows(prefix, range_end(prefix)):
            if (row := _decode(raw)).stage == PARKED:
                found.append((key[len(prefix) : -9], int.from_bytes(key[-8:], "big"), row))
                if len(found) >= 1000:
                    break
        return found

    def release(self, instance: Instance, number: int) -> bool:
        """Send a parked message again, by hand, under a new number; False if there is none."""
        raw = self._engine.store.get(self._row_key(instance, number))
        if raw is None or (row := _decode(raw)).stage != PARKED:
            return False
        new_number = self._last_number(instance) + 1
        entry = Entry(new_number, msgspec.structs.replace(row, stage=PENDING, attempts=0, next_us=0, error=None))
        batch = new_batch()
        batch.delete(self._row_key(instance, number))
        batch.put(self._row_key(instance, new_number), _encode(entry.row))
        self._put_number(batch, instance, new_number)
        self._last[instance.key] = new_number
        self.parked -= 1
        self._engine.system_write(batch, lambda: self._accept(instance, [entry]), instance)
        return True

    @property
    def pending_in_memory(self) -> int:
        """Messages in memory, for the metrics and for tests that wait until all is delivered."""
        return sum(sender.messages for sender in self._senders.values()) + len(self._unread)


class UndeliveredCall(SystemCall):
    """The sender's `undelivered` hook; deletes the message in its batch, so it is applied once."""

    __slots__ = ("_entry", "_outbox", "_sender")

    def __init__(self, outbox: Outbox, sender: Sender, entry: Entry, deadline: float) -> None:
        super().__init__(
            sender.instance, "undelivered", number=entry.number, deadline=deadline, timeout_s=METHOD_TIMEOUT_S
        )
        self._outbox = outbox
        self._sender = sender
        self._entry = entry
        self.target = sender.instance

    def begin(self, actor: Actor, turn: Turn) -> Coroutine[Any, Any, Any]:
        """The hook."""
        row = self._entry.row
        args, kwargs = codec.decode(row.body)
        receiver = str(ActorId(row.binding, row.identity))
        message = Message(receiver, row.method, tuple(args), kwargs, self._entry.number, row.attempts)
        return actor.undelivered(message, from_wire(row.error or {}))

    def commit(self, turn: Turn, batch: WriteBatch) -> None:
        """The message is dealt with."""
        batch.delete(self._outbox._row_key(turn.instance, self._entry.number))

    def committed(self, turn: Turn) -> None:
        """As is its place in memory."""
        self._outbox._told(self._sender)

    def failed(self, error: ActorError, *, counted: bool) -> None:
        """It is tried again, or parked."""
        self._outbox._tell_failed(self._sender, self._entry, error, counted=counted)
