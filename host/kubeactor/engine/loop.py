"""Starting a turn: a real asyncio Task whose first step runs at once.

Most turns never wait, so a Task that runs its first step through the loop's queue costs them a trip that they don't
need. From Python 3.12 on that is `eager_start`; on 3.11 the loop hands back the step that the new Task asks it to
schedule, and it is run here. Driving the coroutine by hand instead would break anyio's cancel scopes and
`asyncio.timeout`, which look at the current task.

Resumed steps come through `call_soon` with the turn's context: there the turn is put on the poison page while its
code runs, so that a crash or a hang is put down to the right instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio import tasks
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol

import uvloop

from kubeactor.scope import SCOPE

__all__ = ["EngineLoop", "new_event_loop", "start_task"]


class Page(Protocol):
    """Where the turn that is being stepped is written down; `kubeactor.page.TurnPage` is the real one."""

    def enter(self, label: bytes) -> None:
        """The code of that instance runs from now on."""

    def leave(self) -> None:
        """No instance's code runs."""

    def enter_rocksdb(self) -> None:
        """The loop waits for the disk from now on: a silence that is tolerated for longer."""

    def leave_rocksdb(self) -> None:
        """It is back."""


class NoPage:
    """Writes nothing down."""

    def enter(self, label: bytes) -> None:
        """Nothing."""

    def leave(self) -> None:
        """Nothing."""

    def enter_rocksdb(self) -> None:
        """Nothing."""

    def leave_rocksdb(self) -> None:
        """Nothing."""


class Stepping(asyncio.AbstractEventLoop):
    """What a loop needs to run turns, to be mixed into its class."""

    page: Page = NoPage()
    _stepping: bytes | None = None
    _catching = False
    _caught: Callable[..., Any] | None = None

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """As of any loop, but a new turn's first step is handed back, and a turn's later steps are noted."""
        if self._catching:
            self._catching = False
            self._caught = callback
            return None  # type: ignore[return-value]
        if context is not None and (scope := context.get(SCOPE)) is not None:
            label = scope.label
            if label:
                return super().call_soon(self._stepped, label, callback, args, context=context)
        return super().call_soon(callback, *args, context=context)

    def _stepped(self, label: bytes, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        outer = self.enter(label)
        try:
            callback(*args)
        except (SystemExit, KeyboardInterrupt):
            pass  # the task holds it, and ends as a failed turn
        finally:
            self.leave(outer)

    def enter(self, label: bytes) -> bytes | None:
        """Code of that instance runs from now on; what ran before, for `leave`."""
        outer = self._stepping
        self._stepping = label
        self.page.enter(label)
        return outer

    def leave(self, outer: bytes | None) -> None:
        """Go back to what ran before."""
        self._stepping = outer
        if outer is None:
            self.page.leave()
        else:
            self.page.enter(outer)


class EngineLoop(Stepping, uvloop.Loop):  # type: ignore[misc]
    """The loop of a worker that runs turns."""


def new_event_loop() -> EngineLoop:
    """A loop for a worker."""
    return EngineLoop()


def start_task(
    loop: EngineLoop, coroutine: Coroutine[Any, Any, Any], context: Context, label: bytes
) -> asyncio.Task[Any]:
    """A Task of the coroutine whose first step has run; it may be done.

    Args:
        label: the instance, as the poison page shows it.
    """
    outer_task = _current_task(loop)
    if outer_task is not None:
        tasks._leave_task(loop, outer_task)
    outer = loop.enter(label)
    try:
        return _begin(loop, coroutine, context)
    finally:
        loop.leave(outer)
        if outer_task is not None:
            tasks._enter_task(loop, outer_task)


if sys.version_info >= (3, 12):

    def _current_task(loop: EngineLoop) -> asyncio.Task[Any] | None:
        return asyncio.current_task(loop)

    def _begin(loop: EngineLoop, coroutine: Coroutine[Any, Any, Any], context: Context) -> asyncio.Task[Any]:
        # Made in two steps, since a SystemExit of the first step comes out of __init__: the task holds it, and ends as
        # a failed turn.
        task: asyncio.Task[Any] = asyncio.Task.__new__(asyncio.Task)
        try:  # contextlib.suppress costs 0.4 us
            task.__init__(coroutine, loop=loop, context=context, eager_start=True)  # type: ignore[misc]
        except (SystemExit, KeyboardInterrupt):
            pass
        return task

else:

    def _current_task(loop: EngineLoop) -> asyncio.Task[Any] | None:
        running: dict[Any, asyncio.Task[Any]] = tasks._current_tasks  # type: ignore[attr-defined]
        return running.get(loop)

    def _begin(loop: EngineLoop, coroutine: Coroutine[Any, Any, Any], context: Context) -> asyncio.Task[Any]:
        loop._catching = True
        task = asyncio.Task(coroutine, loop=loop, context=context)
        step = loop._caught
        assert step is not None
        loop._caught = None
        with contextlib.suppress(SystemExit, KeyboardInterrupt):  # the task holds it, and ends as a failed turn
            context.run(step)
        return task
