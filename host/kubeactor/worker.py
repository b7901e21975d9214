"""The worker's side of the supervisor: what a worker is, what it gets, and the first steps of its process.

A worker never outlives its supervisor: the kernel kills it when the supervisor's main thread ends (PR_SET_PDEATHSIG),
it checks its parent once after asking for that, and its loop watches `supervisor_gone` as a third line. So no orphan
keeps the lock of the database or the port. `python -m kubeactor.worker` is the entry of a worker that is spawned.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from kubeactor.page import TurnPage
from kubeactor.quarantine import Quarantine
from kubeactor.tracebacks import user_traceback

__all__ = ["FATAL", "Main", "WorkerContext", "WorkerFatalError", "WorkerSpec"]

FATAL: Final = os.EX_CONFIG  # 78: the supervisor ends with the worker's message instead of starting it again
FAILED: Final = os.EX_SOFTWARE  # 70: start again
ORPHANED: Final = 71
ENVIRONMENT: Final = "KUBEACTOR_WORKER"
READY: Final = b"R"
OPEN: Final = b"O"
REASON: Final = b"M"
REASON_BYTES: Final = 2000
HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_PR_SET_PDEATHSIG: Final = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl

log = logging.getLogger(__name__)

Main = Callable[..., int]  # (context, **arguments) -> exit status


class WorkerFatalError(Exception):
    """Raised by a worker's main for what no restart can mend; its one sentence becomes the supervisor's last word."""


@dataclass(frozen=True)
class WorkerSpec:
    """What the supervisor runs as one worker process.

    Attributes:
        name: unique within the supervisor, for the log.
        main: called as `main(context, **arguments)` in the worker, returns the exit status; or the text
            "module:function", without which a worker can't be spawned unless `main` is a module's own function.
        arguments: JSON values.
        sockets: listening sockets, non-blocking, from `Listeners.listen`.
        data: the folder on the data volume for turn.page and quarantine.json, which must exist; None for a worker
            without a volume (its page is in memory, its quarantine ends with the supervisor).
        memory_limit_bytes: of this worker alone; None takes the cgroup's, 0 sets none.
    """

    name: str
    main: Main | str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    sockets: Sequence[socket.socket] = ()
    data: Path | None = None
    memory_limit_bytes: int | None = None


@dataclass
class WorkerContext:
    """What a worker's main gets.

    Attributes:
        name: the spec's.
        sockets: the spec's listening sockets.
        page: where the engine marks the turn it steps, and its loop ticks.
        quarantine: the instances to refuse; call `quarantine.refresh()` beside `page.tick()`.
        control: the connection to the supervisor, non-blocking.
        restarts: how often this worker was started before.
        last_death: why the one before ended, one line; None for the first.
    """

    name: str
    sockets: list[socket.socket]
    page: TurnPage
    quarantine: Quarantine
    control: socket.socket
    restarts: int = 0
    last_death: str | None = None

    def ready(self) -> None:
        """Tells the supervisor that this worker serves; a death before it is a failed start."""
        self._tell(READY)

    def opened(self) -> None:
        """Tells the supervisor that calls are answered from now on: a worker may be ready before its volume is open."""
        self._tell(OPEN)

    @property
    def supervisor_gone(self) -> int:
        """A descriptor to watch: when it becomes readable, call `leave_orphaned`."""
        return self.control.fileno()

    def leave_orphaned(self) -> None:
        """Ends the process at once if the supervisor has gone."""
        try:
            if self.control.recv(1):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        os._exit(ORPHANED)

    def fail(self, reason: str, status: int = FAILED) -> NoReturn:
        """Ends the process at once, counted against no instance; `reason` is logged and is the next `last_death`."""
        self.page.leave()
        self._tell(REASON + reason.encode(errors="replace")[:REASON_BYTES])
        os._exit(status)

    def _tell(self, message: bytes) -> None:
        try:
            self.control.send(message)
        except OSError as error:  # gone, or not reading: its death ends this process by other ways
            log.warning("worker %s could not tell its supervisor %r: %s", self.name, message[:1], error)


def enter(context: WorkerContext, main: Main | str, arguments: Mapping[str, Any], parent: int) -> NoReturn:
    """Runs a worker in a process that was just forked or spawned by `parent`, and ends the process."""
    status = FAILED
    try:
        _settle(context.page, parent)
        status = _run(context, main, arguments)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # main's own handler could raise in the lines below
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _settle(page: TurnPage, parent: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(ORPHANED)
    reset_signals()
    faulthandler.enable(2)
    me = os.getpid()

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event == "os.kill" and args == (me, signal.SIGKILL):
            page.mark_own_kill()

    # waitpid can't tell an instance that kills its own process from a kill from outside, which nobody is to blame for.
    sys.addaudithook(audit)


def reset_signals() -> None:
    """Undoes what a supervisor did to its signals. Ctrl-C reaches the whole group, so a worker leaves SIGINT to it."""
    signal.set_wakeup_fd(-1)
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def _run(context: WorkerContext, main: Main | str, arguments: Mapping[str, Any]) -> int:
    try:
        function = resolve(main) if isinstance(main, str) else main
        return function(context, **arguments)
    except WorkerFatalError as error:
        context.fail(str(error), FATAL)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        sys.stderr.write("".join(user_traceback(error)))
        context._tell(REASON + f"{type(error).__name__}: {error}".encode(errors="replace")[:REASON_BYTES])
        return FAILED


def resolve(text: str) -> Main:
    """The function that "module:function" names.

    Raises:
        WorkerFatalError: when there is none.
    """
    module, _, name = text.partition(":")
    try:
        function: Main = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise WorkerFatalError(f"there is no worker function {text}: {error}") from error
    return function


def spawned() -> NoReturn:
    """The start of a worker that was executed, not forked: its order is in the environment."""
    order = json.loads(os.environ.pop(ENVIRONMENT))
    sys.path[:] = order["path"]
    for fd in (order["page"], order["control"], *order["sockets"]):
        os.set_inheritable(fd, False)
    context = WorkerContext(
        name=order["name"],
        sockets=[socket.socket(fileno=fd) for fd in order["sockets"]],
        page=TurnPage(order["page"]),
        quarantine=Quarantine(Path(order["quarantine"]) if order["quarantine"] else None),
        control=socket.socket(fileno=order["control"]),
        restarts=order["restarts"],
        last_death=order["last_death"],
    )
    enter(context, order["main"], order["arguments"], order["parent"])


if __name__ == "__main__":
    # This module is __main__ here; the classes that the worker's code imports are those of its real name.
    importlib.import_module("kubeactor.worker").spawned()
