"""What is kept for a person to look at: alarms that failed ten times, messages that nobody took back.

One row each under its own kind, so that a listing reads nothing else and the outbox never meets a parked message. An
alarm's row is only a mark: the alarm itself stays where it was, as the next `set_alarm` has to see it.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from kubeactor.engine.instance import Instance
from kubeactor.engine.layout import PARKED, numbered_key, range_end, shard_prefix
from kubeactor.engine.messages import decode_message
from kubeactor.engine.store import WriteBatch
from kubeactor.errors import ActorArgumentError, ActorOverloadedError, from_document
from kubeactor.ids import ActorId, shard_of
from kubeactor.parked import ALARM, MESSAGE, Item, Retry

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["Parked"]

LISTED: Final = 500
ERROR_CHARS: Final = 500
# The number of an alarm's mark; messages count from 1.
ALARM_NUMBER: Final = 0


class Parked:
    """The parked alarms and messages of a host.

    Attributes:
        alarms, messages: how many there are.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.alarms = 0
        self.messages = 0

    def load(self, shards: list[int]) -> None:
        """Count those of these shards."""
        for shard in shards:
            prefix = shard_prefix(shard, PARKED)
            for key, _ in self._engine.store.rows(prefix, range_end(prefix)):
                if int.from_bytes(key[-8:], "big") == ALARM_NUMBER:
                    self.alarms += 1
                else:
                    self.messages += 1

    def key(self, instance: Instance, number: int = ALARM_NUMBER) -> bytes:
        """The row's name."""
        return numbered_key(instance.shard, PARKED, instance.key, number)

    def clear_messages(self, batch: WriteBatch, instance: Instance) -> None:
        """Add the deletion of an instance's parked messages to a batch."""
        low, end = self.key(instance, ALARM_NUMBER + 1), range_end(self.key(instance)[:-8])
        for key, _ in self._engine.store.rows(low, end):
            batch.delete(key)
            self.messages -= 1

    def items(self) -> list[Item]:
        """At most 500 of them."""
        found: list[Item] = []
        for shard in self._engine.epochs:
            prefix = shard_prefix(shard, PARKED)
            for key, raw in islice(self._engine.store.rows(prefix, range_end(prefix)), LISTED - len(found)):
                item = self._item(shard, key[len(prefix) : -9], int.from_bytes(key[-8:], "big"), raw)
                if item is not None:
                    found.append(item)
        return found

    def _item(self, shard: int, key: bytes, number: int, raw: bytes) -> Item | None:
        binding, _, identity = key.partition(b"\0")
        actor = str(ActorId(binding.decode(), identity))
        if number != ALARM_NUMBER:
            row = decode_message(raw)
            error = from_document(row.error) if row.error else None
            text = f"{error.name}: {error.detail}"[:ERROR_CHARS] if error else ""
            receiver = str(ActorId(row.binding, row.identity))
            return Item(MESSAGE, actor, number, row.attempts, text, row.next_us / 1e6, receiver, row.method)
        alarm = self._engine.alarms.stored(shard, key)
        if alarm is None:
            return None
        return Item(ALARM, actor, ALARM_NUMBER, alarm.retries, alarm.error, alarm.next_us / 1e6)

    def retry(self, retry: Retry) -> bool:
        """Try a parked alarm or message again; False when there is none.

        Raises:
            ActorArgumentError: when the instance is no actor id.
            ActorOverloadedError: when batches wait for the disk, among them perhaps one of this instance.
        """
        if self._engine.commits.stalled:
            raise ActorOverloadedError("the disk is behind: try again later")
        try:
            binding, identity = ActorId.parse(retry.instance)
        except ValueError as error:
            raise ActorArgumentError(str(error)) from error
        shard = shard_of(identity, self._engine.shards)
        if shard not in self._engine.epochs:
            return False
        instance = self._engine.instance_of_key(b"%b\0%b" % (binding.encode(), identity), shard)
        if instance is None:
            return False
        if retry.kind == ALARM:
            return self._engine.alarms.release(instance)
        return retry.kind == MESSAGE and self._engine.outbox.release(instance, retry.number)
