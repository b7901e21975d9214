"""An engine that tells of every call that it answered, for the terminal of `kubeactor dev`.

It also notices two mistakes that raise nothing: code that holds up the loop, and fields that were meant to last.
A subclass, so that the engine of a host pays nothing for it: not a test, not an attribute.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from time import perf_counter
from typing import Any, Final, NamedTuple, Protocol

from kubeactor.call import Call
from kubeactor.engine.engine import Engine
from kubeactor.engine.instance import Instance
from kubeactor.engine.loop import NoPage, Page
from kubeactor.engine.system import SystemCall
from kubeactor.engine.turn import Turn
from kubeactor.errors import ActorError
from kubeactor.tracebacks import label_text

__all__ = ["Answered", "WatchedEngine", "Watcher"]

SHOWN: Final = ("alarm", "undelivered")
BLOCKED_S: Final = 0.25
TOLD_MAX: Final = 100

log = logging.getLogger("kubeactor.dev")


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
    __slots__ = ("arrived", "began", "committed", "fields")

    def __init__(self) -> None:
        self.arrived = self.began = perf_counter()
        self.committed = 0.0
        self.fields: dict[str, Any] = {}  # the object's, when its turn began


class _SlowSteps:
    """A page that notices code which runs for long without an `await`; told once for a method of a class."""

    def __init__(self, page: Page, told: set[str]) -> None:
        self._page = page
        self._told = told
        self._label = b""
        self._since = 0.0
        self.enter_rocksdb = page.enter_rocksdb
        self.leave_rocksdb = page.leave_rocksdb

    def enter(self, label: bytes) -> None:
        """The code of that instance runs from now on."""
        self._ended()
        self._label, self._since = label, perf_counter()
        self._page.enter(label)

    def leave(self) -> None:
        """No instance's code runs."""
        self._ended()
        self._label = b""
        self._page.leave()

    def _ended(self) -> None:
        if not self._label or (seconds := perf_counter() - self._since) < BLOCKED_S:
            return
        method = b".".join(self._label.split(b"\0")[::2]).decode(errors="replace")
        if method not in self._told and len(self._told) < TOLD_MAX:
            self._told.add(method)
            log.warning(
                "%s held up every other call for %.1f s: await what waits, and use asyncio.to_thread for blocking work",
                label_text(self._label),
                seconds,
            )


class WatchedEngine(Engine):
    """Set `watcher` before the first call."""

    watcher: Watcher

    def __init__(self, *args: Any, page: Page | None = None, **options: Any) -> None:
        self._told: set[str] = set()
        super().__init__(*args, page=_SlowSteps(page or NoPage(), self._told), **options)
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
            times.fields = dict(vars(instance.actor))
        super().run(instance, turn, coroutine)

    def turn_committed(self, turn: Turn, body: bytes, *, reply: bool = True) -> None:
        """As the engine does; notes the time."""
        if (times := self._times.get(turn.call)) is not None:
            times.committed = perf_counter()
            if turn.method is not None and not turn.wrote:
                self._look_at_fields(turn, times.fields)
        super().turn_committed(turn, body, reply=reply)
        if isinstance(turn.call, SystemCall):
            self._tell(turn.call, None)

    def _look_at_fields(self, turn: Turn, before: dict[str, Any]) -> None:
        """A turn that stored nothing and changed a public field may have meant it to last."""
        now = vars(turn.instance.actor)
        changed = next((n for n, value in now.items() if n[:1] != "_" and before.get(n, self) is not value), None)
        field = f"{turn.instance.type.cls.__qualname__}: self.{changed}"
        if changed is not None and field not in self._told and len(self._told) < TOLD_MAX:
            self._told.add(field)
            log.warning(
                "%s lives in memory only: what has to last goes into self.ctx.storage; a cache is named self._%s",
                field,
                changed,
            )

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
