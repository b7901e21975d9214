"""The fault shim itself, against a real RocksDB: a test that trusts it is worth what these are worth."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.shim import SST, WAL, Kind, Mode, Shim
from tests.harness.needs import needs_compiler

needs_compiler()

PRELUDE = """
import os, sys, time
from rocksdict import Options, Rdict, WriteBatch, WriteOptions
unsynced = WriteOptions()
unsynced.sync = False
options = Options(raw_mode=True)
options.create_if_missing(True)
db = Rdict(sys.argv[1], options=options)
def put(name, i, size=100):
    batch = WriteBatch(raw_mode=True)
    batch.put(b"%b%06d" % (name, i), b"v" * size)
    db.write(batch, unsynced)
def names():
    return [key.decode() for key in db.keys()]
def die():
    os.kill(os.getpid(), 9)
def say(*words):
    print(*words, flush=True)
"""


class Machine:
    """A folder under the shim, and programs that use it."""

    def __init__(self, root: Path, work: Path) -> None:
        self.path = root / "db"
        self.path.mkdir(parents=True)
        self.shim = Shim(root, work)

    def start(self, program: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PRELUDE + program, str(self.path)],
            env=self.shim.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str) -> tuple[int, list[str], str]:
        """The return code, the printed lines and the error output of the whole program."""
        process = self.start(program)
        out, err = process.communicate(timeout=60)
        return process.returncode, out.splitlines(), err

    def restored(self, mode: Mode, seed: int = 0) -> list[str]:
        """The keys that are there after the power was cut and came back."""
        self.shim.switches.off = 1
        self.shim.kill()
        self.shim.restore(mode, random.Random(seed))
        code, lines, err = self.run("say(*names())")
        assert code == 0, err
        return lines[0].split()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "data", tmp_path / "work")
    yield machine
    machine.shim.kill()


def expected(name: str, count: int) -> list[str]:
    return [f"{name}{i:06d}" for i in range(count)]


def test_what_was_written_but_not_synced_survives_a_kill_and_not_a_power_loss(machine: Machine) -> None:
    machine.run("for i in range(50): put(b'a', i)\ndie()")
    assert machine.run("say(*names())\ndie()")[1] == [" ".join(expected("a", 50))]
    machine.run("for i in range(50): put(b'b', i)\ndie()")
    # the open that recovered `a` wrote it into a synced file, so only `b` is at risk
    assert machine.restored(Mode.DROP) == expected("a", 50)


def test_what_was_synced_survives_a_power_loss(machine: Machine) -> None:
    machine.run("for i in range(50): put(b'a', i)\ndb.flush_wal(True)\nput(b'b', 0)\ndie()")
    assert machine.restored(Mode.DROP) == expected("a", 50)


def test_a_folder_whose_parent_was_never_synced_is_gone_with_all_that_is_in_it(machine: Machine) -> None:
    other = machine.shim.root / "other"
    machine.run(f"put(b'a', 0)\ndb.flush_wal(True)\ndb = Rdict({str(other)!r}, options=options)\ndb.flush_wal(True)")
    assert other.joinpath("CURRENT").exists()
    assert machine.restored(Mode.DROP) == ["a000000"]
    assert not other.exists()


def test_a_torn_tail_leaves_a_prefix(machine: Machine) -> None:
    kept = set()
    for seed in range(8):
        machine.run(
            f"for i in range(10): put(b'{seed}a', i)\ndb.flush_wal(True)\nfor i in range(10): put(b'{seed}b', i)\ndie()"
        )
        mine = [key for key in machine.restored(Mode.TEAR, seed) if key.startswith(str(seed))]
        assert mine == expected(f"{seed}a", 10) + expected(f"{seed}b", len(mine) - 10)
        kept.add(len(mine))
    assert len(kept) > 2, "different seeds tear at different bytes"


def test_a_hole_in_the_tail_leaves_what_was_synced(machine: Machine) -> None:
    for seed in range(6):
        machine.run(
            f"for i in range(10): put(b'{seed}a', i)\ndb.flush_wal(True)\nfor i in range(99): put(b'{seed}b', i)\ndie()"
        )
        mine = [key for key in machine.restored(Mode.HOLE, seed) if key.startswith(str(seed))]
        assert mine[:10] == expected(f"{seed}a", 10)


def test_flushed_tables_and_removed_logs_follow_their_own_syncs(machine: Machine) -> None:
    for seed, mode in enumerate([Mode.DROP, Mode.TEAR] * 3):
        machine.run(f"for i in range(20): put(b'{seed}', i)\ndb.flush()\nput(b'lost', {seed})\ndie()")
        assert expected(str(seed), 20) == [key for key in machine.restored(mode, seed) if key.startswith(str(seed))]


@pytest.mark.parametrize("before", [True, False])
def test_the_power_goes_at_the_chosen_sync(machine: Machine, before: bool) -> None:
    machine.run("put(b'z', 0)\ndb.flush_wal(True)")
    machine.shim.cut_at(sync=3, before=before, files=WAL)
    code, lines, _ = machine.run("for i in range(9):\n    put(b'a', i)\n    db.flush_wal(True)\n    say(i)")
    assert (code, lines, machine.shim.is_off) == (-9, ["0", "1"], True)
    assert machine.restored(Mode.DROP) == [*expected("a", 2 if before else 3), "z000000"]


@pytest.mark.parametrize("before", [True, False])
def test_the_power_goes_at_the_chosen_write(machine: Machine, before: bool) -> None:
    machine.shim.cut_at(write=3, before=before, files=WAL)
    code, lines, _ = machine.run("for i in range(9):\n    put(b'a', i)\n    say(i)")
    assert (code, lines) == (-9, ["0", "1"])
    machine.shim.switches.off = 0
    machine.shim.clear()
    assert machine.run("say(*names())")[1][0].split() == expected("a", 2 if before else 3)


def test_after_the_cut_no_process_writes_and_an_orphan_is_found(machine: Machine) -> None:
    process = machine.start("import signal\nif os.fork() == 0:\n    os.setsid()\nsay('up')\nsignal.pause()")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in "12"] == ["up\n", "up\n"]
    assert len(list(machine.shim.processes())) == 2
    machine.shim.cut_now()
    process.communicate()
    assert list(machine.shim.processes()) == []


def test_a_swallowed_sync_is_no_sync(machine: Machine) -> None:
    machine.run("put(b'a', 0)\ndb.flush_wal(True)")
    machine.shim.forget()
    machine.shim.swallow_syncs(WAL)
    _, lines, _ = machine.run("put(b'b', 0)\ndb.flush_wal(True)\nsay('synced')\ndie()")
    assert lines == ["synced"]
    machine.shim.clear()
    assert machine.restored(Mode.DROP) == ["a000000"]


def test_a_slow_sync_is_slow_and_covers_only_what_it_began_with(machine: Machine) -> None:
    machine.run("put(b'z', 0)\ndb.flush_wal(True)")
    machine.shim.forget()
    machine.shim.delay_syncs(0.4)
    process = machine.start(
        "import threading\nput(b'a', 0)\nt = threading.Thread(target=db.flush_wal, args=(True,))\nt.start()\n"
        "time.sleep(0.2)\nput(b'b', 0)\nsay('written')\nbegan = time.monotonic()\nt.join()\n"
        "say(time.monotonic() - began > 0.1)\ndie()"
    )
    assert process.communicate(timeout=30)[0].splitlines() == ["written", "True"]
    assert machine.restored(Mode.DROP) == ["a000000", "z000000"]


def test_a_failed_sync_is_reported_and_its_bytes_are_never_durable(machine: Machine) -> None:
    machine.run("put(b'a', 0)\ndb.flush_wal(True)")
    machine.shim.forget()
    machine.shim.fail_syncs(at=2)
    code, lines, err = machine.run(
        "put(b'b', 0)\ndb.flush_wal(True)\nput(b'c', 0)\nsay('one')\ndb.flush_wal(True)\nsay('two')"
    )
    assert (lines, code != 0) == (["one"], True)
    assert "Input/output error" in err
    machine.shim.clear()
    assert machine.restored(Mode.DROP) == ["a000000", "b000000"]


def test_a_full_disk_fails_writes_until_it_is_cleared(machine: Machine) -> None:
    machine.run("put(b'a', 0)\ndb.flush_wal(True)")
    machine.shim.forget()
    machine.shim.fill_disk(at=3, files=WAL)
    _, lines, err = machine.run("for i in range(5):\n    put(b'b', i)\n    say(i)")
    assert lines == ["0", "1"]
    assert "No space left on device" in err
    machine.shim.clear()
    assert machine.run("say(*names())")[1][0].split() == ["a000000", *expected("b", 2)]


def test_a_blocked_flush_stalls_writes(machine: Machine) -> None:
    machine.shim.delay_syncs(1.0, SST)
    code, _, err = machine.run(
        "db.close()\noptions.set_write_buffer_size(65536)\noptions.set_max_write_buffer_number(2)\n"
        "db = Rdict(sys.argv[1], options=options, column_families={'default': options})\nunsynced.no_slowdown = True\n"
        "for i in range(5000):\n    put(b'a', i, 1000)"
    )
    assert code != 0
    assert "Write stall" in err


def test_the_log_tells_a_write_the_sync_that_covers_it_and_the_send_after_it(machine: Machine) -> None:
    machine.shim.log_traffic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[bytes] = []

        def accept() -> None:
            with server.accept()[0] as connection:
                accepted.append(connection.recv(100))

        peer = threading.Thread(target=accept)
        peer.start()
        code, _, err = machine.run(
            f"import socket\ns = socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))\n"
            "put(b'token', 7)\ndb.flush_wal(True)\ns.sendall(b'reply to token000007')\ndie()"
        )
        peer.join()
    assert (code, accepted) == (-9, [b"reply to token000007"]), err
    events = list(machine.shim.events())
    (write,) = (e for e in events if e.kind is Kind.WRITE and b"token000007" in e.text)
    (send,) = (e for e in events if e.kind is Kind.SEND and b"token000007" in e.text)
    syncs = [e for e in events if e.kind is Kind.SYNC and e.inode == write.inode]
    assert any(write.ended_ns <= sync.began_ns and sync.ended_ns <= send.began_ns for sync in syncs)


OVERWRITING = """
f = os.open(sys.argv[1] + '/x', os.O_CREAT | os.O_RDWR)
os.write(f, b'a' * 2000)
os.fsync(f)
os.fsync(os.open(sys.argv[1], os.O_RDONLY))
os.pwrite(f, b'b' * 900, 100)
SYNC
g = os.open(sys.argv[1] + '/x', os.O_WRONLY)
os.lseek(g, 500, 0)
os.write(g, b'c' * 1000)
os.write(g, b'd' * 1000)
die()
"""


def overwritten(machine: Machine, sync: bool, mode: Mode, seed: int) -> bytes:
    """What is left of 2,000 `a`, of `b` over 100-1,000, `c` over 500-1,500 and `d` from 1,500 to 2,500."""
    (machine.path / "x").unlink(missing_ok=True)
    machine.shim.forget()
    machine.run(OVERWRITING.replace("SYNC", "os.fdatasync(f)" if sync else ""))
    machine.restored(mode, seed)
    return (machine.path / "x").read_bytes()


def test_bytes_overwritten_after_a_sync_are_the_old_ones_again(machine: Machine) -> None:
    assert overwritten(machine, False, Mode.DROP, 0) == b"a" * 2000
    assert overwritten(machine, True, Mode.DROP, 0) == b"a" * 100 + b"b" * 900 + b"a" * 1000


def test_torn_overwrites_leave_the_first_ones_and_a_part_of_the_next(machine: Machine) -> None:
    synced = b"a" * 100 + b"b" * 900 + b"a" * 1000
    seen = set()
    for seed in range(12):
        left = overwritten(machine, True, Mode.TEAR, seed)
        new = (b"c" * 1000 + b"d" * 1000)[: sum(left.count(letter) for letter in b"cd")]
        assert left == (synced[:500] + new + synced[500 + len(new) :])[: max(2000, 500 + len(new))]
        seen.add(len(new))
    assert len(seen) > 3, "different seeds tear at different bytes"


def test_a_hole_in_overwrites_shows_the_old_bytes(machine: Machine) -> None:
    synced, written = b"a" * 100 + b"b" * 900 + b"a" * 1000, b"a" * 100 + b"b" * 400 + b"c" * 1000 + b"d" * 1000
    holes = 0
    for seed in range(8):
        left = overwritten(machine, True, Mode.HOLE, seed)
        differ = [at for at in range(2000) if left[at] != written[at]]
        assert all(left[at] == synced[at] for at in differ)
        holes += bool(differ)
    assert holes


RECYCLING = """
db.close()
options.set_recycle_log_file_num(2)
db = Rdict(sys.argv[1], options=options, column_families={'default': options})
for name in (b'x', b'y'):
    for i in range(100): put(name, i, 1000)
    db.flush()
"""


def test_records_in_a_recycled_log_follow_their_own_syncs(machine: Machine) -> None:
    """RocksDB renames the log before it writes over it: neither that nor the bytes may be lost once a sync returned."""
    for seed, mode in enumerate([Mode.DROP, Mode.TEAR, Mode.HOLE] * 3):
        program = f"for i in range(10): put(b'{seed}a', i)\ndb.flush_wal(True)\n"
        machine.run(f"{RECYCLING}{program}for i in range(9): put(b'{seed}b', i)\ndie()")
        before = machine.shim.overwrites
        left = machine.restored(mode, seed)
        assert machine.shim.overwrites > before, "no log was recycled"
        mine = [key for key in left if key.startswith(str(seed))]
        assert mine[:10] == expected(f"{seed}a", 10)
        assert [key for key in left if key.startswith("x")] == expected("x", 100)
        if mode is not Mode.HOLE:
            assert mine[10:] == expected(f"{seed}b", 0 if mode is Mode.DROP else len(mine) - 10)


@pytest.mark.parametrize(("synced", "mode", "left"), [(True, Mode.DROP, b"new"), (False, Mode.DROP, b"old")])
def test_a_rename_is_durable_with_its_folder(machine: Machine, synced: bool, mode: Mode, left: bytes) -> None:
    file = machine.shim.root / "table"
    file.write_bytes(b"old")
    machine.shim.forget()
    machine.run(
        f"root = {str(machine.shim.root)!r}\n"
        f"f = os.open(root + '/new', os.O_CREAT | os.O_WRONLY)\nos.write(f, b'new')\n"
        f"os.fsync(f)\nos.replace(root + '/new', root + '/table')\nif {synced}: os.fsync(os.open(root, os.O_RDONLY))"
    )
    machine.restored(mode)
    assert file.read_bytes() == left
    assert not file.with_name("new").exists()


def test_a_program_without_its_variables_is_left_alone(machine: Machine) -> None:
    environment = {"LD_PRELOAD": machine.shim.environment()["LD_PRELOAD"]}
    subprocess.run([sys.executable, "-c", PRELUDE + "put(b'a', 1)", str(machine.path)], env=environment, check=True)
    assert machine.shim.switches.record == 0
