"""A namespace on this machine: a folder with its identity, its placement table, and a folder for each host."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from kubeactor.limits import SHARDS_DEFAULT
from kubeactor.placement import PlacementError, Table
from kubeactor.placement_file import load
from kubeactor.worker import WorkerFatalError

__all__ = ["Namespace", "claim", "ignore"]

PLACEMENT: Final = "placement.json"
NAMESPACE: Final = "namespace"
LOCK: Final = "supervisor.lock"
PID_BYTES: Final = 20


class Namespace:
    """The folder of a namespace.

    Attributes:
        uid: made once; every volume and every table carries it.
        shards: their number, fixed for ever.
        placement: the file of the placement table.
    """

    def __init__(self, folder: Path, shards: int | None = None, uid: str | None = None) -> None:
        """Open or create it.

        Args:
            folder: where it is.
            shards: of a new namespace, `SHARDS_DEFAULT` if None; of an existing one None or what it has.
            uid: given together with `shards` where others know the identity; then the folder is not asked for it.

        Raises:
            WorkerFatalError: when the folder can't be used, or has another number of shards.
        """
        self.folder = folder
        self.placement = folder / PLACEMENT
        try:
            folder.mkdir(parents=True, exist_ok=True)
            count = shards or SHARDS_DEFAULT
            self.uid, self.shards = (uid, count) if uid else self._identity(count)
        except (OSError, PlacementError, ValueError) as error:
            raise WorkerFatalError(f"the data folder {folder} can't be used: {error}") from error
        if shards not in (None, self.shards):
            raise WorkerFatalError(
                f"the namespace in {folder} has {self.shards} shards, which never changes:"
                " leave --shards out, or start with another data folder"
            )

    def _identity(self, shards: int) -> tuple[str, int]:
        if self.placement.exists():
            table = load(self.placement).table
            return table.namespace, table.shards
        file = self.folder / NAMESPACE
        if not file.exists():
            self._create(file, shards)
        try:
            uid, count = file.read_text().split()
            return uid, int(count)
        except ValueError as error:
            raise ValueError(f"its file {NAMESPACE!r} is damaged; start with another data folder") from error

    def _create(self, file: Path, shards: int) -> None:
        # A host and an ingress may do this at the same time: the first one wins, with a whole file.
        temporary = self.folder / f".{NAMESPACE}.{secrets.token_hex(8)}"
        temporary.write_text(f"{secrets.token_hex(16)} {shards}\n")
        try:
            os.link(temporary, file)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()

    def data(self, host: str) -> Path:
        """The folder of a host."""
        return self.folder / host

    def table(self) -> Table | None:
        """The stored table, if there is one.

        Raises:
            PlacementError: when it is damaged.
        """
        return load(self.placement).table if self.placement.exists() else None


def claim(folder: Path) -> Path:
    """Make the folder of a host, and hold it until this process ends; returns it.

    The lock is the supervisor's: its workers don't inherit it, and the kernel drops it with the process.

    Raises:
        WorkerFatalError: when another supervisor holds it.
        OSError: when the folder can't be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, PID_BYTES, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise WorkerFatalError(
            f"the data folder {folder.parent} is in use by another kubeactor, pid {holder}:"
            " stop that one, or choose another --data"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    return folder


def ignore(folder: Path) -> None:
    """Keep a data folder out of git, unless its own .gitignore says something else already."""
    with suppress(FileExistsError), (folder / ".gitignore").open("x") as file:
        file.write("*\n")
