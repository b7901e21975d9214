"""RocksDB, opened as the promises need it. The only module that imports rocksdict.

`write` puts a batch into the WAL unsynced; `sync` is the one call that releases the GIL while the disk works
(docs/performance.md). After one failed sync RocksDB refuses all later writes: the worker exits and starts again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from rocksdict import DBRecoveryMode, Options, Rdict, ReadOptions, WriteOptions
from rocksdict import WriteBatch as RawBatch

from kubeactor.engine.layout import FILLER

__all__ = [
    "DiskFullError",
    "Store",
    "StoreBusyError",
    "StoreError",
    "WriteBatch",
    "WriteStallError",
    "free_bytes",
    "reserve_bytes",
]

WRITE_BUFFER_BYTES: Final = 4 * 1024 * 1024
# The length of the WAL is the time of a restart (docs/performance.md): flush at the latest after so many batches.
FLUSH_BATCHES: Final = 20_000
# WAL files that RocksDB overwrites instead of making new ones, and how they are laid out at a start (decision 13).
RECYCLED_WALS: Final = 2
LAID_OUT_BYTES: Final = 1024 * 1024
LAID_OUT_BATCH_BYTES: Final = 64 * 1024
RANGE_DELETE_FROM: Final = 1000
FREE_FRACTION: Final = 0.05
FREE_BYTES: Final = 128 * 1024 * 1024
FREE_FRACTION_MOST: Final = 0.5  # 128 MiB are more than all of a small volume (docs/decisions/0015-small-volumes.md)


class StoreError(Exception):
    """Raised when RocksDB refused an operation; nothing written since the last sync counts as durable."""


class StoreBusyError(StoreError):
    """Raised when another process holds the folder."""


class WriteStallError(StoreError):
    """Raised when a write would wait for a flush or compaction: back-pressure, try again."""


class DiskFullError(StoreError):
    """Raised when the disk has no room."""


class WriteBatch:
    """Operations that are written as one, in their order.

    rocksdict's own batch is used up by the attempt to write it, also when that ends in a write stall: it is made from
    this one at each attempt.
    """

    __slots__ = ("_operations",)

    def __init__(self) -> None:
        self._operations: list[tuple[bytes | tuple[bytes, bytes], bytes | None]] = []

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value."""
        self._operations.append((key, value))

    def delete(self, key: bytes) -> None:
        """Delete a key."""
        self._operations.append((key, None))

    def delete_range(self, low: bytes, high: bytes) -> None:
        """Delete all keys of [low, high)."""
        self._operations.append(((low, high), None))

    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self._operations

    def raw(self) -> RawBatch:
        """The operations as rocksdict takes them."""
        raw = RawBatch(raw_mode=True)
        for key, value in self._operations:
            if isinstance(key, tuple):
                raw.delete_range(*key)
            elif value is None:
                raw.delete(key)
            else:
                raw.put(key, value)
        return raw


class Store:
    """One RocksDB with its own folder."""

    def __init__(self, path: Path) -> None:
        """Open or create it.

        Raises:
            StoreBusyError: when another process has it open.
            StoreError: when it can't be opened.
        """
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        try:
            self._db = Rdict(str(path), _options())
        except Exception as error:
            if "lock file" in str(error).lower() or "lock hold by" in str(error).lower():
                raise StoreBusyError(f"the data folder {path} is in use by another process") from error
            raise _told(f"the data folder {path} can't be opened: {error}") from error
        self._unsynced = WriteOptions()
        self._unsynced.sync = False
        self._unsynced.no_slowdown = True

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, unsynced batches included.

        Raises:
            StoreError: when it can't be read.
        """
        try:
            return self._db.get(key)
        except Exception as error:
            raise StoreError(str(error)) from error

    def write(self, batch: WriteBatch) -> None:
        """Put a batch into the WAL and the memtable, unsynced.

        Raises:
            WriteStallError: when RocksDB asks to wait; the batch is unchanged.
            StoreError: when it failed; the batch may or may not be in the WAL.
        """
        try:
            self._db.write(batch.raw(), self._unsynced)
        except Exception as error:
            if "stall" in str(error).lower():
                raise WriteStallError(str(error)) from error
            raise _failed("a write", error) from error

    def sync(self) -> None:
        """Make every batch written before this call durable. Releases the GIL while the disk works.

        Raises:
            StoreError: when it failed; the store must not be used again.
        """
        try:
            self._db.flush_wal(True)
        except Exception as error:
            raise _failed("a sync", error) from error

    def sync_folders(self) -> None:
        """Make the names of its folder and of those above durable, up to the mount point: RocksDB minds its own files.

        Raises:
            StoreError: when that failed.
        """
        try:
            for folder in self.path.absolute().parents:
                with contextlib.suppress(PermissionError):  # one that is not ours was not made by us
                    _sync_folder(folder)
                if folder.is_mount():
                    return
        except OSError as error:
            raise _failed("a sync of the data folder", error) from error

    def flush(self) -> None:
        """Write the memtable into a table file, so that a restart has less to replay. For a thread of its own.

        Raises:
            StoreError: when it failed.
        """
        try:
            self._db.flush()
        except Exception as error:
            raise _failed("a flush", error) from error

    def lay_out_wals(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Fill two WAL files and hand them back, so that the next ones are written over blocks that the disk has.

        For a thread of its own. On a disk that is nearly full, and under a write stall, it leaves that to the flushes.

        Args:
            stop: whether to leave off.

        Raises:
            StoreError: when a write or flush failed.
        """
        if self.nearly_full():
            return
        batch = new_batch()
        batch.put(FILLER, os.urandom(LAID_OUT_BATCH_BYTES))
        batch.delete(FILLER)
        with contextlib.suppress(WriteStallError):
            for _ in range(RECYCLED_WALS):
                for _ in range(LAID_OUT_BYTES // LAID_OUT_BATCH_BYTES):
                    if stop():
                        return
                    self.write(batch)
                self.flush()

    def rows(self, low: bytes, high: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of [low, high) in order.

        Raises:
            StoreError: when they can't be read.
        """
        options = ReadOptions()
        options.set_iterate_upper_bound(
            high
        )  # its set_iterate_lower_bound sets the upper bound, too (rocksdict 0.3.29)
        iterator = self._db.iter(options)
        if reverse:
            iterator.seek_to_last()
        else:
            iterator.seek(low)
        while iterator.valid():
            key = bytes(iterator.key())
            if key < low:
                break
            yield key, bytes(iterator.value())
            if reverse:
                iterator.prev()
            else:
                iterator.next()
        try:
            iterator.status()
        except Exception as error:
            raise StoreError(f"a scan failed: {error}") from error

    def clear(self, batch: WriteBatch, low: bytes, high: bytes) -> None:
        """Add the deletion of all rows of [low, high) to a batch.

        Few rows are deleted one by one: hundreds of small range deletes made a `get` 2.5 times slower.
        """
        keys = [key for key, _ in islice(self.rows(low, high), RANGE_DELETE_FROM)]
        if len(keys) == RANGE_DELETE_FROM:
            batch.delete_range(low, high)
            return
        for key in keys:
            batch.delete(key)

    def free_bytes(self) -> tuple[int, int]:
        """Free and total bytes of the disk."""
        return free_bytes(self.path)

    def nearly_full(self) -> bool:
        """Whether less is free than what is kept for deletes, compactions and the next start."""
        free, total = self.free_bytes()
        return free < reserve_bytes(total)

    def close(self) -> None:
        """Close it; what was not synced is synced by RocksDB."""
        self._db.close()


def free_bytes(path: Path) -> tuple[int, int]:
    """Free and total bytes of the disk that it lies on."""
    usage = shutil.disk_usage(path)
    return usage.free, usage.total


def reserve_bytes(total: int) -> int:
    """How much of a disk of that size turns leave free: max(5 %, 128 MiB), but never more than half of it."""
    return int(min(max(total * FREE_FRACTION, FREE_BYTES), total * FREE_FRACTION_MOST))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def new_batch() -> WriteBatch:
    """An empty batch."""
    return WriteBatch()


def _failed(what: str, error: Exception) -> StoreError:
    return _told(f"{what} failed: {error}")


def _told(text: str) -> StoreError:
    full = "no space" in text.lower() or f"errno {os.strerror(28).lower()}" in text.lower()
    return DiskFullError(text) if full else StoreError(text)


def _options() -> Options:
    # raw_mode: with options given, the config file that rocksdict writes unsynced is not read, so it may be lost.
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(6)
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    options.set_recycle_log_file_num(RECYCLED_WALS)
    options.set_keep_log_file_num(3)
    options.set_max_log_file_size(4 * 1024 * 1024)
    options.set_max_open_files(512)
    options.set_paranoid_checks(True)
    return options
