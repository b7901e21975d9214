"""What a disk may hold after its power went: the model behind the power-loss tests.

Modelled, from the records of the shim:

- A file keeps the bytes that it held when its last successful fsync or fdatasync *began*. Of the bytes after them
  nothing is left (`drop`), or a part (`tear`): up to any byte, or all of them with a stretch of sectors never written
  (`hole`), since a disk writes its pages in any order.
- Of bytes that were overwritten after that sync began the old ones are back (`drop`), or those of the last writes, the
  first of them up to any byte (`tear`), or a stretch of sectors (`hole`).
- A failed sync may have dropped the dirty pages, and Linux reports it once: no later sync makes those bytes durable.
- A truncation is durable at once, the bytes that follow it are not: the worst of the orders that file systems allow.
- Directory entries (create, rename, unlink, mkdir, rmdir) are durable when their folder was synced after them. Of those
  since, none is left (`drop`) or the first few, in order, as in a journal; a rename is one step. Syncing a file does
  not make its name durable, nor its folder's: POSIX promises neither, although ext4 and XFS do it.

- A MANIFEST is torn where other files get a hole: RocksDB refuses one with a record that has lost a sector of several,
  and takes it for the end when the record is cut short.

Not modelled: renamed folders and renames across folders (they raise `UnmodelledError`; RocksDB does neither), stores
into mapped pages (they are kept), and permissions.
"""

from __future__ import annotations

import enum
import os
import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from tests.faults.shim import Event

__all__ = ["Disk", "Mode", "UnmodelledError"]

SECTOR: Final = 512


class Mode(enum.Enum):
    """What becomes of what was not synced."""

    DROP = "drop"
    TEAR = "tear"
    HOLE = "hole"


class UnmodelledError(Exception):
    """Raised when something was done of which this model can't tell what a power loss would leave."""


class _Folder:
    """The entries of a folder: name to inode, 0 for a folder."""

    def __init__(self) -> None:
        self.durable: dict[str, int] = {}
        self.now: dict[str, int] = {}
        self.pending: list[tuple[int, dict[str, int | None]]] = []

    def change(self, at_ns: int, entries: dict[str, int | None]) -> None:
        self.pending.append((at_ns, entries))
        _apply(self.now, entries)

    def synced(self, began_ns: int) -> None:
        while self.pending and self.pending[0][0] <= began_ns:
            _apply(self.durable, self.pending.pop(0)[1])

    def after_loss(self, steps: int) -> dict[str, int]:
        left = dict(self.durable)
        for _, entries in self.pending[:steps]:
            _apply(left, entries)
        return left


def _apply(names: dict[str, int], entries: dict[str, int | None]) -> None:
    for name, inode in entries.items():
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


@dataclass(frozen=True, slots=True)
class _Overwrite:
    """A write over bytes that the file had, and what they were."""

    ended_ns: int
    offset: int
    old: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.old)

    def undo(self, file: BinaryIO, start: int, stop: int) -> None:
        """Put the old bytes back, as far as they lie in [start, stop)."""
        start, stop = max(start, self.offset), min(stop, self.end)
        if start < stop:
            file.seek(start)
            file.write(self.old[start - self.offset : stop - self.offset])


class Disk:
    """The folder `root` as its disk knows it; `morgue` holds a link, named by inode, to each file that ever was.

    Attributes:
        undone: how many overwrites were at risk when it was rolled back.
    """

    def __init__(self, root: Path, morgue: Path) -> None:
        self.root = root
        self.morgue = morgue
        self._synced: dict[int, int] = {}
        self.undone = 0
        self._overwrites: dict[int, list[_Overwrite]] = {}
        self._stuck: set[int] = set()
        self._folders: dict[str, _Folder] = {}

    @staticmethod
    def keep(morgue: Path, path: Path) -> None:
        """Note that this file, as long as it is now, or this folder is durable; a file gets a link in the morgue."""
        inode, size = (0, 0) if path.is_dir() else (path.stat().st_ino, path.stat().st_size)
        if inode and not (morgue / str(inode)).exists():
            os.link(path, morgue / str(inode))
        with (morgue / "durable").open("a") as durable:
            durable.write(f"{inode}\t{size}\t{path}\n")

    def replay(self, events: Iterable[Event]) -> None:
        """Take the durable start from the morgue, then follow what happened since.

        Raises:
            UnmodelledError: see the module.
        """
        self._start()
        for event in events:
            step = getattr(self, f"_{event.kind.name.lower()}", None)
            if step is not None:
                step(event)

    def _start(self) -> None:
        self._folders[str(self.root)] = _Folder()
        durable = self.morgue / "durable"
        for line in durable.read_text().splitlines() if durable.exists() else []:
            inode, size, path = line.split("\t", 2)
            self._folders[str(Path(path).parent)].change(0, {Path(path).name: int(inode)})
            self._folders[str(Path(path).parent)].synced(0)
            if inode == "0":
                self._folders[path] = _Folder()
            else:
                self._synced[int(inode)] = int(size)

    def _entry(self, event: Event, path: Path, inode: int | None) -> None:
        folder = self._folders.get(str(path.parent))
        if folder is None:
            raise UnmodelledError(f"{path} appeared in a folder that nobody made")
        folder.change(event.ended_ns, {path.name: inode})

    def _create(self, event: Event) -> None:
        self._entry(event, Path(event.text.decode()), event.inode)

    def _mkdir(self, event: Event) -> None:
        path = Path(event.text.decode())
        self._entry(event, path, 0)
        self._folders[str(path)] = _Folder()

    def _unlink(self, event: Event) -> None:
        self._entry(event, Path(event.text.decode()), None)

    def _rename(self, event: Event) -> None:
        old, new = (Path(part) for part in event.text.decode().split("\0"))
        folder = self._folders.get(str(old.parent))
        inode = folder.now.get(old.name) if folder else None
        if folder is None or old.parent != new.parent or not inode:
            raise UnmodelledError(f"rename of {old} to {new}")
        folder.change(event.ended_ns, {old.name: None, new.name: inode})

    def _sync_dir(self, event: Event) -> None:
        folder = self._folders.get(event.text.decode())
        if folder is not None:
            folder.synced(event.began_ns)

    def _sync(self, event: Event) -> None:
        if event.inode not in self._stuck:
            self._synced[event.inode] = max(self._synced.get(event.inode, 0), event.length)
            later = [one for one in self._overwrites.get(event.inode, []) if one.ended_ns > event.began_ns]
            self._overwrites[event.inode] = later

    def _sync_failed(self, event: Event) -> None:
        self._stuck.add(event.inode)

    def _truncate(self, event: Event) -> None:
        self._synced[event.inode] = min(self._synced.get(event.inode, 0), event.length)

    def _overwrite(self, event: Event) -> None:
        self._overwrites.setdefault(event.inode, []).append(_Overwrite(event.ended_ns, event.offset, event.text))

    def roll_back(self, mode: Mode, rng: random.Random) -> None:
        """Make the folder what is left of it."""
        for path in self.root.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        cut: set[int] = set()
        self._rebuild(self.root, mode, rng, cut)

    def _rebuild(self, path: Path, mode: Mode, rng: random.Random, cut: set[int]) -> None:
        folder = self._folders[str(path)]
        steps = 0 if mode is Mode.DROP else rng.randint(0, len(folder.pending))
        for name, inode in sorted(folder.after_loss(steps).items()):
            if inode == 0:
                (path / name).mkdir()
                self._rebuild(path / name, mode, rng, cut)
                continue
            if inode not in cut:
                file, overwrites = self.morgue / str(inode), self._overwrites.get(inode, [])
                mine = Mode.TEAR if mode is Mode.HOLE and name.startswith("MANIFEST") else mode
                appended = mine if self._undo(file, overwrites, mine, rng) else Mode.DROP
                self._lose(file, self._synced.get(inode, 0), appended, rng)
                self.undone += len(overwrites)
                cut.add(inode)
            os.link(self.morgue / str(inode), path / name)

    @staticmethod
    def _undo(file: Path, overwrites: list[_Overwrite], mode: Mode, rng: random.Random) -> bool:
        """Lose overwrites that were not synced; whether the last ones are left, so that what was appended may be."""
        if not overwrites:
            return True
        with file.open("r+b") as opened:
            if mode is Mode.HOLE:
                start = rng.randint(overwrites[0].offset, overwrites[-1].end) // SECTOR * SECTOR
                stop = start + SECTOR * rng.randint(1, 8)
                for one in reversed(overwrites):
                    one.undo(opened, start, stop)
                return True
            kept = 0 if mode is Mode.DROP else rng.randint(0, len(overwrites))
            for one in reversed(overwrites[kept:]):
                torn = mode is Mode.TEAR and one is overwrites[kept]
                one.undo(opened, rng.randint(one.offset, one.end) if torn else one.offset, one.end)
            return kept == len(overwrites)

    @staticmethod
    def _lose(file: Path, synced: int, mode: Mode, rng: random.Random) -> None:
        size = file.stat().st_size
        if size <= synced:
            return
        if mode is not Mode.HOLE:
            os.truncate(file, synced if mode is Mode.DROP else rng.randint(synced, size))
            return
        start = rng.randint(synced, size - 1) // SECTOR * SECTOR
        stop = min(size, start + SECTOR * rng.randint(1, 8))
        with file.open("r+b") as opened:
            opened.seek(max(start, synced))
            opened.write(bytes(stop - max(start, synced)))
