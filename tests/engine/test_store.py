"""RocksDB as the promises need it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeactor.engine import store as store_module
from kubeactor.engine.layout import due_key, instance_key, range_end, shard_prefix
from kubeactor.engine.store import (
    LAID_OUT_BYTES,
    RANGE_DELETE_FROM,
    DiskFullError,
    Store,
    StoreBusyError,
    StoreError,
    _failed,
    new_batch,
    reserve_bytes,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "db")
    yield store
    store.close()


def put(store: Store, *keys: bytes) -> None:
    batch = new_batch()
    for key in keys:
        batch.put(key, key.upper())
    store.write(batch)


def test_a_batch_is_read_back_before_and_after_its_sync_and_a_new_open(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    put(store, b"a", b"b")
    assert (store.get(b"a"), store.get(b"missing")) == (b"A", None)
    store.sync()
    store.flush()
    store.close()
    again = Store(tmp_path / "db")
    assert again.get(b"b") == b"B"
    again.close()


def wals(store: Store) -> list[int]:
    """How long the WAL files are, the one in use last."""
    return [path.stat().st_size for path in sorted(store.path.glob("*.log"))]


def test_wals_that_are_laid_out_are_written_over_and_leave_no_key(store: Store) -> None:
    put(store, b"a")
    store.lay_out_wals()
    before = wals(store)
    assert min(before) >= LAID_OUT_BYTES
    put(store, b"b")
    store.sync()
    assert wals(store) == before, "an append would have made a file longer"
    assert [key for key, _ in store.rows(b"", b"\xff" * 9)] == [b"a", b"b"]
    store.flush()
    put(store, b"c")
    assert wals(store)[-1] >= LAID_OUT_BYTES, "the second one is written over next"


def test_wals_are_not_laid_out_on_a_disk_that_is_nearly_full(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "nearly_full", lambda: True)
    store.lay_out_wals()
    assert wals(store) == [0]


def test_rows_come_in_byte_order_within_their_bounds_both_ways(store: Store) -> None:
    put(store, b"a", b"b", b"b\0", b"b\xff", b"c", b"")
    assert [key for key, _ in store.rows(b"b", b"c")] == [b"b", b"b\0", b"b\xff"]
    assert [key for key, _ in store.rows(b"b", b"c", reverse=True)] == [b"b\xff", b"b\0", b"b"]
    assert [key for key, _ in store.rows(b"", b"b")] == [b"", b"a"]
    assert list(store.rows(b"x", b"z")) == list(store.rows(b"c", b"b")) == []


@pytest.mark.parametrize("count", [3, RANGE_DELETE_FROM - 1, RANGE_DELETE_FROM, RANGE_DELETE_FROM + 1])
def test_clearing_takes_the_range_and_nothing_beside_it(store: Store, count: int) -> None:
    put(store, b"a", b"c", *(b"b%05d" % i for i in range(count)))
    batch = new_batch()
    store.clear(batch, b"b", b"c")
    batch.put(b"b-after", b"1")
    store.write(batch)
    assert [key for key, _ in store.rows(b"", b"z")] == [b"a", b"b-after", b"c"]


def test_a_folder_that_is_open_elsewhere_is_busy(store: Store) -> None:
    with pytest.raises(StoreBusyError, match="in use"):
        Store(store.path)


def test_a_folder_that_cannot_be_opened_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "CURRENT").write_text("nonsense")
    with pytest.raises(StoreError, match="can't be opened"):
        Store(tmp_path / "db")


@pytest.mark.parametrize("left", ["", '{"raw_mode":tr', None])
def test_a_power_loss_may_empty_tear_or_lose_the_unsynced_config_file_of_the_binding(
    tmp_path: Path, left: str | None
) -> None:
    store = Store(tmp_path / "db")
    put(store, b"a")
    store.close()
    config = tmp_path / "db" / "rocksdict-config.json"
    config.unlink()
    if left is not None:
        config.write_text(left)
    again = Store(tmp_path / "db")
    assert again.get(b"a") == b"A"
    again.close()


def test_a_full_disk_is_told_from_other_errors() -> None:
    assert isinstance(_failed("a write", OSError("IO error: No space left on device: While appending")), DiskFullError)
    assert not isinstance(_failed("a write", OSError("IO error: Input/output error")), DiskFullError)


@pytest.mark.parametrize(("said", "full"), [("No space left on device", True), ("Input/output error", False)])
def test_a_volume_that_is_too_full_to_be_opened_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, full: bool
) -> None:
    def refused(path: str, options: object) -> None:
        raise OSError(f"IO error: {said}: While appending to file: 000038.sst")

    monkeypatch.setattr(store_module, "Rdict", refused)
    with pytest.raises(StoreError, match="can't be opened") as caught:
        Store(tmp_path / "db")
    assert isinstance(caught.value, DiskFullError) is full


@pytest.mark.parametrize(("free", "full"), [(200, False), (100, True), (129, False)])
def test_the_disk_is_nearly_full_below_128_mib(
    store: Store, monkeypatch: pytest.MonkeyPatch, free: int, full: bool
) -> None:
    monkeypatch.setattr(store, "free_bytes", lambda: (free * 1024 * 1024, 1024 * 1024 * 1024))
    assert store.nearly_full() is full


def test_the_disk_is_nearly_full_below_five_percent(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "free_bytes", lambda: (4 * 10**9, 100 * 10**9))
    assert store.nearly_full()


@pytest.mark.parametrize(
    ("total_mib", "kept_mib"), [(32, 16), (64, 32), (256, 128), (1024, 128), (2560, 128), (100 * 1024, 5120)]
)
def test_of_a_small_volume_at_most_half_is_kept_free(total_mib: int, kept_mib: int) -> None:
    assert reserve_bytes(total_mib * 1024 * 1024) == kept_mib * 1024 * 1024


def test_a_shards_rows_are_one_range_and_an_instances_are_its_own() -> None:
    keys = [instance_key(7, b"d", b"A\0alice") + b"\0", instance_key(7, b"a", b"A\0alice"), due_key(7, 5, b"A\0alice")]
    low, high = shard_prefix(7), range_end(shard_prefix(7))
    assert all(low <= key < high for key in keys)
    assert high == shard_prefix(8)
    alice = instance_key(7, b"d", b"A\0alice") + b"\0"
    assert not (instance_key(7, b"d", b"A\0alice2") + b"\0").startswith(alice)
    assert due_key(7, 255, b"z") < due_key(7, 256, b"a")
    assert range_end(b"a\xff") == b"b"
