"""The measuring stick itself: the C server keeps its promises, and a wrong sum fails a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture(autouse=True)
def bench_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.fixture
def server(require: Callable[[str], str], tmp_path: Path) -> Iterator[object]:
    require("cc")
    from servers import baseline

    server = baseline(tmp_path)
    server.start()
    yield server
    server.stop(signal.SIGKILL)


def test_the_c_server_is_as_small_as_promised() -> None:
    assert len((BENCH / "baseline.c").read_text().splitlines()) <= 300


def test_the_c_server_keeps_what_it_acknowledged_over_a_kill_and_a_torn_log(server, tmp_path: Path) -> None:
    with server.client() as client:
        assert client.call("alice", "deposit", 100) == 100
        assert client.call("alice", "debit", 30) == 70
    server.stop(signal.SIGKILL)
    log = tmp_path / "c" / "log"
    log.write_bytes(log.read_bytes() + b"half a record")
    server.start()
    with server.client() as client:
        assert client.call("alice", "balance") == 70
        assert client.call("alice", "deposit", 1) == 71


def test_the_c_server_refuses_an_overdraft_and_a_bad_amount(server) -> None:
    from servers import BenchError

    with server.client() as client:
        client.call("alice", "deposit", 5)
        with pytest.raises(BenchError, match="refused"):
            client.call("alice", "debit", 6)
        for amount in (0, -1, 2**63):
            with pytest.raises(BenchError, match="400"):
                client.call("alice", "deposit", amount)
        assert client.call("alice", "balance") == 5
        assert client.call("a%2Fb", "deposit", 7) == 7


def test_the_load_counts_every_success_to_the_unit(server, require: Callable[[str], str]) -> None:
    require("wrk")
    from bench import Books, Cell, drive
    from servers import BenchError

    books = Books()
    books.open(server, 10)
    samples = [drive(server, Cell(operation, 10, 16), 1, books, 1) for operation in ("debit", "deposit", "balance")]
    assert all(sample.calls > 0 for sample in samples)
    assert any(sample.cpu_us > 0 for sample in samples)  # counted in ticks of 10 ms
    books.check(server)
    with server.client() as client:
        client.call("bench-10-3", "deposit", 1)
    with pytest.raises(BenchError, match="10 accounts hold"):
        books.check(server)


def test_without_root_it_measures_on_the_machines_own_disk_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench import disk_of

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with disk_of(tmp_path, 0.25) as (folder, text):
        assert folder == tmp_path
        assert text.endswith("ms on the machine's own disk")
    assert capsys.readouterr().err == "on this machine's own disk: a slower disk needs root\n"


ON_A_SLOW_DISK = """
import sys
from pathlib import Path
import slow_disk
slow_disk.PROBES = 20
with slow_disk.slow_disk(Path(sys.argv[1]), 8.0) as disk:
    (kind,) = [line.split()[2] for line in open("/proc/mounts") if line.split()[1] == str(disk.folder)]
    print(kind, disk.sync_ms)
"""


def test_a_slower_disk_is_a_file_system_that_takes_its_time_and_leaves_nothing_behind(
    tmp_path: Path, require: Callable[[str], str]
) -> None:
    require("cc")
    import slow_disk

    if slow_disk.why_not():  # no root, or no such devices: then all depends on the test above
        assert os.geteuid() != 0 or slow_disk.why_not().startswith("a slower disk needs")
        return
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", ON_A_SLOW_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(BENCH)})
    assert done.returncode == 0, done.stderr
    kind, sync_ms = done.stdout.split()
    assert kind == "ext4"
    assert float(sync_ms) > 4.0
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert list((tmp_path / "disk").iterdir()) == []


def test_the_table_has_ratios_with_their_spread() -> None:
    from bench import Cell, Sample, table
    from servers import Server

    cell = Cell("debit", 1, 64)
    speeds = {"C": [100.0, 100.0, 200.0], "embedded": [300.0, 200.0, 200.0]}
    samples = [
        Sample(name, cell, turn, 1, per_s, 10.0, 5.0)
        for name, all_ in speeds.items()
        for turn, per_s in enumerate(all_)
    ]
    servers = [Server(name, [], lambda port, data: [], Path(sys.executable)) for name in speeds]
    row = table(samples, servers).splitlines()[-1]
    assert "**2.00** (1.00-3.00)" in row
    assert "100/s, 10 us, 5 syncs/s" in row
