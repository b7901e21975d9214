"""The truth about ownership lies on the volume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubeactor.engine.layout import (
    ALARM,
    DATA,
    INBOX,
    OUTBOX,
    PARKED,
    VOLUME,
    due_key,
    epoch_key,
    instance_key,
    numbered_key,
)
from kubeactor.engine.store import Store, WriteBatch, new_batch
from kubeactor.engine.volume import ForeignVolumeError, ShardState, Volume, VolumeMismatchError

IDENTITY: dict[str, Any] = {"namespace": "uid-1", "host": "host-0", "shards": 8}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "db")
    yield store
    store.close()


def test_a_new_volume_has_an_id_of_its_own_and_owns_nothing(store: Store, tmp_path: Path) -> None:
    volume = Volume(store, **IDENTITY)
    assert volume.owned() == {}
    assert len(volume.row.volume) == 32
    other = Store(tmp_path / "emptied")
    assert Volume(other, **IDENTITY).row.volume != volume.row.volume
    other.close()


def test_grants_are_kept_and_idempotent(store: Store) -> None:
    volume = Volume(store, **IDENTITY)
    assert volume.grant([(0, 1), (3, 7)]) == [0, 3]
    assert volume.grant([(3, 7), (4, 1)]) == [4]
    again = Volume(store, **IDENTITY)
    assert again.owned() == {0: 1, 3: 7, 4: 1}
    assert again.row == volume.row


def test_a_grant_is_synced_before_it_is_served(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = Volume(store, **IDENTITY)
    order: list[str] = []
    write, sync = store.write, store.sync

    def written(batch: WriteBatch) -> None:
        order.append("write")
        write(batch)

    def synced() -> None:
        assert volume.owned() == {}
        order.append("sync")
        sync()

    monkeypatch.setattr(store, "write", written)
    monkeypatch.setattr(store, "sync", synced)
    volume.grant([(0, 1)])
    assert order == ["write", "sync"]


@pytest.mark.parametrize("grant", [(0, 2), (1, 1), (8, 1), (-1, 1), (3, 0)])
def test_a_grant_of_a_shard_known_otherwise_or_out_of_range_is_refused_and_changes_nothing(
    store: Store, grant: tuple[int, int]
) -> None:
    batch = new_batch()
    batch.put(epoch_key(1), msgspec.msgpack.encode(ShardState(1, "given")))
    store.write(batch)
    volume = Volume(store, **IDENTITY)
    volume.grant([(0, 1)])
    with pytest.raises(ValueError, match="shard"):
        volume.grant([(5, 1), grant])
    assert volume.owned() == Volume(store, **IDENTITY).owned() == {0: 1}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"namespace": "uid-2"}, "holds namespace uid-1, not uid-2"),
        ({"host": "host-1"}, "is the volume of host-0, not of host-1"),
        ({"shards": 16}, "has 8 shards, not 16"),
    ],
)
def test_the_volume_of_someone_else_is_refused(store: Store, changes: dict[str, Any], said: str) -> None:
    Volume(store, **IDENTITY)
    with pytest.raises(VolumeMismatchError, match=said):
        Volume(store, **(IDENTITY | changes))


def test_a_volume_of_a_newer_release_is_refused(store: Store) -> None:
    row = Volume(store, **IDENTITY).row
    batch = new_batch()
    batch.put(VOLUME, msgspec.msgpack.encode(msgspec.structs.replace(row, format=row.format + 1)))
    store.write(batch)
    with pytest.raises(VolumeMismatchError, match="newer release"):
        Volume(store, **IDENTITY)


def test_it_tells_which_bindings_have_rows(store: Store) -> None:
    volume = Volume(store, **IDENTITY)
    assert volume.bindings() == set()
    batch = new_batch()
    for shard in (0, 3, 7):
        for number in range(5):
            batch.put(instance_key(shard, DATA, b"DATA\0%d\0key" % number), b"x")
    batch.put(instance_key(3, ALARM, b"ALARM\0a"), b"x")
    batch.put(due_key(3, 5, b"DUE\0a"), b"")  # beside an alarm's own row
    batch.put(numbered_key(7, OUTBOX, b"OUT\0a", 1), b"x")
    batch.put(numbered_key(2, PARKED, b"PARKED_2\0a", 0), b"")
    batch.put(instance_key(1, INBOX, b"INBOX\0a\0b"), b"x")  # what was received is no state that anybody would miss
    store.write(batch)
    assert volume.bindings() == {"DATA", "ALARM", "OUT", "PARKED_2"}


def test_the_volume_of_an_earlier_namespace_is_taken_over_only_when_that_is_asked_for(store: Store) -> None:
    volume = Volume(store, **IDENTITY)
    volume.grant([(0, 1)])
    later = {**IDENTITY, "namespace": "uid-2"}
    with pytest.raises(ForeignVolumeError, match="holds namespace uid-1, not uid-2"):
        Volume(store, **later)
    with pytest.raises(VolumeMismatchError, match="is the volume of host-0, not of host-1"):
        Volume(store, **{**later, "host": "host-1"}, adopt=True)
    taken = Volume(store, **later, adopt=True)
    assert (taken.row.namespace, taken.row.volume, taken.owned()) == ("uid-2", volume.row.volume, {0: 1})
    assert Volume(store, **later).row == taken.row


def test_lifted_epochs_are_stored(store: Store) -> None:
    volume = Volume(store, **IDENTITY)
    volume.grant([(0, 1), (3, 7)])
    volume.lift([(0, 9)])
    assert volume.owned() == Volume(store, **IDENTITY).owned() == {0: 9, 3: 7}
