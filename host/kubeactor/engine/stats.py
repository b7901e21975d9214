"""Counters of an engine, as the metrics read them: plain ints on the path of a call, the rest worked out when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["Stats"]


class Stats:
    """Counters since start, and gauges; `errors` by name."""

    __slots__ = ("_engine", "activations", "errors", "evictions", "fenced", "replays", "turns")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.turns = 0
        self.activations = 0
        self.evictions = 0
        self.replays = 0
        self.fenced = 0
        self.errors: dict[str, int] = {}

    @property
    def commits(self) -> int:
        """Batches written."""
        return self._engine.gate.written

    @property
    def syncs(self) -> int:
        """Syncs of the WAL."""
        return self._engine.gate.syncs

    @property
    def sync_seconds(self) -> float:
        """Time spent in them."""
        return self._engine.gate.sync_seconds

    @property
    def sync_errors(self) -> int:
        """Syncs and writes that failed: at most one, since the worker goes with it."""
        return int(self._engine.failure is not None)

    @property
    def stalls(self) -> int:
        """How often RocksDB asked to wait."""
        return self._engine.commits.stalls

    @property
    def alarms(self) -> int:
        """Alarms that ran."""
        return self._engine.alarms.ran

    @property
    def alarm_failures(self) -> int:
        """Failed runs."""
        return self._engine.alarms.failed

    @property
    def alarms_pending(self) -> int:
        """Alarms in memory that wait for their time; further ones may be on disk."""
        return self._engine.alarms.pending_in_memory

    @property
    def alarms_parked(self) -> int:
        """Alarms parked now."""
        return self._engine.parked.alarms

    @property
    def messages(self) -> int:
        """Messages delivered."""
        return self._engine.outbox.delivered

    @property
    def message_failures(self) -> int:
        """Failed deliveries."""
        return self._engine.outbox.failed

    @property
    def messages_pending(self) -> int:
        """Messages in memory that wait for their end."""
        return self._engine.outbox.pending_in_memory

    @property
    def messages_parked(self) -> int:
        """Messages parked now."""
        return self._engine.parked.messages

    @property
    def cycles(self) -> int:
        """Calls that failed to break a cycle."""
        return self._engine.cycles.broken

    @property
    def instances(self) -> int:
        """Instances in memory."""
        return sum(len(kind.instances) for kind in self._engine.served.values())

    @property
    def queue_calls(self) -> int:
        """Calls that wait for their turn."""
        return self._engine.queued_calls

    @property
    def queue_bytes(self) -> int:
        """Bytes of their bodies."""
        return self._engine.queued_bytes

    @property
    def leftovers(self) -> int:
        """Tasks of turns that timed out and ignore their cancellation."""
        return len(self._engine.leftovers)
