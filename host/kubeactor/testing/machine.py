"""One host of a test, the real engine on a real RocksDB, which can lose power and start again on what was synced."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kubeactor.application import Application
from kubeactor.engine.engine import Engine
from kubeactor.engine.instance import Instance
from kubeactor.engine.loop import EngineLoop
from kubeactor.engine.outbox import Outbox, UndeliveredCall
from kubeactor.engine.volume import Volume
from kubeactor.env import Env
from kubeactor.ids import ActorId, shard_of
from kubeactor.parked import MESSAGE, Item
from kubeactor.testing.background import BackgroundError
from kubeactor.testing.clock import VirtualClock, Wait
from kubeactor.testing.gateway import Gateway, Recorder
from kubeactor.testing.history import History
from kubeactor.testing.store import LossyStore

__all__ = ["Machine"]

SHARDS: Final = 16
IDLE_S: Final = 60.0
PATIENCE_S: Final = 60.0
EVENTS_MAX: Final = 10_000
SPINS: Final = 200
POLL_S: Final = 0.001


class Machine:
    """A host that a test starts, crashes and looks into.

    Attributes:
        engine: the one that runs now.
        crashes: how often power was lost.
    """

    engine: Engine

    def __init__(
        self, application: Application, folder: Path, loop: EngineLoop, clock: VirtualClock, gateway: Gateway
    ) -> None:
        self.history = History(application.bindings)
        self.crashes = 0
        self._application = application
        self._folder = folder
        self._loop = loop
        self._clock = clock
        self._gateway = gateway
        self._env: Env | None = None
        self._crash_after: int | None = None
        self._failure: str | None = None
        self._reopening: asyncio.Handle | None = None

    # --- life

    def start(self, env: Env) -> None:
        """Open the data and serve."""
        self._env = env
        self._store = LossyStore(self._data, self._power_lost)
        self._store.crash_after, self._crash_after = self._crash_after, None
        volume = Volume(self._store, namespace="test", host="host-0", shards=SHARDS)
        engine = Engine(
            self._application,
            self._store,
            volume,
            self._loop,
            clock=self._clock,
            failed=self._failed,
            idle_s=float("inf"),  # time passes in `advance` only, and that evicts
            detail=True,
        )
        engine.grant([(shard, 1) for shard in range(SHARDS)])
        self.engine = engine
        self._recorder = Recorder(engine, self.history)
        engine.dispatcher = self._recorder
        engine.start(env)
        self._gateway.open(self._recorder)

    @property
    def _data(self) -> Path:
        return self._folder / f"db{self.crashes}"

    def _failed(self, why: str) -> None:
        self._failure = why

    async def stop(self) -> None:
        """Close the data, as a worker does at SIGTERM."""
        self._gateway.recorder = None
        if self._reopening is not None:
            self._reopening.cancel()
            self._reopening = None
            self._bury()
        else:
            await self.engine.close(0)
        self._clock.forget_all()

    async def restart(self) -> None:
        """Stop and start again; calls under way are made again."""
        self._check()
        assert self._env is not None
        if self._reopening is not None:
            self._reopen()  # the power went a moment ago: first come back from that
        await self.stop()
        self.history.keep()
        self.start(self._env)

    def crash(self) -> None:
        """Lose power and start again on what was synced; calls under way are made again."""
        self._check()
        self._power_lost()
        self._reopen()

    def crash_after(self, writes: int) -> None:
        """Lose power right after so many batches more, before the last of them is synced."""
        self._store.crash_after = writes

    def _power_lost(self) -> None:
        """From this moment on nothing is written and nothing leaves; the rest when the stack of calls is left."""
        self.engine.halt("the test crashed it")
        self._gateway.recorder = None
        if self._reopening is None:
            self._reopening = self._loop.call_soon(self._reopen)

    def _reopen(self) -> None:
        if self._reopening is not None:
            self._reopening.cancel()
            self._reopening = None
        assert self._env is not None
        self.history.lose_after(self.engine.gate.synced)
        image = self._folder / f"db{self.crashes + 1}"
        self._store.image(image)
        self._bury()
        self.crashes += 1
        self.start(self._env)

    def _bury(self) -> None:
        """End what the dead host left in this process: its turns, its timers, its thread, its files."""
        engine = self.engine
        for turn in list(engine.suspended):
            turn.live = False
            turn.expired = True
            if turn.task is not None:
                turn.task.cancel()
        self._clock.forget_all()
        engine.gate.close()
        engine.store.close()
        shutil.rmtree(self._data, ignore_errors=True)

    def _check(self) -> None:
        if self._failure is not None:
            raise BackgroundError(f"the host has ended: {self._failure}")

    # --- rest

    def _busy(self) -> bool:
        engine = self.engine
        return bool(
            engine.alarms.running
            or engine.gate.written > engine.gate.synced
            or engine.commits.stalled
            or self._reopening is not None
        )

    def _delivering(self) -> bool:
        engine = self.engine
        queued = [call for instance in engine.waiting_instances for call in instance.queue or ()]
        running = [turn.call for turn in engine.suspended]
        return self._recorder.messages > 0 or any(isinstance(call, UndeliveredCall) for call in (*queued, *running))

    def _bounded(self, done: Callable[[], bool]) -> Callable[[], bool]:
        """The same question, but no endless row of alarms is waited for."""
        before = self.engine.alarms.ran

        def asked() -> bool:
            if self.engine.alarms.ran - before > EVENTS_MAX:
                raise BackgroundError(f"more than {EVENTS_MAX} alarms ran: does one set itself to now?")
            return done()

        return asked

    async def _until(self, done: Callable[[], bool], what: str) -> None:
        """Wait until it holds in two ticks of the loop one after the other."""
        limit = time.monotonic() + PATIENCE_S
        quiet = spins = 0
        while quiet < 2:
            await asyncio.sleep(0 if spins < SPINS else POLL_S)
            spins += 1
            quiet = quiet + 1 if done() else 0
            self._check()
            if time.monotonic() > limit:
                raise BackgroundError(f"{what} took more than {PATIENCE_S:.0f} s")

    async def advance(self, us: int) -> None:
        """Move the clock on, from one event to the next, and let the alarms that are due run.

        Raises:
            BackgroundError: when more than 10,000 alarms run, or one takes a minute of real time.
        """
        target = self._clock.now_us() + us
        rested = self._bounded(lambda: not self._busy())
        while True:
            await self._until(rested, "an alarm")
            due = self._clock.next_us()
            if due is None or due > target:
                self._clock.move_to(target)
                self._evict_idle()
                return
            self._clock.move_to(due)

    async def settle(self) -> None:
        """Wait until all messages are delivered; as long as one waits for its next try, time goes on.

        Raises:
            BackgroundError: when one is parked, one takes a minute of real time, or more than 10,000 alarms run.
        """
        rested = self._bounded(lambda: not self._busy() and not self._delivering())

        def at_rest() -> bool:
            return rested() and (not self.engine.outbox.pending_in_memory or self._next_try() is not None)

        while True:
            await self._until(at_rest, "a message")
            if (due := self._next_try()) is None or not self.engine.outbox.pending_in_memory:
                break
            self._clock.move_to(due)
        if self.engine.parked.messages:
            shown = [f"{item.instance} -> {item.receiver}.{item.method}: {item.error}" for item in self._parked()]
            raise BackgroundError("\n".join(["a message is parked:", *shown]))

    def _next_try(self) -> int | None:
        """The next event, if a message waits for one later on."""
        return None if self._clock.next_us(_of_outbox) is None else self._clock.next_us()

    def _parked(self) -> list[Item]:
        return [item for item in self.engine.parked.items() if item.kind == MESSAGE]

    # --- instances

    def _evict_idle(self) -> None:
        now = self._clock.monotonic()
        for served in self.engine.served.values():
            for instance in list(served.instances.values()):
                if instance.used + IDLE_S <= now:
                    self.engine.housekeeping.evict(instance)

    def _instance(self, id: ActorId) -> Instance:
        key = b"%b\0%b" % (id.binding.encode(), id.identity)
        found = self.engine.instance_of_key(key, shard_of(id.identity, SHARDS))
        if found is None:
            raise ValueError(f"{id.binding} is not bound here")
        return found

    async def idle(self, id: ActorId) -> tuple[Engine, Instance]:
        """The engine and the record of an instance, once no turn of it runs or waits.

        Raises:
            BackgroundError: when that takes a minute.
        """
        await self._until(lambda: self._instance(id).idle and not self._busy(), f"a turn of {id}")
        return self.engine, self._instance(id)


def _of_outbox(wait: Wait) -> bool:
    return isinstance(getattr(wait.callback, "__self__", None), Outbox)
