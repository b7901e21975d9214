"""The placement table as a file, with the addresses of the hosts beside it.

    {"table": {...}, "addresses": {"host-0": "127.0.0.1:7000", "host-1": "/run/bank/host-1.sock"}}

Addresses are no part of the table: they change when a process or a pod starts anew, ownership does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from kubeactor.placement import Document, PlacementError, Table

__all__ = ["Placement", "PlacementWatcher", "load", "save"]

POLL_S: Final = 0.2
FILE_BYTES: Final = 4 * 1024 * 1024

_log = logging.getLogger(__name__)


class Placement(NamedTuple):
    """A table and, for the hosts that are known to run, host id -> "host:port" or the path of a Unix socket."""

    table: Table
    addresses: dict[str, str]


class _File(msgspec.Struct):
    table: Document
    addresses: dict[str, str] = {}


def load(path: Path) -> Placement:
    """Read a placement from its file.

    Raises:
        PlacementError: when the file can't be read or is damaged; the text names the file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES + 1)
        if len(data) > FILE_BYTES:
            raise PlacementError(f"above {FILE_BYTES} bytes")
        stored = msgspec.json.decode(data, type=_File)
        _check_addresses(stored.addresses)
        return Placement(Table.of(stored.table), stored.addresses)
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise PlacementError(f"the placement file {path} can't be used: {error}") from error


def save(path: Path, table: Table, addresses: Mapping[str, str]) -> None:
    """Replace the file; after a crash it holds the old or the new placement, whole.

    Raises:
        OSError: when it can't be written.
        PlacementError: when an address is malformed.
    """
    _check_addresses(addresses)
    data = msgspec.json.format(msgspec.json.encode(_File(table.document(), dict(addresses))), indent=2)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_addresses(addresses: Mapping[str, str]) -> None:
    for host, address in addresses.items():
        name, _, port = address.rpartition(":")
        if "/" not in address and not (name and port.isdecimal() and port.isascii() and 0 < int(port) < 65536):
            raise PlacementError(f"the address of {host}, {address!r}, is neither host:port nor the path of a socket")


class PlacementWatcher:
    """Looks at the file every 0.2 s and calls back when it changed. A damaged file is told of and changes nothing.

    The file may come later than its watcher: a host can start before anybody has placed its shards.

    Attributes:
        current: the last good placement; None before the first.
        trouble: what is wrong with the file as it is now; empty if nothing.
    """

    def __init__(self, path: Path, changed: Callable[[Placement], None]) -> None:
        """`changed` is called by `run` and `poll` with the first placement that they find, and with each other one."""
        self._path = path
        self._changed = changed
        self._seen: tuple[int, int, int] | None = None
        self.trouble = ""
        self.current: Placement | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self.poll()
            await asyncio.sleep(POLL_S)

    async def seen(self) -> None:
        """The process has started from the file itself."""

    def keep(self) -> None:
        """The file has it already."""

    def poll(self) -> None:
        """Look once."""
        look = self._look()
        if look == self._seen or look is None:
            return
        self._seen = look
        try:
            placement = load(self._path)
        except PlacementError as error:
            self.trouble = str(error)
            _log.error("%s; going on with the last good one", error)
            return
        self.trouble = ""
        if placement != self.current:
            self.current = placement
            self._changed(placement)

    def _look(self) -> tuple[int, int, int] | None:
        # `save` makes a new file each time, so the inode tells two saves within one tick of the clock apart.
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return (stat.st_ino, stat.st_mtime_ns, stat.st_size)
