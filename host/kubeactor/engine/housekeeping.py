"""What an engine does now and then: deadlines of waiting calls, the disk, idle instances, old results, the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from kubeactor.engine.instance import Instance
from kubeactor.engine.store import StoreError, new_batch
from kubeactor.errors import ActorFencedError, ActorMethodTimeoutError, ActorOutputGateError
from kubeactor.limits import INSTANCES
from kubeactor.scope import instance_text

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["Housekeeping"]

TICK_S: Final = 0.25
DISK_S: Final = 1.0
COLLECT_S: Final = 600.0
# Instances looked at in one tick, so that a million of them stop nothing.
SLICE: Final = 5000
# Above limits.INSTANCES all that were idle for so long are dropped, and looked for faster than names can be woken.
CROWDED_IDLE_S: Final = 1.0
CROWDED_SLICE: Final = 10_000
DRAIN_POLL_S: Final = 0.005


class Housekeeping:
    """The timer of an engine."""

    def __init__(self, engine: Engine, idle_s: float) -> None:
        self._engine = engine
        self._idle_s = idle_s
        self._timer: asyncio.TimerHandle | None = None
        self._walk: Iterator[Instance] = iter(())
        self._disk_at = 0.0
        self._collect_at = 0.0

    def start(self) -> None:
        """Begin to tick."""
        now = self._engine.clock.monotonic()
        self._collect_at = now + COLLECT_S
        self._tick()

    def _tick(self) -> None:
        engine = self._engine
        if engine.failure is not None:
            return
        self._timer = engine.loop.call_later(TICK_S, self._tick)
        now = engine.clock.monotonic()
        self._deadlines(now)
        try:
            if now >= self._disk_at:
                self._disk_at = now + DISK_S
                engine.disk_full = engine.store.nearly_full()
            if now >= self._collect_at:
                self._collect_at = now + COLLECT_S
                self._collect()
        except (OSError, StoreError) as error:
            engine.fail(str(error))
            return
        self._evict(now)

    def _deadlines(self, now: float) -> None:
        engine = self._engine
        for call in engine.gate.overdue(now):
            text = f"{instance_text(call.instance)}.{call.method} was written, its sync is not known yet"
            engine.out(call, ActorOutputGateError(text))
        for instance in list(engine.waiting_instances):
            for call in [call for call in instance.queue or () if call.deadline <= now]:
                text = f"{instance_text(instance.key)}.{call.method} was not started: its deadline passed in the queue"
                engine.remove_queued(instance, call, ActorMethodTimeoutError(text, started="no"))

    def _collect(self) -> None:
        engine = self._engine
        batch = new_batch()
        engine.results.collect(batch, list(engine.epochs))
        engine.system_write(batch, lambda: None, None)

    def _evict(self, now: float) -> None:
        crowded = self._engine.stats.instances > INSTANCES
        idle_s = min(self._idle_s, CROWDED_IDLE_S) if crowded else self._idle_s
        for _ in range(CROWDED_SLICE if crowded else SLICE):
            instance = next(self._walk, None)
            if instance is None:
                served = self._engine.served.values()
                self._walk = iter([one for kind in served for one in kind.instances.values()])
                return
            if instance.used + idle_s <= now and instance.idle:
                self.evict(instance)

    def evict(self, instance: Instance) -> bool:
        """Drop an idle instance from memory; its record only when its last batch is on disk.

        Batches that wait in a write stall hold records that they will change: none is dropped meanwhile.
        """
        if not instance.idle or self._engine.commits.stalled:
            return False
        instances = self._engine.served[instance.type.binding].instances
        if instances.get(instance.identity) is not instance:
            return False
        if instance.actor is not None:
            self._engine.stats.evictions += 1
        instance.actor = None
        instance.cache = None
        if instance.batch <= self._engine.gate.synced:
            del instances[instance.identity]
        return True

    async def drain(self, grace_s: float) -> None:
        """Answer what is queued, let running turns end, cancel them when the grace is over."""
        engine = self._engine
        if self._timer is not None:
            self._timer.cancel()
        for instance in list(engine.waiting_instances):
            for call in list(instance.queue or ()):
                engine.remove_queued(instance, call, ActorFencedError("this host is going down"))
        deadline = engine.loop.time() + grace_s
        while engine.suspended and engine.loop.time() < deadline:  # noqa: ASYNC110 - it is short, and the last thing
            await asyncio.sleep(DRAIN_POLL_S)
        for turn in list(engine.suspended):
            if turn.task is not None:
                turn.task.cancel()
        for _ in range(10):
            if engine.suspended:
                await asyncio.sleep(DRAIN_POLL_S)
        for turn in list(engine.suspended):
            engine.revoke(turn, asyncio.CancelledError())
