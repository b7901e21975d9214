"""One `kubeactor` command as a process tree of its own, and a plain HTTP client of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.harness.dev import free_port

__all__ = ["LAB", "Program", "refused", "running"]

LAB = Path(__file__).parent
START_S = 60.0
STOP_S = 60.0
COMMAND = (sys.executable, "-m", "kubeactor")
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


class Program:
    """A running command. `port` is where it serves HTTP, `http` a client of it, `output` all that it printed."""

    def __init__(
        self,
        log: Path,
        *arguments: str,
        port: int,
        folder: Path = LAB,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0)
        self._log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=folder,
                env={**ENVIRONMENT, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def workers(self) -> list[int]:
        """The process ids of the workers, in the order in which they were started last."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def ready(self) -> Program:
        """Wait until /readyz says so."""
        self.says("/readyz", 200)
        return self

    def says(self, path: str, status: int) -> str:
        """Wait for that status of a GET; the text of it."""
        end = time.monotonic() + START_S
        answer: object = None
        while time.monotonic() < end:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.output[-3000:]}"
            try:
                response = self.http.get(path)
                if response.status_code == status:
                    return response.text
                answer = response
            except httpx.TransportError as error:
                answer = error
            time.sleep(0.005)  # between attempts; nothing tells us when it listens
        raise AssertionError(f"no {status} at {path}, at last {answer!r}:\n{self.output[-3000:]}")

    def prints(self, text: str) -> None:
        """Wait until it has printed that."""
        end = time.monotonic() + START_S
        while text not in self.output:
            assert time.monotonic() < end, f"it did not print {text!r}:\n{self.output[-3000:]}"
            time.sleep(0.005)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; the exit status, and the seconds that it took to end."""
        started = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(STOP_S), time.monotonic() - started

    def kill(self) -> None:
        """SIGKILL the whole session."""
        self.http.close()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(STOP_S)


@contextmanager
def running(
    log: Path,
    *arguments: str,
    port: int | None = None,
    folder: Path = LAB,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """A command, killed at the end. `{port}` in its arguments is its HTTP port."""
    port = port or free_port()
    arguments = tuple(argument.format(port=port) for argument in arguments)
    program = Program(log, *arguments, port=port, folder=folder, environment=environment)
    try:
        yield program
    finally:
        program.kill()


def refused(*arguments: str, folder: Path = LAB, environment: Mapping[str, str] | None = None) -> str:
    """What a command that refuses to run prints: no greeting, one sentence; it ends with status 2."""
    result = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**ENVIRONMENT, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    assert result.returncode == 2, (result.stdout[-2000:], result.stderr[-2000:])
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr
