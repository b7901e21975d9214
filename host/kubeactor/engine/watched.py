"""An engine that tells of every call that it answered, for the terminal of `kubeactor dev`.

A subclass, so that the engine of a host pays nothing for it: not a test, not an attribute.
"""

from __future__ import annotations

from collections.abc import Coroutine
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from kubeactor.call import Call
from kubeactor.engine.engine import Engine
from kubeactor.engine.instance import Instance
from kubeactor.engine.system import SystemCall
from kubeactor.engine.turn import Turn
from kubeactor.errors import ActorError

__all__ = ["Answered", "WatchedEngine", "Watcher"]

SHOWN = ("alarm", "undelivered")


class Answered(NamedTuple):
    """A call that has its answer, or an alarm or `undelivered` that has run.

    Attributes:
        instance: `BINDING NUL identity`.
        depth: how many turns wait for it.
        system: whether no caller waits: an alarm, an undelivered message.
        error: what it ended with, None for a result.
        total_s: from its arrival to its answer; queue_s: until its turn began; sync_s: from its batch to its
            answer, 0 where nobody waits for one.
    """

    instance: bytes
    method: str
    depth: int
    system: bool
    error: ActorError | None
    total_s: float
    queue_s: float
    sync_s: float


class Watcher(Protocol):
    """Who wants to know."""

    def wants(self) -> bool:
        """Whether to tell of the call that arrives now; asked once a call."""

    def answered(self, answered: Answered) -> None:
        """It has its answer."""

    def close(self) -> None:
        """Nothing comes any more."""


class _Times:
    __slots__ = ("arrived", "began", "committed")

    def __init__(self) -> None:
        self.arrived = self.began = perf_counter()
        self.committed = 0.0


class WatchedEngine(Engine):
    """Set `watcher` before the first call."""

    watcher: Watcher

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._times: dict[Call, _Times] = {}  # of calls without an answer, which the engine's own bounds limit

    def submit(self, call: Call) -> None:
        """As the engine does; the answer passes by here."""
        if self.watcher.wants():
            self._times[call] = _Times()
            reply = call.reply

            def told(outcome: bytes | ActorError) -> None:
                self._tell(call, outcome if isinstance(outcome, ActorError) else None)
                reply(outcome)

            call.reply = told
        super().submit(call)

    def run(self, instance: Instance, turn: Turn, coroutine: Coroutine[Any, Any, Any]) -> None:
        """As the engine does; notes the time."""
        call = turn.call
        if isinstance(call, SystemCall) and call.method in SHOWN and self.watcher.wants():
            self._times[call] = _Times()
        elif (times := self._times.get(call)) is not None:
            times.began = perf_counter()
        super().run(instance, turn, coroutine)

    def turn_committed(self, turn: Turn, body: bytes, *, reply: bool = True) -> None:
        """As the engine does; notes the time."""
        if (times := self._times.get(turn.call)) is not None:
            times.committed = perf_counter()
        super().turn_committed(turn, body, reply=reply)
        if isinstance(turn.call, SystemCall):
            self._tell(turn.call, None)

    def reply_error(self, instance: Instance, call: Call, error: ActorError) -> None:
        """As the engine does; an alarm that failed is told, too."""
        if isinstance(call, SystemCall):
            self._tell(call, error)
        super().reply_error(instance, call, error)

    async def close(self, grace_s: float = 2.0) -> None:
        """As the engine does."""
        await super().close(grace_s)
        self.watcher.close()

    def _tell(self, call: Call, error: ActorError | None) -> None:
        times = self._times.pop(call, None)
        if times is None:
            return
        now = perf_counter()
        self.watcher.answered(
            Answered(
                call.instance,
                call.method,
                len(call.chain),
                isinstance(call, SystemCall),
                error,
                now - times.arrived,
                times.began - times.arrived,
                now - times.committed if times.committed and not isinstance(call, SystemCall) else 0.0,
            )
        )
