"""`kubeactor dev` when code changes: the new code is tried in a process of its own, and the old one serves meanwhile.

Only what can be loaded takes over. The supervisor has no loop: it asks now and then, and never waits here.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["Reload", "trial_command"]

TRIAL_S: Final = 60.0
OUTPUT_BYTES: Final = 64 * 1024

log = logging.getLogger(__name__)


class Reload:
    """Says when to start anew.

    Args:
        changed: whether a source file has changed since it last said so.
        command: a `kubeactor check --json` of the same actors: it prints a line when they can be loaded.
    """

    def __init__(self, changed: Callable[[], bool], command: Sequence[str]) -> None:
        self._changed = changed
        self._command = list(command)
        self._trial: _Trial | None = None

    def __call__(self) -> bool:
        """Whether the code has changed and can be loaded; what can't be is told, once."""
        if self._changed():  # also during a trial, which may have read a part of the change
            self.close()
            self._trial = _Trial(self._command)
            return False
        if self._trial is None or not self._trial.ended():
            return False
        trial, self._trial = self._trial, None
        if trial.passed:
            log.info("the code has changed, it starts anew")
            return True
        log.error("the changed code can't be loaded, the one before serves on: %s", trial.reason)
        return False

    def close(self) -> None:
        """End a trial that runs."""
        if self._trial is not None:
            self._trial.end()
            self._trial = None


class _Trial:
    """One process, told by what it prints: the supervisor's waitpid takes the status of every child."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - the command that the user runs, with `check`
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._streams = {self._process.stdout.fileno(): b"", self._process.stderr.fileno(): b""}
        self._open = list(self._streams)
        self._until = time.monotonic() + TRIAL_S
        for fd in self._open:
            os.set_blocking(fd, False)

    def ended(self) -> bool:
        """Whether it has; reads what it printed."""
        for fd in list(self._open):
            self._read(fd)
        if self._open and time.monotonic() < self._until:
            return False
        self.end()
        return True

    def _read(self, fd: int) -> None:
        try:
            while data := os.read(fd, OUTPUT_BYTES):
                self._streams[fd] = (self._streams[fd] + data)[-OUTPUT_BYTES:]
        except BlockingIOError:
            return
        self._open.remove(fd)

    @property
    def passed(self) -> bool:
        """Whether it printed its line."""
        out, _ = self._streams.values()
        return out.startswith(b"{") and not self._open

    @property
    def reason(self) -> str:
        """What it said instead."""
        _, said = self._streams.values()
        text = said.decode(errors="replace").strip().removeprefix("kubeactor: ")
        return text or f"it did not end within {TRIAL_S:.0f} s"

    def end(self) -> None:
        """Kill it, if it still runs, and let go."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


def trial_command(actors: Sequence[str], front_door: str | None) -> list[str]:
    """The check of what is served, by the Python that serves it."""
    door = ["--front-door", front_door] if front_door else []
    return [sys.executable, "-m", "kubeactor", "check", "--json", *door, "--", *actors]
