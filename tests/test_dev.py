"""`kubeactor dev` as a user runs it: embedded and with hosts, restarted, changed, told to end, its processes killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.harness.program import Program, running
from tests.harness.supervision import gone, watched

EMBEDDED = ()
HOSTS = ("--hosts", "2")
COUNTER = """
from kubeactor import Actor
class Counter(Actor):
    async def add(self) -> list[int]:
        count = await self.ctx.storage.get("count", 0) + 1
        await self.ctx.storage.put("count", count)
        return [count, {step}]
"""


@contextmanager
def dev(folder: Path, *options: str, actors: str = "lab:Lab", code: Path | None = None) -> Iterator[Program]:
    arguments = ["dev", actors, "--port", "{port}", "--data", str(folder / "data"), *options]
    at = {"folder": code} if code else {}
    with running(folder / "log", *arguments, **at) as program:
        yield program.ready()


@pytest.mark.parametrize("options", [EMBEDDED, HOSTS])
def test_it_serves_and_a_restart_keeps_the_data(tmp_path: Path, options: tuple[str, ...]) -> None:
    for run in (1, 2):
        with dev(tmp_path, *options) as program:
            for name in ("alice", "bob", "carol", "dave"):
                assert program.http.post(f"/v1/actors/LAB/{name}/add").json() == run
            assert program.stop() == (0, pytest.approx(0, abs=2.0))


@pytest.mark.parametrize("options", [EMBEDDED, HOSTS])
def test_it_greets_once_its_volumes_are_open(tmp_path: Path, options: tuple[str, ...]) -> None:
    with dev(tmp_path, *options) as program:
        program.prints("kubeactor serves")
        program.stop()
    current = tmp_path / "data" / "host-0" / "db" / "CURRENT"
    good = current.read_bytes()
    current.write_text("not what RocksDB wrote")
    (tmp_path / "log").unlink()
    arguments = ["dev", "lab:Lab", "--port", "{port}", "--data", str(tmp_path / "data"), *options]
    with running(tmp_path / "log", *arguments) as program:
        program.prints("can't be opened")
        assert "kubeactor serves" not in program.output
        current.write_bytes(good)
        program.prints(f"kubeactor serves http://127.0.0.1:{program.port}")


def test_an_address_of_ipv6_is_shown_as_a_url_has_it(tmp_path: Path) -> None:
    with running(
        tmp_path / "log", "dev", "lab:Lab", "--port", "{port}", "--data", str(tmp_path), "--address", "::1"
    ) as it:
        it.prints(f"kubeactor serves http://[::1]:{it.port}, data in ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("options", [EMBEDDED, HOSTS])
def test_it_ends_within_two_seconds_and_says_nothing_of_it(
    tmp_path: Path, number: signal.Signals, options: tuple[str, ...]
) -> None:
    with dev(tmp_path, *options, "--front-door", "lab:fetch") as program, ThreadPoolExecutor(8) as pool:
        idle = httpx.Client(base_url=program.http.base_url)
        idle.get("/healthz")
        calls = [pool.submit(_outcome, program.port, i) for i in range(8)]
        assert program.http.post("/v1/actors/LAB/a/add").json() == 1
        status, seconds = program.stop(number)
        idle.close()
        assert (status, seconds < 2.0) == (0, True), program.output
        assert "Traceback" not in program.output
        assert "ended by itself" not in program.output
        assert all(call.result() for call in calls)


def _outcome(port: int, number: int) -> str:
    """Of a call that is under way at the end: a whole answer, or a broken connection."""
    try:
        return str(httpx.post(f"http://127.0.0.1:{port}/v1/actors/LAB/slow-{number}/slow", json=[30]).status_code)
    except httpx.TransportError as error:
        return type(error).__name__


def test_a_worker_that_is_killed_with_its_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    with dev(tmp_path, *HOSTS) as program:
        program.http.post("/v1/actors/LAB/a/add")
        workers = [watched(pid) for pid in program.workers()]
        program.process.kill()
        program.process.wait()
        assert all(gone(worker) for worker in workers)
    with dev(tmp_path, *HOSTS) as program:
        assert program.http.post("/v1/actors/LAB/a/count").json() == 1


class Load:
    """Clients that add 1 under a key each, again until they have an answer; `added` is how many have one."""

    def __init__(self, port: int, clients: int = 8) -> None:
        self.port = port
        self.added = 0
        self.statuses: set[int] = set()
        self.broken = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self, client: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30.0) as http:
            number = 0
            while not self._stop.is_set():
                number += 1
                self._add(http, client, number)

    def _add(self, http: httpx.Client, client: int, number: int) -> None:
        while not self._stop.is_set():
            try:
                answer = http.post(
                    f"/v1/actors/LAB/load-{client}/add", headers={"Idempotency-Key": f"{client}-{number}"}
                )
            except httpx.TransportError:
                self.broken += 1
                time.sleep(0.005)  # the pause of a polite client
                continue
            with self._lock:
                self.statuses.add(answer.status_code)
                self.added += answer.status_code == 200
            assert (answer.status_code, answer.json()) == (200, number), answer.text
            return

    def more(self, count: int) -> None:
        """Wait until that many more were added."""
        wanted, end = self.added + count, time.monotonic() + 60.0
        while self.added < wanted:
            assert time.monotonic() < end, f"{self.added}, not {wanted}"
            assert all(thread.is_alive() for thread in self._threads)
            time.sleep(0.002)

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def worker(program: Program, role: str) -> int:
    """The process id of a host that serves the load, or of the ingress: only that one has the HTTP port."""
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    inodes = {line.split()[9] for line in table if line.split()[1].endswith(f":{program.port:04X}")}
    found = {pid: _holds(pid, inodes) for pid in program.workers()}
    return next(pid for pid, holds in found.items() if holds == (role == "ingress"))


def _holds(pid: int, inodes: set[str]) -> bool:
    links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    return any(f"socket:[{inode}]" in links for inode in inodes)


@pytest.mark.parametrize("role", ["host", "ingress"])
def test_a_process_that_is_killed_under_load_costs_time_and_doubles_nothing(tmp_path: Path, role: str) -> None:
    with dev(tmp_path, *HOSTS) as program:
        with Load(program.port) as load:
            for _ in range(3):
                load.more(50)
                os.kill(worker(program, role), signal.SIGKILL)
            load.more(50)
        assert load.statuses == {200}
        assert (load.broken > 0) == (role == "ingress")


def test_a_worker_that_is_killed_under_load_doubles_nothing(tmp_path: Path) -> None:
    with dev(tmp_path) as program:
        with Load(program.port) as load:
            for _ in range(3):
                load.more(50)
                os.kill(program.workers()[0], signal.SIGKILL)
            load.more(50)
        assert load.statuses == {200}
        assert "worker restarted 3 times, last: killed by SIGKILL" in program.says("/readyz", 200)


@pytest.mark.parametrize("options", [EMBEDDED, HOSTS])
def test_changed_code_serves_on_the_same_data_and_port(tmp_path: Path, options: tuple[str, ...]) -> None:
    code = tmp_path / "counter.py"
    code.write_text(COUNTER.format(step=1))
    with dev(tmp_path, *options, actors="counter:Counter", code=tmp_path) as program:
        count = until(program, 1)
        change(code, COUNTER.format(step=10))
        count = until(program, 10, count)
        change(code, COUNTER.format(step=100) + "\nthis is no Python")
        program.prints("the changed code can't be loaded, the one before serves on: counter can't be imported: SyntaxE")
        workers = program.workers()
        assert program.http.post("/v1/actors/COUNTER/a/add").json() == [count + 1, 10]
        assert program.workers() == workers
        change(code, COUNTER.format(step=1000))
        until(program, 1000, count + 1)
        assert program.stop()[0] == 0


def test_a_module_that_the_changed_code_needs_may_come_after_it(tmp_path: Path) -> None:
    code = tmp_path / "counter.py"
    code.write_text(COUNTER.format(step=1))
    with dev(tmp_path, actors="counter:Counter", code=tmp_path) as program:
        count = until(program, 1)
        change(code, "import other\n" + COUNTER.format(step="other.STEP"))
        program.prints("counter can't be imported: No module named 'other'")
        (tmp_path / "other.py").write_text("STEP = 5\n")
        until(program, 5, count)


def change(path: Path, text: str) -> None:
    """Save as editors do; the time of change is another one in any case."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    if path.stat().st_mtime_ns == before:
        os.utime(path, ns=(before + 1, before + 1))


def until(program: Program, step: int, before: int = 0) -> int:
    """Call until the code with that step answers, which goes on from the count of the one before; the count."""
    tried, count = before, before
    end = time.monotonic() + 60.0
    while time.monotonic() < end:
        tried += 1
        try:
            now, used = program.http.post("/v1/actors/COUNTER/a/add").json()
        except httpx.TransportError:
            continue
        assert count < now <= tried
        count = now
        if used == step:
            return count
        time.sleep(0.02)
    raise AssertionError(f"no answer of step {step}:\n{program.output[-3000:]}")


NEEDS_A_FILE = """
from contextlib import asynccontextmanager
from pathlib import Path
from kubeactor import Actor, Binding, Env
class Counter(Actor):
    env: "Needs"
    async def get(self) -> str: return self.env.text
class Needs(Env):
    COUNTER: Binding[Counter]
    @asynccontextmanager
    async def lifespan(self):
        self.text = Path("database").read_text()
        yield
        print("closed the database", flush=True)
"""


def test_a_lifespan_that_fails_is_told_and_tried_again_until_it_succeeds(tmp_path: Path) -> None:
    (tmp_path / "counter.py").write_text(NEEDS_A_FILE)
    arguments = ["dev", "counter:Counter", "--port", "{port}", "--data", str(tmp_path / "data")]
    with running(tmp_path / "log", *arguments, folder=tmp_path) as program:
        program.prints("worker worker died: RuntimeError: Needs.lifespan failed: FileNotFoundError: ")
        first = next(line for line in program.output.splitlines() if line.startswith("  File "))
        assert f'"{tmp_path}/counter.py"' in first  # the traceback begins at the user's frame
        assert "serving.py" not in program.output
        assert "kubeactor serves" not in program.output
        (tmp_path / "database").write_text("there")
        assert program.ready().http.post("/v1/actors/COUNTER/a/get").json() == "there"
        program.prints("kubeactor serves")
        assert program.stop()[0] == 0
        assert program.output.count("closed the database") == 1
