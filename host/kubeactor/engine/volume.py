"""The truth about ownership lies on the volume: whose data this is, and which shards it owns under which epoch.

A shard begins only by an explicit grant, stored and synced before it is served. So a lost, replaced or emptied volume
never comes back as an empty bank: it owns nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

import msgspec

from kubeactor.engine.layout import ALARM, DATA, EPOCH, META, OUTBOX, PARKED, VOLUME, epoch_key, range_end
from kubeactor.engine.store import Store, StoreError, new_batch

__all__ = ["ForeignVolumeError", "ShardState", "Volume", "VolumeMismatchError"]

FORMAT: Final = 1
OWNED: Final = "owned"
INSTANCE_ROWS: Final = (DATA, ALARM, OUTBOX, PARKED)


class VolumeMismatchError(StoreError):
    """Raised when the folder holds the data of another namespace, host or shard count, or of a newer release."""


class ForeignVolumeError(VolumeMismatchError):
    """Raised when the folder holds the data of another namespace, which may be an earlier one of the same name."""


class VolumeRow(msgspec.Struct, array_like=True, frozen=True):
    """Whose volume it is."""

    format: int
    namespace: str
    host: str
    volume: str
    shards: int


class ShardState(msgspec.Struct, array_like=True, frozen=True):
    """A shard's epoch on this volume and its state: owned, frozen or given."""

    epoch: int
    state: str = OWNED


class Volume:
    """Identity and shards of an open store.

    Attributes:
        row: whose volume it is; states: of every shard it knows.
    """

    def __init__(self, store: Store, *, namespace: str, host: str, shards: int, adopt: bool = False) -> None:
        """Read them; a new volume gets an id of its own and no shard.

        Args:
            store: where they lie.
            namespace: uid of the namespace that it must belong to.
            host: whose it must be.
            shards: of the namespace.
            adopt: take over the volume of that host in another namespace, with all that it holds.

        Raises:
            ForeignVolumeError: when it is another namespace's.
            VolumeMismatchError: when the folder belongs to someone else.
        """
        self._store = store
        raw = store.get(VOLUME)
        if raw is None:
            store.sync_folders()
            self._write(VolumeRow(FORMAT, namespace, host, secrets.token_hex(16), shards))
        else:
            self.row = msgspec.msgpack.decode(raw, type=VolumeRow)
        self._check(self.row.namespace if adopt else namespace, host, shards)
        if self.row.namespace != namespace:
            self._write(msgspec.structs.replace(self.row, namespace=namespace))
        self.states = {
            int.from_bytes(key[-2:], "big"): msgspec.msgpack.decode(value, type=ShardState)
            for key, value in store.rows(EPOCH, range_end(EPOCH))
        }

    def _write(self, row: VolumeRow) -> None:
        batch = new_batch()
        batch.put(VOLUME, msgspec.msgpack.encode(row))
        self._store.write(batch)
        self._store.sync()
        self.row = row

    def _check(self, namespace: str, host: str, shards: int) -> None:
        row = self.row
        if row.format > FORMAT:
            raise VolumeMismatchError(f"{self._store.path} was written by a newer release (format {row.format})")
        if row.namespace != namespace:
            raise ForeignVolumeError(f"{self._store.path} holds namespace {row.namespace}, not {namespace}")
        if row.host != host:
            raise VolumeMismatchError(f"{self._store.path} is the volume of {row.host}, not of {host}")
        if row.shards != shards:
            raise VolumeMismatchError(f"{self._store.path} has {row.shards} shards, not {shards}; that never changes")

    def owned(self) -> dict[int, int]:
        """Epoch by shard, of those that this volume serves."""
        return {shard: state.epoch for shard, state in self.states.items() if state.state == OWNED}

    def bindings(self) -> set[str]:
        """The bindings that rows of instances belong to; skips from one to the next."""
        found = set()
        at = b"\0"
        while (row := next(self._store.rows(at, META), None)) is not None:
            shard, kind, rest = row[0][:2], row[0][2:3], row[0][3:]
            at = shard + range_end(kind)
            if kind in INSTANCE_ROWS:
                binding = rest.partition(b"\0")[0]
                found.add(binding.decode())
                at = shard + kind + binding + b"\1"
        return found

    def grant(self, grants: Sequence[tuple[int, int]]) -> list[int]:
        """Store grants of empty shards, synced; one that is owned at that epoch already stays as it is.

        Returns:
            The shards that are new.

        Raises:
            ValueError: when a shard is known here at another epoch, or out of range.
        """
        new = []
        batch = new_batch()
        for shard, epoch in grants:
            known = self.states.get(shard)
            if not 0 <= shard < self.row.shards or epoch < 1:
                raise ValueError(f"there is no shard {shard} with epoch {epoch} in a namespace of {self.row.shards}")
            if known is not None:
                if known != ShardState(epoch):
                    raise ValueError(
                        f"shard {shard} is {known.state} at epoch {known.epoch} here, not free for {epoch}"
                    )
                continue
            batch.put(epoch_key(shard), msgspec.msgpack.encode(ShardState(epoch)))
            new.append((shard, epoch))
        if new:
            self._store.write(batch)
            self._store.sync()
            self.states.update((shard, ShardState(epoch)) for shard, epoch in new)
        return [shard for shard, _ in new]

    def lift(self, epochs: Sequence[tuple[int, int]]) -> None:
        """Store higher epochs of shards that are owned here, synced: the table was made anew above all that it saw."""
        batch = new_batch()
        for shard, epoch in epochs:
            known = self.states[shard]
            assert known.state == OWNED
            assert known.epoch < epoch
            batch.put(epoch_key(shard), msgspec.msgpack.encode(ShardState(epoch)))
        self._store.write(batch)
        self._store.sync()
        self.states.update((shard, ShardState(epoch)) for shard, epoch in epochs)
