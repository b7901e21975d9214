"""Messages as stored at their sender, and what waits for them in memory. The rules are in outbox.py."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from kubeactor.engine.instance import Instance

__all__ = ["PENDING", "UNDELIVERED", "Delivery", "Entry", "MessageRow", "Sender", "decode_message", "encode_message"]

PENDING: Final = 0
UNDELIVERED: Final = 1

REPLY_WAITS_S: Final = 1.0

Pair = tuple[str, bytes]


class MessageRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message as stored.

    Attributes:
        stage: PENDING or UNDELIVERED; what is parked lies elsewhere.
        attempts: counted tries to deliver it.
        next_us: when it is tried next; of a parked one, since when it is.
        error: of the last try, as a problem document.
        told: failed runs of the sender's `undelivered`.
    """

    binding: str
    identity: bytes
    method: str
    body: bytes
    stage: int = PENDING
    attempts: int = 0
    next_us: int = 0
    error: bytes = b""
    told: int = 0


encode_message = msgspec.msgpack.Encoder().encode
decode_message = msgspec.msgpack.Decoder(MessageRow).decode


class Delivery:
    """A reply that waits for the messages of its turn, at most a second."""

    __slots__ = ("_finish", "_left", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, messages: int, finish: Callable[[], None]) -> None:
        self._left = messages
        self._finish: Callable[[], None] | None = finish
        self._timer = loop.call_later(REPLY_WAITS_S, self._end)

    def one_ended(self) -> None:
        """One of the messages was delivered, ended, or has to wait for others."""
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

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.row.body) + 256

    def end(self) -> None:
        """Tell the reply that waits for it."""
        if self.delivery is not None:
            self.delivery.one_ended()
            self.delivery = None


class Sender:
    """The messages of one instance that are in memory.

    Attributes:
        key, shard: of the instance, whose record in memory may come and go meanwhile.
        pairs: messages to deliver, in order, by receiver.
        messages: how many there are, those in `pairs` and those whose `undelivered` has to run.
        loaded: the highest number that was taken into memory.
        partial: whether there are more on disk, above it.
    """

    __slots__ = ("key", "loaded", "messages", "pairs", "partial", "shard")

    def __init__(self, instance: Instance) -> None:
        self.key = instance.key
        self.shard = instance.shard
        self.pairs: dict[Pair, deque[Entry]] = {}
        self.messages = 0
        self.loaded = 0
        self.partial = False
