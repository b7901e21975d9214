"""Starts `supervised.py` and talks to it: what it said, its workers' answers, the deaths of processes."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("supervised.py")
LIMIT_S = 60.0


class Supervised:
    """A running supervisor. Every wait is for an event, and fails after 30 s."""

    def __init__(self, settings: dict[str, Any], log: Path) -> None:
        self._log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        self._buffer = b""
        self.pid = self.process.pid

    def hears(self, key: str) -> dict[str, Any]:
        """The next thing said that has this key; what comes before it is passed over."""
        until = time.monotonic() + LIMIT_S
        assert self.process.stdout is not None
        while True:
            while b"\n" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\n")
                said: dict[str, Any] = json.loads(line)
                if key in said:
                    return said
            readable, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            assert readable, f"nothing with {key!r} was said in {LIMIT_S} s; log:\n{self.log()}"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"it ended before it said {key!r}; log:\n{self.log()}"
            self._buffer += data

    def ends(self) -> int:
        return self.process.wait(LIMIT_S)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def log(self) -> str:
        return self._log.read_text()

    def fds(self) -> set[str]:
        return {str(path.readlink()) for path in Path(f"/proc/{self.pid}/fd").iterdir()}

    def children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]


@contextmanager
def supervised(settings: dict[str, Any], log: Path) -> Iterator[Supervised]:
    running = Supervised(settings, log)
    try:
        yield running
    finally:
        try:
            running.process.terminate()
            running.process.wait(LIMIT_S)
        finally:
            running.process.kill()
            running.process.wait(LIMIT_S)
        assert running.process.stdout is not None
        running.process.stdout.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)


def receive(connection: socket.socket) -> Any:
    """One answer; None when the connection ended without."""
    data = b""
    while not data.endswith(b"\n"):
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            more = b""
        if not more:
            return None
        data += more
    return json.loads(data)


def ask(port: int, command: str) -> Any:
    """The answer to one command on a connection of its own; None when the worker died of it."""
    with connect(port) as connection:
        connection.sendall(command.encode() + b"\n")
        return receive(connection)


def watched(pid: int) -> int:
    """A descriptor by which `gone` waits for the end of a process that is no child of ours."""
    return os.pidfd_open(pid)


def gone(pidfd: int) -> bool:
    try:
        return bool(select.select([pidfd], [], [], LIMIT_S)[0])
    finally:
        os.close(pidfd)


def kill(pid: int) -> bool:
    """SIGKILL, and wait until the process has ended."""
    pidfd = watched(pid)
    os.kill(pid, signal.SIGKILL)
    return gone(pidfd)
