"""One worker as its supervisor sees it: how it starts, how it is watched, and what its death means.

Nothing here waits: the supervisor's loop calls in with the time.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from kubeactor import cgroup, worker
from kubeactor.page import TurnPage
from kubeactor.quarantine import Quarantine
from kubeactor.worker import WorkerContext, WorkerFatalError, WorkerSpec

__all__ = ["Child", "Pulse", "Restarts", "Timing", "describe"]

log = logging.getLogger(__name__)

# A container that was killed with its supervisor leaves only the page. Above this share of its limit the kernel's
# out-of-memory killer is the likely cause, below it a kill from outside, which nobody is to blame for.
SUSPECT_PERCENT: Final = 50

TASKS: Final = Path("/proc/self/task")


@dataclass(frozen=True)
class Timing:
    """The bounds of a supervisor, in seconds unless named otherwise.

    Attributes:
        grace_s: from SIGTERM to SIGKILL.
        hung_s: without a loop tick outside RocksDB, until the worker is killed.
        hung_rocksdb_s: the same inside RocksDB.
        check_s: between two looks at page and memory.
        watch_s: between two calls of `watch`.
        backoff_first_s: after the second start in a row that failed; doubles up to `backoff_max_s`.
        backoff_max_s: see above.
        burst: deaths within a minute after which a restart waits `burst_s`.
        burst_s: see above.
        memory_share: of the memory limit, at which the worker is killed.
    """

    grace_s: float = 10.0
    hung_s: float = 10.0
    hung_rocksdb_s: float = 60.0
    check_s: float = 0.25
    watch_s: float = 0.5
    backoff_first_s: float = 0.1
    backoff_max_s: float = 5.0
    burst: int = 100
    burst_s: float = 1.0
    memory_share: float = 0.9


class Restarts:
    """When to start again. A worker that served is followed at once, one that failed to start is backed off."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._failed_starts = 0
        self._deaths: deque[float] = deque(maxlen=timing.burst)

    def delay_s(self, now: float, was_ready: bool) -> float:
        """Seconds to wait after a death at `now` (monotonic seconds)."""
        full = len(self._deaths) == self._deaths.maxlen
        stormy = full and now - self._deaths[0] < 60
        self._deaths.append(now)
        self._failed_starts = 0 if was_ready else self._failed_starts + 1
        if self._failed_starts < 2:
            return self._timing.burst_s if stormy else 0.0
        doubled = self._timing.backoff_first_s * 2.0 ** min(self._failed_starts - 2, 20)
        return min(doubled, self._timing.backoff_max_s)


class Pulse:
    """How long a loop has not ticked, counted only while the supervisor was awake to look.

    So a container that was frozen for a minute is not taken for a hung worker when both wake up.
    """

    def __init__(self) -> None:
        self._tick = 0
        self._outside_s = 0.0
        self._inside_s = 0.0

    def observe(self, tick: int, in_rocksdb: bool, elapsed_s: float) -> None:
        """One look at the page, `elapsed_s` after the last one."""
        if tick != self._tick:
            self._tick, self._outside_s, self._inside_s = tick, 0.0, 0.0
        elif tick and in_rocksdb:
            self._inside_s += elapsed_s
        elif tick:
            self._outside_s += elapsed_s

    def hung(self, timing: Timing) -> bool:
        """Whether the worker is to be killed. One that has never ticked is not watched."""
        return self._outside_s >= timing.hung_s or self._inside_s >= timing.hung_rocksdb_s


@dataclass
class Child:
    """The state of one worker: `pid` is None while none runs, `due` the monotonic time (s) of the next start."""

    spec: WorkerSpec
    timing: Timing
    pid: int | None = None
    due: float | None = None
    kill_at: float | None = None
    ready: bool = False
    open: bool = False
    stopping: bool = False
    overdue: bool = False
    starts: int = 0
    last_death: str | None = None
    control: socket.socket | None = None
    _reported: str | None = None
    _verdict: str | None = None
    _pulse: Pulse = field(default_factory=Pulse)
    _looked: float = 0.0
    _oom_kills: int = 0

    def __post_init__(self) -> None:
        data = self.spec.data
        self.page = TurnPage.open(data / "turn.page") if data else TurnPage.anonymous()
        self.quarantine = Quarantine(data / "quarantine.json" if data else None)
        self._restarts = Restarts(self.timing)
        limit = self.spec.memory_limit_bytes
        self._limit = cgroup.memory_limit_bytes() if limit is None else limit
        self._blame_for_the_container()

    # Start

    def start(self, now: float, release: Callable[[Child], None]) -> None:
        """Forks the worker, or spawns it when other threads run here; `release` closes in it what it must not keep.

        Raises:
            OSError: when the system has no process or descriptor left.
            WorkerFatalError: when it must be spawned but its main has no importable name.
        """
        self.page.reset()
        self._pulse, self._looked, self._oom_kills = Pulse(), now, cgroup.oom_kills()
        self.due = self.kill_at = self._reported = self._verdict = None
        self.ready = self.open = self.stopping = self.overdue = False
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setblocking(False)
        theirs.setblocking(False)
        try:
            self.pid = self._launch(theirs, release)
        except BaseException:
            self.control.close()
            raise
        finally:
            theirs.close()
        self.starts += 1

    def _launch(self, theirs: socket.socket, release: Callable[[Child], None]) -> int:
        threads = sum(1 for _ in TASKS.iterdir())
        if threads == 1:
            return self._fork(theirs, release)
        log.warning("worker %s is spawned, not forked: the supervisor has %d threads", self.spec.name, threads)
        return self._spawn(theirs)

    def _fork(self, theirs: socket.socket, release: Callable[[Child], None]) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        # A signal that comes before the child has reset its handlers would be written to the supervisor's own pipe.
        signal.pthread_sigmask(signal.SIG_BLOCK, worker.HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                self._become_worker(theirs, release, parent)
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, worker.HANDLED)

    def _become_worker(self, theirs: socket.socket, release: Callable[[Child], None], parent: int) -> NoReturn:
        try:
            release(self)
            context = WorkerContext(
                name=self.spec.name,
                sockets=list(self.spec.sockets),
                page=self.page,
                quarantine=self.quarantine,
                control=theirs,
                restarts=self.starts,
                last_death=self.last_death,
            )
            worker.enter(context, self.spec.main, self.spec.arguments, parent)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(worker.FAILED)

    def _spawn(self, theirs: socket.socket) -> int:
        fds = [theirs.fileno(), self.page.fd, *(sock.fileno() for sock in self.spec.sockets)]
        order = {
            "name": self.spec.name,
            "main": _importable(self.spec),
            "arguments": dict(self.spec.arguments),
            "path": sys.path,
            "parent": os.getpid(),
            "control": fds[0],
            "page": fds[1],
            "sockets": fds[2:],
            "quarantine": str(self.quarantine.path) if self.quarantine.path else None,
            "restarts": self.starts,
            "last_death": self.last_death,
        }
        environment = {**os.environ, worker.ENVIRONMENT: json.dumps(order)}
        command = [sys.executable, "-m", "kubeactor.worker"]
        for fd in fds:
            os.set_inheritable(fd, True)
        try:
            return os.posix_spawn(command[0], command, environment, setsigmask=[], setsigdef=worker.HANDLED)
        finally:
            for fd in fds:
                os.set_inheritable(fd, False)

    # Life

    def hear(self) -> bool:
        """Reads what the worker said; False when it has closed its end."""
        assert self.control is not None
        while True:
            try:
                message = self.control.recv(worker.REASON_BYTES + 1)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not message:
                return False
            if message[:1] == worker.READY:
                self.ready = True
            elif message[:1] == worker.OPEN:
                self.open = True
            else:
                self._reported = message[1:].decode(errors="replace")

    def look(self, now: float) -> None:
        """Kills the worker when its loop has hung or its memory is near the limit."""
        if self.pid is None or self._verdict is not None:
            return
        elapsed = min(now - self._looked, 2 * self.timing.check_s)
        self._looked = now
        self._pulse.observe(self.page.last_tick, self.page.in_rocksdb, elapsed)
        if self._pulse.hung(self.timing):
            where = " inside RocksDB" if self.page.in_rocksdb else ""
            self._condemn(f"hung{where} in {self.page.read() or 'no turn'}")
        elif self._limit:
            self._weigh(self.pid, self._limit)

    def _weigh(self, pid: int, limit: int) -> None:
        used = cgroup.resident_bytes(pid, os.sysconf("SC_PAGE_SIZE"))
        self.page.note_memory(100 * used / limit)
        if used >= self.timing.memory_share * limit:
            self._condemn(f"used {used >> 20} MiB of {limit >> 20} MiB in {self.page.read() or 'no turn'}")

    def _condemn(self, reason: str) -> None:
        self._verdict = reason
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the worker; its pid can't be another's, since only `reaped` frees it."""
        if self.pid is not None:
            os.kill(self.pid, number)

    def stop(self, now: float) -> None:
        """Asks the worker to end, and sets the time after which it is killed."""
        self.due = None
        if self.pid is not None and not self.stopping:
            self.stopping = True
            self.kill_at = now + self.timing.grace_s
            self.send(signal.SIGTERM)

    def kill(self) -> None:
        """Ends a worker that did not end within its grace."""
        self.kill_at, self.overdue = None, True
        log.warning("worker %s did not end when asked and is killed", self.spec.name)
        self.send(signal.SIGKILL)

    # Death

    def reaped(self, status: int, now: float) -> int:
        """Takes the dead worker's wait status and plans its restart; returns its exit code, below 0 for a signal."""
        self.hear()
        assert self.control is not None
        self.control.close()
        code = os.waitstatus_to_exitcode(status)
        self.control = self.pid = self.kill_at = None
        if self.stopping and not self.overdue:
            log.info("worker %s %s", self.spec.name, describe(code))
            return code
        self.last_death = self._verdict or self._reported or describe(code)
        delay_s = self._restarts.delay_s(now, self.ready)
        self.due = now + delay_s
        after = f"; the next one starts in {delay_s:g} s" if delay_s else ""
        if code != worker.FATAL:  # the supervisor ends or waits with that reason, and it is told once
            log.warning("worker %s died: %s%s", self.spec.name, self.last_death, after)
        self._blame(code)
        return code

    def start_failed(self, now: float, error: OSError) -> None:
        """Plans another attempt after `start` raised."""
        self.pid = self.control = None
        self.last_death = f"could not be started: {error.strerror or error}"
        log.error("worker %s %s", self.spec.name, self.last_death)
        self.due = now + max(self._restarts.delay_s(now, was_ready=False), self.timing.backoff_first_s)

    def close(self) -> None:
        """Lets go of page and connection."""
        if self.control is not None:
            self.control.close()
        self.page.close()

    def _blame(self, code: int) -> None:
        from_outside = code == -signal.SIGKILL and not (
            self._verdict or self.page.own_kill or cgroup.oom_kills() > self._oom_kills
        )
        if not (from_outside or self.stopping):
            self._count_death(self.last_death or "")

    def _blame_for_the_container(self) -> None:
        if self.page.of_this_boot and (self.page.own_kill or self.page.memory_percent >= SUSPECT_PERCENT):
            self._count_death("killed together with its supervisor")
        self.page.reset()

    def _count_death(self, reason: str) -> None:
        turn = self.page.read()
        if turn is not None:
            quarantined = self.quarantine.record_death(turn.actor, reason)
            effect = "is quarantined" if quarantined else "was being stepped"
            log.warning("%s %s when worker %s died: %s", turn, effect, self.spec.name, reason)


def describe(code: int) -> str:
    """An exit code in words; a negative one is a signal, as `os.waitstatus_to_exitcode` gives it."""
    if code >= 0:
        return f"ended by itself with status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _importable(spec: WorkerSpec) -> str:
    if isinstance(spec.main, str):
        return spec.main
    module, name = spec.main.__module__, spec.main.__qualname__
    if module == "__main__" or not name.isidentifier():
        raise WorkerFatalError(f'main of worker {spec.name} can only be forked: give it as "module:function"')
    return f"{module}:{name}"
