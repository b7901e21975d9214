"""The switchboard of the fault shim: builds it, steers it and reads what it noted.

SIGKILL leaves the page cache alone, so a test that only kills can't tell a synced write from one that was never synced.
`shim/lostwrite.c` is loaded into the processes under test with LD_PRELOAD and shares one mapped file with this module:
a page of switches, then records of what happened, then their texts. `disk.py` turns the records into what a disk may
hold after its power went.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.disk import Disk, Mode

__all__ = ["ALL", "MANIFEST", "OTHER", "SST", "WAL", "Event", "Kind", "Mode", "Shim", "build"]

SOURCE: Final = Path(__file__).parent / "shim" / "lostwrite.c"
CONTROL_BYTES: Final = 4096
RECORD: Final = struct.Struct("<IIQQQQQQIi")
RECORDS: Final = 1 << 20
TEXT_BYTES: Final = 1 << 28  # sparse: only what is used takes room

WAL: Final = 1
SST: Final = 2
MANIFEST: Final = 4
OTHER: Final = 8
ALL: Final = 15


class Kind(enum.IntEnum):
    """What a record tells; the numbers are those of lostwrite.c."""

    CREATE = 1
    TRUNCATE = 2
    SYNC = 3
    SYNC_DIR = 4
    UNLINK = 5
    RENAME = 6
    MKDIR = 7
    WRITE = 8
    SEND = 9
    OVERWRITE = 10
    SWALLOWED = 11
    SYNC_FAILED = 12


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a process did. Times are nanoseconds of CLOCK_MONOTONIC."""

    kind: Kind
    process: int
    began_ns: int
    ended_ns: int
    inode: int
    offset: int
    length: int
    text: bytes
    result: int


class Switches(ctypes.Structure):
    """The first page of the mapped file: `struct control` of lostwrite.c, field by field, all 64 bits wide."""

    records: int
    texts: int
    record: int
    text: int
    overflow: int
    off: int
    cut_writes: int
    cut_syncs: int
    cut_before: int
    cut_files: int
    delay_ns: int
    delay_files: int
    swallow_files: int
    fail_sync_at: int
    fail_sync_files: int
    full_at: int
    full_files: int
    log_traffic: int
    writes: int
    syncs: int
    _fields_ = tuple((name, ctypes.c_uint64) for name in __annotations__)


FAULTS: Final = [
    name for name in Switches.__annotations__ if name.startswith(("cut", "delay", "swallow", "fail", "full"))
]


def build() -> Path:
    """The compiled shim, from a cache folder of the user's that is keyed by the source; compiled when it is not there.

    Raises:
        FileNotFoundError: when there is no C compiler.
        subprocess.CalledProcessError: when it refuses the source.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubeactor"
    library = cache / f"lostwrite-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"
    if not library.exists():
        cache.mkdir(parents=True, exist_ok=True)
        fresh = library.with_suffix(f".{os.getpid()}")
        flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        subprocess.run(["cc", *flags, "-o", fresh, SOURCE], check=True)
        fresh.replace(library)
    return library


class Shim:
    """One folder whose power can be cut.

    Args:
        root: the folder; it must exist, and counts as durable with all that is in it now.
        work: a folder for the shim's own use, on the same file system, not below `root`.

    Attributes:
        overwrites: how many unsynced writes over older bytes of a file all `restore`s had to lose or keep.
    """

    def __init__(self, root: Path, work: Path) -> None:
        self.root = root.resolve()
        self.morgue = work / "morgue"
        self.page = work / "page"
        self.overwrites = 0
        work.mkdir(parents=True, exist_ok=True)
        size = CONTROL_BYTES + RECORDS * RECORD.size + TEXT_BYTES
        with self.page.open("wb") as file:
            file.truncate(size)
        with self.page.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        self.switches = Switches.from_buffer(self._map)
        self.switches.records = RECORDS
        self.switches.texts = TEXT_BYTES
        self.forget()

    def environment(self) -> dict[str, str]:
        """The variables that put a process, and all that it starts, under the shim."""
        return {
            "LD_PRELOAD": str(build()),
            "LOSTWRITE_PAGE": str(self.page),
            "LOSTWRITE_ROOT": str(self.root),
            "LOSTWRITE_MORGUE": str(self.morgue),
            "UV_USE_IO_URING": "0",  # what goes through a ring is seen by no wrapper
        }

    # -- faults ------------------------------------------------------------------------------------------------------

    def delay_syncs(self, seconds: float, files: int = WAL) -> None:
        """Let each sync of these files take this much longer."""
        self.switches.delay_ns = int(seconds * 1e9)
        self.switches.delay_files = files if seconds else 0

    def fail_syncs(self, at: int = 1, files: int = WAL) -> None:
        """Fail with EIO the `at`-th sync of these files from now, and all later ones, until `clear`."""
        self.switches.fail_sync_files = files
        self.switches.fail_sync_at = at

    def fill_disk(self, at: int = 1, files: int = ALL) -> None:
        """Fail with ENOSPC the `at`-th write to these files from now, and all later ones, until `clear`."""
        self.switches.full_files = files
        self.switches.full_at = at

    def swallow_syncs(self, files: int = ALL) -> None:
        """Let syncs of these files return at once, with nothing synced: the fault that the tests must notice."""
        self.switches.swallow_files = files

    def log_traffic(self) -> None:
        """Note each write to a watched file and each send on a TCP socket too."""
        self.switches.log_traffic = 1

    def clear(self) -> None:
        """Take back every fault; the power stays as it is."""
        for name in FAULTS:
            setattr(self.switches, name, 0)

    # -- power -------------------------------------------------------------------------------------------------------

    def cut_at(self, *, write: int = 0, sync: int = 0, before: bool = False, files: int = ALL) -> None:
        """Cut the power at the n-th write or sync of these files from now: before it is done, or just after."""
        self.switches.cut_before = before
        self.switches.cut_files = files
        self.switches.cut_writes = write
        self.switches.cut_syncs = sync

    def cut_now(self) -> None:
        """Cut the power: nothing is written or sent from here on; every process under the shim is killed."""
        self.switches.off = 1
        self.kill()

    @property
    def is_off(self) -> bool:
        """Whether the power was cut."""
        return bool(self.switches.off)

    def kill(self, timeout_s: float = 60.0) -> None:
        """SIGKILL every process under this shim and wait until none is left.

        Raises:
            TimeoutError: when one outlives that.
        """
        end = time.monotonic() + timeout_s
        while victims := list(self.processes()):
            for pid in victims:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > end:
                raise TimeoutError(f"processes {victims} outlive SIGKILL")
            time.sleep(0.001)

    def processes(self) -> Iterator[int]:
        """The living processes that run under this shim, found by their environment: orphans too."""
        mark = f"LOSTWRITE_PAGE={self.page}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    inherited = mark in (entry / "environ").read_bytes().split(b"\0")
                    dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
                except OSError:
                    continue
                if inherited and not dead:
                    yield int(entry.name)

    def restore(self, mode: Mode, rng: random.Random) -> None:
        """Roll the folder back to what a disk may hold after the cut, and switch the power on.

        Every process under the shim must be dead. What is in the folder afterwards counts as durable.

        Raises:
            AssertionError: when a process lives, or the log has overflowed.
        """
        assert not list(self.processes()), "a process is still alive"
        disk = Disk(self.root, self.morgue)
        disk.replay(self.events())
        disk.roll_back(mode, rng)
        self.overwrites += disk.undone
        self.forget()
        self.switches.off = 0

    def forget(self) -> None:
        """Empty the log and take the folder as it is now for durable. No process may be running."""
        used = min(self.switches.record, RECORDS) * RECORD.size
        self._map[CONTROL_BYTES : CONTROL_BYTES + used] = bytes(used)
        self.switches.record = 0
        self.switches.text = 0
        self.switches.overflow = 0
        shutil.rmtree(self.morgue, ignore_errors=True)
        self.morgue.mkdir()
        for path in sorted(self.root.rglob("*")):
            Disk.keep(self.morgue, path)

    # -- the log -----------------------------------------------------------------------------------------------------

    def events(self) -> Iterator[Event]:
        """What was noted since the start or the last `forget`, in order.

        Raises:
            AssertionError: when the log has overflowed, so that nothing follows from it.
        """
        assert not self.switches.overflow, "the shim's log is too small for this test"
        end = CONTROL_BYTES + self.switches.record * RECORD.size
        texts = CONTROL_BYTES + RECORDS * RECORD.size
        for at in range(CONTROL_BYTES, end, RECORD.size):
            kind, process, began, ended, inode, offset, length, text, size, result = RECORD.unpack_from(self._map, at)
            if kind:
                words = self._map[texts + text : texts + text + size]
                yield Event(Kind(kind), process, began, ended, inode, offset, length, words, result)
