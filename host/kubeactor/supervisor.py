"""The small program above the workers (PID 1 of a host pod): it holds the sockets and forks a worker when one dies.

It imports the user's code so that a fork costs no interpreter start, never opens RocksDB, and has no thread and no
event loop of its own: one poll over a signal pipe and the workers' connections. A worker is started again only after
`waitpid` returned the one before, so two never share a volume; connections wait in the listen backlog meanwhile.
"""

from __future__ import annotations

import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum

from kubeactor import worker
from kubeactor.child import Child, Timing, describe
from kubeactor.listeners import Listeners
from kubeactor.worker import WorkerSpec

__all__ = ["Supervisor", "Timing"]

log = logging.getLogger(__name__)


class _Aim(Enum):
    SERVE = "serve"
    WAIT = "wait for a change of the code"
    END = "end"
    REEXEC = "execute anew"


class Supervisor:
    """Runs workers until it is told to end. Use it on the main thread, of which it takes the signals; run it once.

    Args:
        workers: what to run.
        listeners: made the workers' sockets; needed for `reexec`, closed at the end.
        preload: imports the user's code, before the first fork.
        timing: the bounds.
        on_hangup: called at SIGHUP, may call `replace` or `reexec`; without it SIGHUP ends the supervisor.
        on_open: called once, when all workers answer calls for the first time.
        watch: called every `timing.watch_s`; when it returns True the code has changed and `reexec` follows.

    Attributes:
        message: why `run` returned 78, one sentence; else None.
    """

    def __init__(
        self,
        workers: Sequence[WorkerSpec],
        *,
        listeners: Listeners | None = None,
        preload: Callable[[], object] | None = None,
        timing: Timing | None = None,
        on_hangup: Callable[[], None] | None = None,
        on_open: Callable[[], None] | None = None,
        watch: Callable[[], bool] | None = None,
    ) -> None:
        self.message: str | None = None
        self.timing = timing or Timing()
        self._listeners = listeners or Listeners()
        self._specs = list(workers)
        self._preload = preload
        self._on_hangup = on_hangup
        self._on_open = on_open
        self._watch = watch
        self._children: list[Child] = []
        self._aim = _Aim.SERVE
        self._status = 0
        self._argv: list[str] = []
        self._next_check = self._next_watch = 0.0

    def run(self) -> int:
        """Serves until SIGTERM, SIGINT or `stop`; does not return after `reexec`.

        Returns: 0 when all workers ended in time, 1 when one had to be killed, 78 when one refused its configuration
        (`message` says why).

        Raises:
            Exception: what `preload` raised; after a `reexec` with `watch` it is logged and the next change awaited.
            OSError: when a worker's data folder can't be used.
        """
        try:
            with self._signals():
                self._load()
                self._children = [Child(spec, self.timing) for spec in self._specs]
                self._serve()
        finally:
            self._end_children()
            if self._aim is not _Aim.REEXEC:
                self._listeners.close()
        if self._aim is _Aim.REEXEC:
            # A hangup that comes before the next program has its handlers waits for them instead of ending it.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
            self._listeners.hand_over()
            os.execv(self._argv[0], self._argv)  # noqa: S606
        return self._status

    def stop(self) -> None:
        """Ends the workers, then `run`. A second call kills them at once."""
        if self._aim is _Aim.END:
            self._kill_overdue(float("inf"))
        self._aim_for(_Aim.END)

    def replace(self) -> None:
        """Ends each worker gracefully and forks it again, on the code that is loaded."""
        for child in self._children:
            child.stop(time.monotonic())

    def reexec(self, argv: Sequence[str] | None = None) -> None:
        """Ends the workers, then executes this program anew under the same pid, its sockets open all the time.

        Args:
            argv: the program and its arguments; None for those that this process was started with.
        """
        self._argv = list(argv or (sys.executable, *sys.orig_argv[1:]))
        self._aim_for(_Aim.REEXEC)

    # The loop

    def _load(self) -> None:
        try:
            if self._preload is not None:
                self._preload()
        except Exception:
            if self._watch is None or not self._listeners.reexecuted:
                raise
            log.exception("the changed code can't be loaded; waiting for the next change")
            self._aim = _Aim.WAIT
        self._listeners.close_unclaimed()
        gc.collect()
        gc.freeze()  # what is loaded stays shared with the workers instead of being copied at their first collection

    def _serve(self) -> None:
        now = time.monotonic()
        self._next_check, self._next_watch = now + self.timing.check_s, now + self.timing.watch_s
        if self._aim is _Aim.SERVE:
            for child in self._children:
                self._start(child)
        while self._aim in (_Aim.SERVE, _Aim.WAIT) or any(child.pid for child in self._children):
            for key, _ in self._selector.select(self._timeout_s()):
                key.data()
            self._on_time(time.monotonic())

    def _timeout_s(self) -> float:
        times = [self._next_check]
        times += [self._next_watch] if self._watch else []
        for child in self._children:
            times += [at for at in (child.due, child.kill_at) if at is not None]
        return max(0.0, min(times) - time.monotonic())

    def _on_time(self, now: float) -> None:
        for child in self._children:
            if child.due is not None and now >= child.due:
                self._start(child)
        self._kill_overdue(now)
        if now >= self._next_check:
            self._next_check = now + self.timing.check_s
            for child in self._children:
                child.look(now)
        if self._watch and now >= self._next_watch and self._aim in (_Aim.SERVE, _Aim.WAIT):
            self._next_watch = now + self.timing.watch_s
            if self._watch():
                self.reexec()

    def _kill_overdue(self, now: float) -> None:
        for child in self._children:
            if child.kill_at is not None and now >= child.kill_at:
                child.kill()

    def _aim_for(self, aim: _Aim) -> None:
        self._aim = aim
        for child in self._children:
            child.stop(time.monotonic())

    # Workers

    def _start(self, child: Child) -> None:
        now = time.monotonic()
        try:
            child.start(now, self._release)
        except OSError as error:
            child.start_failed(now, error)
            return
        except worker.WorkerFatalError as error:
            child.last_death = str(error)
            self._give_up(child)
            return
        assert child.control is not None
        self._selector.register(child.control, selectors.EVENT_READ, lambda: self._hear(child))

    def _hear(self, child: Child) -> None:
        if child.control is not None and not child.hear():
            self._selector.unregister(child.control)
        if self._on_open is not None and all(each.open for each in self._children):
            tell, self._on_open = self._on_open, None
            tell()

    def _release(self, mine: Child) -> None:
        """In a forked worker: lets go of all that is the supervisor's or another worker's."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._wake.close()
        self._signalled.close()
        for child in self._children:
            if child.control is not None:
                child.control.close()
            if child is not mine:
                child.page.close()
        for sock in {*self._listeners.sockets(), *(sock for spec in self._specs for sock in spec.sockets)}:
            if sock not in mine.spec.sockets:
                sock.close()

    def _reap(self) -> None:
        # As PID 1 the supervisor also inherits the orphans of its workers' subprocesses: any child is waited for.
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                for child in self._children:
                    if child.pid == found[0]:
                        self._buried(child, found[1])

    def _buried(self, child: Child, status: int) -> None:
        control = child.control
        if control is not None and control in self._selector.get_map():
            self._selector.unregister(control)
        code = child.reaped(status, time.monotonic())
        if child.overdue:
            self._status = self._status or 1
        if code == worker.FATAL:
            self._give_up(child)
        elif self._aim is not _Aim.SERVE:
            child.due = None
        elif child.due is None or child.due <= time.monotonic():
            self._start(child)

    def _give_up(self, child: Child) -> None:
        child.due = None
        if self._aim is not _Aim.SERVE:
            return
        reason = child.last_death or describe(worker.FATAL)
        if self._watch and self._listeners.reexecuted:
            log.error("worker %s can't run: %s; waiting for the next change", child.spec.name, reason)
            self._aim_for(_Aim.WAIT)
        else:
            self.message, self._status = reason, worker.FATAL
            self._aim_for(_Aim.END)

    def _end_children(self) -> None:
        for child in self._children:
            if child.pid is not None:
                child.send(signal.SIGKILL)
                os.waitpid(child.pid, 0)
            child.close()

    # Signals

    @contextmanager
    def _signals(self) -> Iterator[None]:
        self._selector = selectors.DefaultSelector()
        self._signalled, self._wake = socket.socketpair()
        self._signalled.setblocking(False)
        self._wake.setblocking(False)
        self._selector.register(self._signalled, selectors.EVENT_READ, self._on_signals)
        before = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, lambda *_: None) for number in worker.HANDLED}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, worker.HANDLED)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
            self._selector.close()
            self._signalled.close()
            self._wake.close()

    def _on_signals(self) -> None:
        with suppress(BlockingIOError):
            for number in self._signalled.recv(4096):
                self._on_signal(number)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP and self._on_hangup is not None:
            self._on_hangup()
        elif number in worker.HANDLED:
            self.stop()
