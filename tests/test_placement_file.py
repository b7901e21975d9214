from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from tests.harness.wiring import run, table

from kubeactor.placement import PlacementError, Table
from kubeactor.placement_file import Placement, PlacementWatcher, load, save

ADDRESSES = {"host-0": "127.0.0.1:7000", "host-1": "/run/host-1.sock", "host-2": "[::1]:7000"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "placement.json"


def test_what_was_saved_is_loaded(path: Path) -> None:
    save(path, table(), ADDRESSES)
    assert load(path) == Placement(table(), ADDRESSES)
    assert [file.name for file in path.parent.iterdir()] == ["placement.json"]


def test_the_file_can_be_read_by_people_and_other_programs(path: Path) -> None:
    save(path, table(), ADDRESSES)
    stored = json.loads(path.read_text())
    assert stored["table"]["hosts"]["host-0"] == {"volume": "vol-0", "shards": "0-7"}
    assert stored["addresses"] == ADDRESSES


def test_content_and_folder_are_synced_around_the_rename(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")  # noqa: PTH112
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    save(path, table(), {})
    assert steps == ["file", "rename", "folder"]


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(path, table(), {})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(path, table(epoch=2), {})
    assert load(path).table == table()
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("address", ["", "7000", ":7000", "host:", "host:x", "host:0", "host:65536", "host:\u0663"])
def test_a_malformed_address_is_refused_on_both_ways(path: Path, address: str) -> None:
    with pytest.raises(PlacementError, match="neither host:port nor the path"):
        save(path, table(), {"host-0": address})
    save(path, table(), {})
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"addresses": {"host-0": address}}))
    with pytest.raises(PlacementError, match="neither host:port nor the path"):
        load(path)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"table": 1}', b'{"table": {"format": 9}}', b" " * (2**22 + 1)]
)
def test_a_damaged_file_is_refused_by_its_name(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    with pytest.raises(PlacementError, match=r"the placement file .*placement\.json can't be used"):
        load(path)


def test_a_missing_file_is_refused_by_its_name(path: Path) -> None:
    with pytest.raises(PlacementError, match=r"placement\.json can't be used: .*No such file"):
        load(path)


class Watched:
    def __init__(self, path: Path) -> None:
        self.seen: list[Table] = []
        self.watcher = PlacementWatcher(path, lambda placement: self.seen.append(placement.table))


def test_a_watcher_tells_each_change_once(path: Path) -> None:
    watched = Watched(path)
    watched.watcher.poll()
    assert (watched.seen, watched.watcher.current) == ([], None)
    save(path, table(), {})
    watched.watcher.poll()
    watched.watcher.poll()
    save(path, table(), {})
    watched.watcher.poll()
    assert watched.seen == [table()], "the same content again is no change"
    save(path, table(epoch=2), {})
    watched.watcher.poll()
    assert watched.seen == [table(), table(epoch=2)]


def test_new_addresses_are_a_change(path: Path) -> None:
    watched = Watched(path)
    for address in ("a:1", "b:1"):
        save(path, table(), {"host-0": address})
        watched.watcher.poll()
        assert watched.watcher.current == Placement(table(), {"host-0": address})
    assert len(watched.seen) == 2


def test_a_damaged_file_changes_nothing_and_is_told_of(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(path)
    save(path, table(), {})
    watched.watcher.poll()
    path.write_bytes(b"{")
    watched.watcher.poll()
    watched.watcher.poll()
    assert "can't be used" in watched.watcher.trouble
    assert watched.watcher.current == Placement(table(), {})
    assert len([record for record in caplog.records if "last good one" in record.getMessage()]) == 1
    path.unlink()
    watched.watcher.poll()
    save(path, table(epoch=2), {})
    watched.watcher.poll()
    assert watched.watcher.trouble == ""
    assert watched.seen == [table(), table(epoch=2)]


def test_run_watches_until_it_is_cancelled(path: Path) -> None:
    async def main() -> None:
        changes: asyncio.Queue[Placement] = asyncio.Queue()
        watching = asyncio.create_task(PlacementWatcher(path, changes.put_nowait).run())
        for epoch in (1, 2):
            save(path, table(epoch=epoch), {})
            assert (await changes.get()).table.epoch(0) == epoch
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    run(main())
