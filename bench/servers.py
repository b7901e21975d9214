"""The servers that the benchmarks drive: how each is started, watched and asked for its sums.

All of them listen on 127.0.0.1 only and answer the same paths, so that one client drives every one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
RESULTS = BENCH / "results"
ACCOUNTS_APP = ROOT / "examples" / "01-bank"
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0
CLIENT_THREADS = 16
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A run that does not count: a server that does not start, a wrong answer, a wrong sum."""


@dataclass
class Server:
    """One server process with all of its children.

    Attributes:
        name: as it stands in the table.
        command: without the port and the data folder, see `arguments`.
        arguments: makes those from (port, data folder).
    """

    name: str
    command: list[str]
    arguments: Callable[[int, Path], list[str]]
    data: Path
    cwd: Path = ROOT
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it and wait until it is healthy. Raises BenchError with the end of its log."""
        self.data.mkdir(parents=True, exist_ok=True)
        if not self.count.exists():
            self.count.write_bytes(bytes(8))
        self.port = self.port or free_port()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, *self.arguments(self.port, self.data)],
                cwd=self.cwd,
                env=os.environ | self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)

    def environment(self) -> dict[str, str]:
        """What counts its syncs."""
        library = str(build("syncs.c", "syncs.so", "-shared", "-fPIC"))
        return {"LD_PRELOAD": library, "BENCH_SYNCS": str(self.count)}

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.data.with_suffix(".log")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def healthy(self) -> bool:
        """Whether a read of an account is answered."""
        try:
            with self.client() as client:
                return client.call("healthy", "balance") >= 0
        except (OSError, http.client.HTTPException, BenchError):
            return False

    def client(self, timeout_s: float = 10.0) -> Client:
        """A connection of its own."""
        return Client(self.port, timeout_s)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it and its children; SIGKILL takes the whole session at once, as a power cut would."""
        if self.process is None:
            return
        pids = list(self.pids())
        for pid in pids if number == signal.SIGKILL else [self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        try:
            self.process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.stop(signal.SIGKILL)
        wait_until_gone(pids)
        self.process = None

    def pids(self) -> Iterator[int]:
        """The process and everything below it, parents first."""
        assert self.process is not None
        children: dict[int, list[int]] = {}
        for pid, parent, _ in processes():
            children.setdefault(parent, []).append(pid)
        todo = [self.process.pid]
        while todo:
            pid = todo.pop()
            yield pid
            todo += children.get(pid, [])

    def cpu_s(self) -> float:
        """CPU seconds that the live processes of the tree have used, user and system."""
        tree = set(self.pids())
        return sum(ticks for pid, _, ticks in processes() if pid in tree) / TICKS_PER_S

    def rss_bytes(self) -> dict[int, int]:
        """Resident memory by process."""
        page = os.sysconf("SC_PAGE_SIZE")
        sizes = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                sizes[pid] = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
        return sizes

    def syncs(self) -> int:
        """Syncs of all its processes since the first start, counted by bench/syncs.c."""
        return int.from_bytes(self.count.read_bytes(), sys.byteorder)

    @property
    def count(self) -> Path:
        """The file that bench/syncs.c counts in."""
        return self.data.with_suffix(".syncs")


class Client:
    """One keep-alive connection that calls accounts."""

    def __init__(self, port: int, timeout_s: float) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def call(self, account: str, method: str, amount: int | None = None, key: str | None = None) -> int:
        """Call a method of an account; its balance afterwards. Raises BenchError on any answer but success."""
        body = b"" if amount is None else json.dumps({"amount": amount}).encode()
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        self.connection.request("POST", f"/v1/actors/ACCOUNT/{account}/{method}", body, headers)
        response = self.connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise BenchError(f"{method} of {account}: {response.status} {text[:300]!r}")
        answer = json.loads(text)
        if isinstance(answer, dict):
            if not answer["ok"]:
                raise BenchError(f"{method} of {account}: refused, {text[:300]!r}")
            answer = answer["balance"]
        return int(answer)


def for_each_account(server: Server, names: Iterable[str], method: str, amount: int | None = None) -> int:
    """Call one method of many accounts over a few connections; the sum of the balances."""
    clients: queue.SimpleQueue[Client] = queue.SimpleQueue()

    def one(name: str) -> int:
        client = clients.get()
        try:
            return client.call(name, method, amount)
        finally:
            clients.put(client)

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(CLIENT_THREADS) as pool:
        for _ in range(CLIENT_THREADS):
            clients.put(stack.enter_context(server.client(60.0)))
        return sum(pool.map(one, names))


def processes() -> Iterator[tuple[int, int, int]]:
    """(pid, parent, CPU ticks) of every live process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                yield int(folder.name), int(fields[1]), int(fields[11]) + int(fields[12])


def wait_until_gone(pids: Iterable[int]) -> None:
    """Wait for processes that are not our children; zombies that their parent has yet to reap count as gone."""
    deadline = time.monotonic() + STOP_DEADLINE_S
    for pid in pids:
        while time.monotonic() < deadline and alive(pid):
            time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a thread of the process runs: one in a sync keeps the files open when the first is a zombie already."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            if (thread / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                return True
    return False


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def build(source: str, binary: str, *options: str) -> Path:
    """Compile a C file of this folder. Raises BenchError with the compiler's words."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchError("a C compiler is missing: install gcc and libc6-dev")
    target = BENCH / "bin" / binary
    if target.exists() and target.stat().st_mtime > (BENCH / source).stat().st_mtime:
        return target  # running servers have it mapped
    target.parent.mkdir(exist_ok=True)
    command = [compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", *options]
    result = subprocess.run([*command, "-o", str(target), str(BENCH / source)], capture_output=True, text=True)
    if result.returncode != 0:
        raise BenchError(f"bench/{source} does not compile:\n{result.stderr}")
    return target


def baseline(folder: Path) -> Server:
    """The hand-rolled C server."""
    command = [str(build("baseline.c", "baseline"))]
    return Server("C", command, lambda port, data: [str(port), str(data)], folder / "c")


def kubeactor(name: str, folder: Path, options: Iterable[str] = (), checkout: Path = ROOT) -> Server:
    """The example bank of a checkout under `kubeactor dev` with more options (`--hosts 1`)."""
    command = [str(checkout.resolve() / ".venv/bin/kubeactor"), "dev", "bank:Account", *options]

    def arguments(port: int, data: Path) -> list[str]:
        return ["--port", str(port), "--data", str(data)]

    data = folder / re.sub(r"\W+", "-", name)
    return Server(name, command, arguments, data, checkout / ACCOUNTS_APP.relative_to(ROOT))
