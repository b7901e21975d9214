"""Applied once: the results of calls, recorded in the batch of the turn that made them.

id        row                     recorded                       looked up                 deleted
SESSION   s session slot          if the turn wrote              for repeats               with its session
CLIENT    k day instance key      always, unless it raised       always                    a day at a time, after 24 h
DERIVED   r bucket digest         if the turn wrote              for repeats               a bucket at a time
          h day digest            the same, under a root that is retried for a day
MESSAGE   i instance sender       always                         always                    never
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import xxhash

from kubeactor.call import CLIENT, DAY, DERIVED, MESSAGE, SESSION, Call
from kubeactor.engine import layout
from kubeactor.engine.instance import Instance
from kubeactor.engine.store import Store, WriteBatch
from kubeactor.errors import (
    ActorError,
    ActorFencedError,
    ActorQuotaError,
    IdempotencyConflictError,
    from_document,
    to_document,
)
from kubeactor.limits import RESULTS_PER_INSTANCE

if TYPE_CHECKING:
    from kubeactor.clock import Clock

__all__ = ["Results"]

# Of the volume, what results under client keys may take in all.
KEYED_SHARE: Final = 4
HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
# What is recorded for a day is kept an hour longer, for a clock that is set forward meanwhile.
KEPT_S: Final = DAY_S + HOUR_S
BUCKET_S: Final = 600
# A root call lives 300 s at most; another bucket for the skew of clocks between ingress and host.
BUCKETS_KEPT: Final = 3
CONFLICT: Final = "this id was used for another call: use a new Idempotency-Key for each different request"


class Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A recorded result: of which arguments, in which format, what came out."""

    digest: int
    format: int
    body: bytes
    error: bytes = b""
    count: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Row).decode


def digest_of(call: Call) -> int:
    """What two calls under one id must have in common: method, format and body."""
    return xxhash.xxh3_64_intdigest(b"%b\0%d" % (call.method.encode(), call.format) + call.body)


class Results:
    """Finds and records results."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._sessions: dict[bytes, float] = {}
        # Bytes of the rows under client keys by day; stored every ten minutes, so a crash forgets ten minutes' worth.
        raw = store.get(layout.KEYED_BYTES)
        self._keyed_bytes: dict[int, int] = {} if raw is None else msgspec.msgpack.decode(raw, type=dict[int, int])
        self._keyed_limit = store.free_bytes()[1] // KEYED_SHARE
        self._doomed: dict[int, list[tuple[bytes, bytes]]] = {}

    def find(self, instance: Instance, call: Call) -> bytes | ActorError | None:
        """The recorded outcome of a call, or None if it has to run."""
        assert call.id is not None
        kind = call.id.kind
        if kind == SESSION:
            self._sessions[call.id.key] = self._clock.monotonic()
            return self._find_session(call) if call.repeat else None
        if kind == DERIVED and not call.repeat:
            return None
        if kind == MESSAGE:
            return self._find_message(instance, call)
        for day in self._days() if kind == CLIENT or call.bucket == DAY else (call.bucket,):
            raw = self._store.get(self._row_key(instance, call, day))
            if raw is not None:
                row = _decode(raw)
                return row.body if row.digest == digest_of(call) else IdempotencyConflictError(CONFLICT)
        return self._over_quota(instance) if kind == CLIENT else None

    def _over_quota(self, instance: Instance) -> ActorError | None:
        if self._recorded(instance) >= RESULTS_PER_INSTANCE:
            return ActorQuotaError(f"{RESULTS_PER_INSTANCE} keyed results of this instance are recorded within a day")
        if sum(self._keyed_bytes.values()) >= self._keyed_limit:
            return ActorQuotaError(f"the results recorded under keys within a day take 1/{KEYED_SHARE} of the volume")
        return None

    def _find_session(self, call: Call) -> bytes | ActorError | None:
        assert call.id is not None
        raw = self._store.get(_session_key(call))
        if raw is None:
            return None
        row = _decode(raw)
        if row.count < call.id.count:
            return None
        if row.count > call.id.count:
            return ActorFencedError("a stale duplicate of a call that was answered")
        return row.body

    def _find_message(self, instance: Instance, call: Call) -> bytes | ActorError | None:
        assert call.id is not None
        raw = self._store.get(_inbox_key(instance, call))
        if raw is None:
            return None
        row = _decode(raw)
        if row.count < call.id.count:
            return None
        if row.count == call.id.count and row.error:
            return from_document(row.error)
        return row.body

    def record(self, batch: WriteBatch, instance: Instance, call: Call, body: bytes, *, wrote: bool) -> bool:
        """Put the result into the turn's batch; False if this call's is not recorded."""
        if call.id is None:
            return False
        kind = call.id.kind
        if kind == CLIENT:
            day = self._clock.now_us() // 1_000_000 // DAY_S
            key, row = self._row_key(instance, call, day), _encode(Row(digest_of(call), call.format, body))
            batch.put(key, row)
            self._keyed_bytes[day] = self._keyed_bytes.get(day, 0) + len(key) + len(row)
            if instance.keyed is not None:
                instance.keyed[day] = instance.keyed.get(day, 0) + 1
            return True
        if kind == MESSAGE:
            batch.put(_inbox_key(instance, call), _encode(Row(0, call.format, b"", b"", call.id.count)))
            return True
        if not wrote:
            return False
        if kind == SESSION:
            batch.put(_session_key(call), _encode(Row(0, call.format, body, b"", call.id.count)))
            return True
        if kind == DERIVED:
            bucket = self._clock.now_us() // 1_000_000 // DAY_S if call.bucket == DAY else call.bucket
            batch.put(self._row_key(instance, call, bucket), _encode(Row(digest_of(call), call.format, body)))
            return True
        return False

    def refuse_message(self, batch: WriteBatch, instance: Instance, call: Call, error: ActorError) -> None:
        """Store a message's number as passed without effect."""
        assert call.id is not None
        row = Row(0, call.format, b"", to_document(error), call.id.count)
        batch.put(_inbox_key(instance, call), _encode(row))

    def _row_key(self, instance: Instance, call: Call, period: int) -> bytes:
        assert call.id is not None
        if call.id.kind == CLIENT:
            head = layout.shard_prefix(instance.shard, layout.KEYED) + period.to_bytes(4, "big")
            return head + instance.key + b"\0" + call.id.key
        kind = layout.DERIVED_DAY if call.bucket == DAY else layout.DERIVED_BUCKET
        return layout.shard_prefix(instance.shard, kind) + period.to_bytes(4, "big") + call.id.key

    def _days(self) -> list[int]:
        """The days in which a row that counts can lie, newest first; two hours ahead, for a clock that was set back."""
        now_s = self._clock.now_us() // 1_000_000
        return list(range((now_s + 2 * HOUR_S) // DAY_S, (now_s - KEPT_S) // DAY_S - 1, -1))

    def _recorded(self, instance: Instance) -> int:
        days = self._days()
        if instance.keyed is None:
            instance.keyed = {}
            for day in days:
                prefix = (
                    layout.shard_prefix(instance.shard, layout.KEYED) + day.to_bytes(4, "big") + instance.key + b"\0"
                )
                instance.keyed[day] = sum(1 for _ in self._store.rows(prefix, layout.range_end(prefix)))
        return sum(count for day, count in instance.keyed.items() if day in days)

    # --- forgetting

    def collect(self, batch: WriteBatch, shards: list[int]) -> int:
        """Add range deletes of what nobody can ask for any more; how many.

        What is found is deleted only when it is found again by the next call, ten minutes later: a step of the wall
        clock alone deletes nothing that is still needed.
        """
        now_s = self._clock.now_us() // 1_000_000
        limits = (
            (layout.KEYED, (now_s - KEPT_S) // DAY_S),
            (layout.DERIVED_DAY, (now_s - KEPT_S) // DAY_S),
            (layout.DERIVED_BUCKET, now_s // BUCKET_S - BUCKETS_KEPT),
        )
        self._keyed_bytes = {day: size for day, size in self._keyed_bytes.items() if day >= limits[0][1]}
        batch.put(layout.KEYED_BYTES, msgspec.msgpack.encode(self._keyed_bytes))
        deleted = 0
        for shard in shards:
            found = []
            for kind, period in limits:
                low = layout.shard_prefix(shard, kind)
                high = low + max(0, period).to_bytes(4, "big")
                if next(self._store.rows(low, high), None) is not None:
                    found.append((low, high))
            found += self._dead_sessions(shard)
            before = self._doomed.get(shard, [])
            for low, high in found:
                # The limit has moved on since: delete what both calls saw as old.
                for old_low, old_high in before:
                    if old_low == low:
                        batch.delete_range(low, min(high, old_high))
                        deleted += 1
            self._doomed[shard] = found
        return deleted

    def _dead_sessions(self, shard: int) -> list[tuple[bytes, bytes]]:
        prefix = layout.shard_prefix(shard, layout.SESSION)
        now = self._clock.monotonic()
        found = []
        low, end = prefix, layout.range_end(prefix)
        for _ in range(1000):
            row = next(self._store.rows(low, end), None)
            if row is None:
                break
            session = row[0][len(prefix) : len(prefix) + 8]
            low = layout.range_end(prefix + session)
            if now - self._sessions.get(session, float("-inf")) > BUCKET_S:
                found.append((prefix + session, low))
        self._sessions = {key: seen for key, seen in self._sessions.items() if now - seen < DAY_S}
        return found


def _session_key(call: Call) -> bytes:
    assert call.id is not None
    return layout.shard_prefix(call.shard, layout.SESSION) + call.id.key + call.id.slot.to_bytes(4, "big")


def _inbox_key(instance: Instance, call: Call) -> bytes:
    assert call.id is not None
    return layout.instance_key(instance.shard, layout.INBOX, instance.key) + b"\0" + call.id.key
