"""The turn page: a mapped file that still says which turn was being stepped after the process has died.

The worker marks it on the hot path, the supervisor reads it when the worker is silent or dead.

    offset  bytes  what
    0       4      magic
    8       8      tick: monotonic ns of the worker's last loop tick, 0 before the first
    16      16     boot id of the machine that wrote the page
    32      1      1 while a turn is stepped; written after the label, cleared before it is overwritten
    33      1      1 while the loop is inside RocksDB
    34      1      1 when the worker sent SIGKILL to itself
    35      1      the worker's memory in percent of its limit, as last seen by the supervisor
    64      ...    label: BINDING NUL identity NUL method NUL

A store to a shared mapping is visible to the kernel at once and in program order, so a SIGKILL between two stores
leaves either no turn or a whole label; the page needs no sync, since only the death of processes is asked about.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kubeactor.ids import ActorId

__all__ = ["Stepped", "TurnPage", "instance_of", "label_of"]

SIZE: Final = 4096
METHOD_BYTES: Final = 255
_MAGIC: Final = b"KTP1"
_TICK: Final = struct.Struct("<Q")
_TICK_AT: Final = 8
_BOOT: Final = slice(16, 32)
_STEPPING: Final = 32
_ROCKSDB: Final = 33
_OWN_KILL: Final = 34
_MEMORY: Final = 35
_LABEL: Final = 64
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Stepped:
    """The turn that a page names: `actor` its instance, `instance` the same as BINDING NUL identity, and its method."""

    actor: ActorId
    instance: bytes
    method: str

    def __str__(self) -> str:
        return f"{self.actor}.{self.method}"


def instance_of(actor: ActorId) -> bytes:
    """The bytes that name an instance on the page and in the quarantine: BINDING NUL identity."""
    return actor.binding.encode() + b"\0" + actor.identity


def label_of(instance: bytes, method: str) -> bytes:
    """What `TurnPage.enter` takes; make it once a turn. A method's name is cut at 255 bytes."""
    return instance + b"\0" + method.encode()[:METHOD_BYTES] + b"\0"


class TurnPage:
    """One mapped page, shared by a worker and its supervisor. Its descriptor `fd` stays open, for a spawned worker."""

    __slots__ = ("_bytes", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._bytes = mmap.mmap(fd, SIZE)

    @classmethod
    def open(cls, path: Path) -> TurnPage:
        """The page in a file, made if it is absent; what an earlier process left in it is kept.

        Raises:
            OSError: when the file can't be made, or its volume has no block left for it.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A hole in the file would be a SIGBUS on the first mark when the volume is full.
            os.posix_fallocate(fd, 0, SIZE)
            return cls(fd)
        except OSError:
            os.close(fd)
            raise

    @classmethod
    def anonymous(cls) -> TurnPage:
        """A page in memory, for a worker without a volume."""
        fd = os.memfd_create("kubeactor-turn-page", os.MFD_CLOEXEC)
        os.ftruncate(fd, SIZE)
        return cls(fd)

    def close(self) -> None:
        """Unmaps the page and closes its descriptor."""
        self._bytes.close()
        os.close(self.fd)

    # The worker's side. enter and leave are on the path of each turn: 0.1 and 0.03 us.

    def enter(self, label: bytes) -> None:
        """Names the turn that is stepped from here on; `label` is from `label_of`."""
        page = self._bytes
        page[_STEPPING] = 0
        page[_LABEL : _LABEL + len(label)] = label
        page[_STEPPING] = 1

    def leave(self) -> None:
        """No turn is stepped from here on."""
        self._bytes[_STEPPING] = 0

    def enter_rocksdb(self) -> None:
        """The loop goes into RocksDB: silence is tolerated for longer."""
        self._bytes[_ROCKSDB] = 1

    def leave_rocksdb(self) -> None:
        """The loop is back from RocksDB."""
        self._bytes[_ROCKSDB] = 0

    def tick(self) -> None:
        """The loop is alive. Call it every 0.5 s; the supervisor watches a worker from its first tick on."""
        _TICK.pack_into(self._bytes, _TICK_AT, time.monotonic_ns())

    def mark_own_kill(self) -> None:
        """This process is about to send SIGKILL to itself: nobody else is to blame for its death."""
        self._bytes[_OWN_KILL] = 1

    # The supervisor's side.

    def reset(self) -> None:
        """Makes the page ready for a new worker."""
        page = self._bytes
        page[_STEPPING] = page[_ROCKSDB] = page[_OWN_KILL] = page[_MEMORY] = 0
        _TICK.pack_into(page, _TICK_AT, 0)
        page[:4] = _MAGIC
        page[_BOOT] = _boot_id()

    def read(self) -> Stepped | None:
        """The turn that is being stepped, or was when the worker died; None for no turn or an unreadable page."""
        page = self._bytes
        if page[:4] != _MAGIC or page[_STEPPING] != 1:
            return None
        parts = page[_LABEL:].split(b"\0", 3)
        if len(parts) < 4 or not all(parts[:3]):
            return None
        try:
            actor = ActorId(parts[0].decode("ascii"), parts[1])
            str(actor)
            return Stepped(actor, parts[0] + b"\0" + parts[1], parts[2].decode(errors="replace"))
        except UnicodeDecodeError:
            return None

    @property
    def last_tick(self) -> int:
        """Monotonic ns of the last tick; 0 before the first."""
        tick: int = _TICK.unpack_from(self._bytes, _TICK_AT)[0]
        return tick

    @property
    def in_rocksdb(self) -> bool:
        """Whether the loop is inside RocksDB."""
        return self._bytes[_ROCKSDB] == 1

    @property
    def own_kill(self) -> bool:
        """Whether the worker sent SIGKILL to itself."""
        return self._bytes[_OWN_KILL] == 1

    @property
    def memory_percent(self) -> int:
        """What `note_memory` stored last, 0..255."""
        return self._bytes[_MEMORY]

    def note_memory(self, percent: float) -> None:
        """Keeps the worker's memory in percent of its limit, for a supervisor that finds the page after both died."""
        self._bytes[_MEMORY] = min(255, round(percent))

    @property
    def of_this_boot(self) -> bool:
        """Whether the page was written since this machine started; else its turn died of the machine."""
        return self._bytes[_BOOT] == _boot_id()


def _boot_id() -> bytes:
    return uuid.UUID(_BOOT_ID.read_text().strip()).bytes
