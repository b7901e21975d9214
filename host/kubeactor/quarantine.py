"""Which instances killed their worker, and which did so too often to be run again.

One JSON file beside the turn page. The supervisor adds deaths, an operator releases by hand, a worker only reads: it
notices a change by the file's stamp. Writers take a lock file and read again, so none undoes another's change.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from kubeactor.ids import ActorId
from kubeactor.page import instance_of

__all__ = ["Quarantine", "Quarantined", "release"]

DEATHS: Final = 3
WINDOW_S: Final = 600.0
ENTRIES: Final = 10_000
REASON_CHARS: Final = 500

log = logging.getLogger(__name__)


class Quarantined(msgspec.Struct, frozen=True):
    """Since when (seconds of the wall clock, for people) an instance is not run any more, and what it died of last."""

    since: float
    reason: str


class _State(msgspec.Struct):
    version: int = 1
    deaths: dict[str, list[float]] = {}
    quarantined: dict[str, Quarantined] = {}


class Quarantine:
    """The deaths and the quarantine of one volume; instances are given as BINDING NUL identity.

    Args:
        path: the file; None keeps the state in memory only.
        clock: seconds of the wall clock. Deaths must be comparable over a pod's lives, where no other clock goes on;
            a step of it can only count a death too few or keep one too long.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._state = _State()
        self._instances: frozenset[bytes] = frozenset()
        self._stamp: tuple[int, int, int] | None = None
        self._unsaved = False
        self.refresh()

    def is_quarantined(self, instance: bytes) -> bool:
        """Whether calls of this instance are to be refused; one set lookup."""
        return instance in self._instances

    def entries(self) -> dict[ActorId, Quarantined]:
        """The quarantined instances."""
        return {ActorId.parse(text): entry for text, entry in self._state.quarantined.items()}

    def deaths(self, actor: ActorId) -> int:
        """How many deaths are on record for an instance that is not quarantined."""
        return len(self._state.deaths.get(str(actor), ()))

    def refresh(self) -> bool:
        """Reads the file again when its stamp changed (one `stat` otherwise); True when it was read."""
        stamp = _stamp(self.path)
        if self._unsaved or self.path is None or stamp == self._stamp:
            return False
        self._stamp = stamp
        self._adopt(_read(self.path))
        return True

    def record_death(self, actor: ActorId, reason: str) -> bool:
        """Counts a death of the worker against an instance.

        Returns: whether the instance is quarantined now: after three deaths within ten minutes.
        """
        with self._changing() as state:
            now, name = self._clock(), str(actor)
            if name not in state.quarantined:
                state.deaths = _recent(state.deaths, now)
                times = [*state.deaths.pop(name, []), now]
                if len(times) >= DEATHS:
                    state.quarantined[name] = Quarantined(now, reason[:REASON_CHARS])
                else:
                    state.deaths[name] = times
                _bound(state)
            return name in state.quarantined

    def release(self, actor: ActorId) -> bool:
        """Ends an instance's quarantine and forgets its deaths; False when it was not quarantined."""
        with self._changing() as state:
            state.deaths.pop(str(actor), None)
            return state.quarantined.pop(str(actor), None) is not None

    @contextmanager
    def _changing(self) -> Iterator[_State]:
        if self.path is None:
            yield self._state
            self._adopt(self._state)
            return
        lock = _locked(self.path)
        try:
            self.refresh()
            yield self._state
            self._adopt(self._state)
            self._save(self.path)
        finally:
            if lock is not None:
                os.close(lock)

    def _save(self, path: Path) -> None:
        # A full volume must not stop the supervisor: what could not be saved holds in memory, for the workers it forks.
        try:
            _write(path, self._state)
            self._unsaved = False
        except OSError as error:
            self._unsaved = True
            log.error("the quarantine could not be saved to %s: %s", path, error)
        self._stamp = _stamp(path)

    def _adopt(self, state: _State) -> None:
        self._state = state
        self._instances = frozenset(instance_of(ActorId.parse(text)) for text in state.quarantined)


def release(data: Path, actor: ActorId) -> bool:
    """Ends the quarantine of an instance on a data folder, also while its host runs (it notices within a second).

    Returns: False when it was not quarantined.
    """
    return Quarantine(data / "quarantine.json").release(actor)


def _recent(deaths: dict[str, list[float]], now: float) -> dict[str, list[float]]:
    kept = {name: [at for at in times if abs(now - at) <= WINDOW_S] for name, times in deaths.items()}
    return {name: times for name, times in kept.items() if times}


def _bound(state: _State) -> None:
    excess = len(state.deaths) + len(state.quarantined) - ENTRIES
    if excess > 0:
        for name in sorted(state.deaths, key=lambda name: state.deaths[name][-1])[:excess]:
            del state.deaths[name]


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    try:
        found = path.stat() if path else None
    except FileNotFoundError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size) if found else None


def _read(path: Path) -> _State:
    try:
        state = msgspec.json.decode(path.read_bytes(), type=_State)
        for name in state.quarantined:
            ActorId.parse(name)
        return state
    except FileNotFoundError:
        return _State()
    except (OSError, ValueError) as error:
        log.warning("the quarantine in %s is unreadable and counts as empty: %s", path, error)
        return _State()


def _locked(path: Path) -> int | None:
    try:
        fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.warning("the quarantine's lock can't be opened: %s", error)
        return None
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _write(path: Path, state: _State) -> None:
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(msgspec.json.encode(state))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
