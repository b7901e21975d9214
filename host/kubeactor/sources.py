"""The user's code as files, so that `kubeactor dev` starts anew when one of them changes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

__all__ = ["Sources"]

FILES_MAX: Final = 2000
SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages"})


class Sources:
    """The Python files below a folder, whether they can be imported or not, and those that are added.

    Made before the code is imported, so that a change during the import counts too. Hidden folders and virtual
    environments are left out; of more than 2,000 files the rest is not watched.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._found = self._find()
        self._added: dict[Path, int] = {}

    def add(self, files: Iterable[Path]) -> None:
        """Watch these, too."""
        self._added.update((path, _stamp(path)) for path in files if path not in self._found)

    def changed(self) -> bool:
        """Whether one of them has another time of change than when this was asked last, is gone, or is new."""
        found, added = self._find(), {path: _stamp(path) for path in self._added}
        changed = (found, added) != (self._found, self._added)
        self._found, self._added = found, added
        return changed

    def _find(self) -> dict[Path, int]:
        return {path: _stamp(path) for path in islice(_python_files(self._folder), FILES_MAX)}


def _python_files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _skipped(Path(parent, name)))
        yield from (Path(parent, name) for name in sorted(files) if name.endswith(".py"))


def _skipped(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name in SKIPPED or (folder / "pyvenv.cfg").exists()


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
