"""RocksDB that can lose power: what was not synced when it strikes is really gone.

RocksDB appends each batch to its write-ahead log, and syncs table files and manifest by itself. So at any moment the
disk holds for certain: every other file, and of each log as much as it had when the last sync began. `image` copies
exactly that, and the next host opens the copy.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kubeactor.engine.store import Store, StoreError, WriteBatch

__all__ = ["LossyStore"]

LOG: Final = ".log"
COPIES_MAX: Final = 100


class LossyStore(Store):
    """A store that knows what of it is synced.

    Attributes:
        crash_after: so many more batches, then `crash` is called; None: never.
    """

    def __init__(self, path: Path, crash: Callable[[], None]) -> None:
        super().__init__(path)
        self.crash_after: int | None = None
        self._crash = crash
        self._synced: dict[str, int] = {}

    def write(self, batch: WriteBatch) -> None:
        """As of any store; the last batch before a crash is written, and not synced any more."""
        super().write(batch)
        if self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after == 0:
                self._crash()

    def sync(self) -> None:
        """Note how long the logs are, then sync: only that much is certain."""
        lengths = _lengths(self.path, LOG)
        super().sync()
        self._synced = lengths

    def image(self, copy: Path) -> None:
        """Copy what a loss of power leaves at this moment.

        Raises:
            StoreError: when the files keep changing.
        """
        for _ in range(COPIES_MAX):
            shutil.rmtree(copy, ignore_errors=True)
            before = _lengths(self.path)
            try:
                shutil.copytree(self.path, copy, ignore=shutil.ignore_patterns("LOCK", "LOG*"))
            except (shutil.Error, FileNotFoundError):
                continue  # RocksDB deleted a file meanwhile
            if _lengths(self.path) == before:
                break
        else:
            raise StoreError(f"{self.path} changes all the time")
        for name in _lengths(copy, LOG):
            os.truncate(copy / name, self._synced.get(name, 0))


def _lengths(folder: Path, suffix: str = "") -> dict[str, int]:
    with os.scandir(folder) as found:
        return {
            entry.name: entry.stat().st_size
            for entry in found
            if entry.name.endswith(suffix) and not entry.name.startswith("LOG")
        }
