"""`kubeactor dev` as a process tree of its own, started and killed as a user and an unlucky machine would."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.harness.client import Client, UnknownOutcomeError

__all__ = ["BANK", "Dev", "free_port", "until"]

BANK: Final = Path(__file__).parents[2] / "examples" / "01-bank"
START_S: Final = 60.0
COMMAND: Final = (sys.executable, "-m", "kubeactor")


def free_port() -> int:
    """A TCP port of the loopback address that nobody used a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def until(condition: Callable[[], bool], within_s: float = 60.0, what: str = "the condition") -> None:
    """Wait until it holds, looking every 2 ms.

    Raises:
        TimeoutError: when it doesn't within that time.
    """
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {within_s} s for {what}")
        await asyncio.sleep(0.002)


class Dev:
    """One `kubeactor dev`: a supervisor and its workers.

    Args:
        data: the data folder.
        actors: what to serve, as on the command line; folder: where that is imported from.
        environment: variables on top of this process's own, such as the fault shim's.
    """

    def __init__(
        self,
        data: Path,
        *,
        actors: Sequence[str] = ("bank:Account",),
        front_door: str | None = "bank:app",
        folder: Path = BANK,
        hosts: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data
        self.port = free_port()
        self.folder = folder
        self.log_file = data.with_name(f"{data.name}.log")
        self.environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
        self.command = [*COMMAND, "dev", *actors, "--port", str(self.port), "--data", str(data)]
        self.command += ["--front-door", front_door] if front_door else []
        self.command += ["--hosts", str(hosts)] if hosts else []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it in a session of its own; returns at once."""
        assert self.process is None or self.process.poll() is not None, "it is running"
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def ready(self, within_s: float = START_S) -> None:
        """Wait until it serves.

        Raises:
            AssertionError: when it ends before, with its log.
            TimeoutError: when it doesn't in time, with its log.
        """
        client = Client(self.port)
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            assert self.process is not None
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log()[-4000:]}"
            try:
                if (await client.get("/readyz", timeout_s=10.0)).status == 200:
                    client.close()
                    return
            except (ConnectionRefusedError, UnknownOutcomeError):
                pass
            await asyncio.sleep(0.005)
        raise TimeoutError(f"not ready within {within_s} s:\n{self.log()[-4000:]}")

    async def __aenter__(self) -> Dev:
        self.start()
        try:
            await self.ready()
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self.process is not None
        return self.process.pid

    def workers(self) -> list[int]:
        """The ids of the supervisor's living children."""
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def group(self) -> list[int]:
        """The ids of all living processes of the session, orphans too."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self.pid and fields[0] not in "ZX":
                    found.append(int(entry.name))
        return found

    def kill(self) -> None:
        """SIGKILL the whole session, and wait until none of it is left."""
        if self.process is None:
            return
        while group := self.group():
            for pid in group:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.001)
        self.process.wait()

    def stop(self, within_s: float = 60.0) -> int:
        """SIGTERM the supervisor, wait, and return its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(within_s)

    def log(self) -> str:
        """All that it has printed so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
