"""A crash of the kit loses what was not synced, really, and what was answered never."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.testing import ward
from tests.testing.ward import COINS, Ward

from kubeactor import ActorFencedError, testing
from kubeactor.engine.store import StoreError, new_batch
from kubeactor.testing import BackgroundError
from kubeactor.testing.store import LossyStore

pytestmark = pytest.mark.asyncio

# Batches of the calls of `test_money_...`.
WRITES = 6


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ward.ran.clear()


def begun(call: Any) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(call)


def put(store: LossyStore, key: bytes) -> None:
    batch = new_batch()
    batch.put(key, b"value")
    store.write(batch)


async def test_an_image_holds_what_was_synced_and_nothing_else(tmp_path: Path) -> None:
    store = LossyStore(tmp_path / "db", lambda: None)
    put(store, b"synced")
    store.sync()
    put(store, b"unsynced")
    assert store.get(b"unsynced") == b"value"
    store.image(tmp_path / "copy")
    left = LossyStore(tmp_path / "copy", lambda: None)
    assert [left.get(b"synced"), left.get(b"unsynced")] == [b"value", None]
    put(left, b"unsynced")
    left.image(tmp_path / "again")  # of a store that came up by itself: its own log holds nothing synced yet
    again = LossyStore(tmp_path / "again", lambda: None)
    assert [again.get(b"synced"), again.get(b"unsynced")] == [b"value", None]
    for each in (store, left, again):
        each.close()


async def test_an_image_holds_what_a_flush_wrote_into_tables(tmp_path: Path) -> None:
    store = LossyStore(tmp_path / "db", lambda: None)
    put(store, b"flushed")
    store.flush()
    store.image(tmp_path / "copy")
    left = LossyStore(tmp_path / "copy", lambda: None)
    assert left.get(b"flushed") == b"value"
    left.close()
    store.close()


async def test_files_that_change_all_the_time_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LossyStore(tmp_path / "db", lambda: None)
    lengths = iter(range(10_000))
    monkeypatch.setattr("kubeactor.testing.store._lengths", lambda folder, suffix="": {"x": next(lengths)})
    with pytest.raises(StoreError, match="changes all the time"):
        store.image(tmp_path / "copy")
    store.close()


async def test_what_was_answered_survives_and_what_was_not_synced_is_made_again() -> None:
    async with testing.run(Ward) as actors:
        alice = actors.env.PURSE.id_from_name("alice")
        assert await alice.put(1) == 1
        under_way = begun(alice.put(2))
        await asyncio.sleep(0)
        assert ward.ran.count("put 2") == 1  # its batch is written, its sync not begun
        await actors.crash()
        assert await under_way == 3
        # Had the batch survived, the repeat would have got its recorded result.
        assert ward.ran.count("put 2") == 2
        assert await alice.coins() == 3
        assert actors.crashes == 1


async def test_a_turn_in_the_middle_dies_and_its_call_is_made_again_without_the_client_noticing() -> None:
    async with testing.run(Ward, front_door=ward.app) as actors:
        slow = begun(actors.env.PURSE.id_from_name("alice").slow(0.05))
        posted = begun(actors.http.post("/bob", content="5"))
        called = begun(actors.http.post("/v1/actors/PURSE/carol/put", json=[7]))
        await asyncio.sleep(0)
        await actors.crash()
        assert await slow == 1
        assert (await posted).json()["coins"] == 5
        assert (await called).json() == 7
        for name, coins in (("alice", 1), ("bob", 5), ("carol", 7)):
            assert await actors.storage(actors.env.PURSE.id_from_name(name)).get(COINS) == coins


@pytest.mark.parametrize("writes", range(1, WRITES + 2))
async def test_money_is_neither_lost_nor_made_at_whichever_write_the_power_goes(writes: int) -> None:
    async with testing.run(Ward) as actors:
        alice, bob = map(actors.env.PURSE.id_from_name, ["alice", "bob"])
        await alice.put(10)
        actors.crash_after(writes=writes)
        assert await alice.give("bob", 3) == 7
        await bob.put(0)
        assert await alice.hand("bob", 4) == 3
        await actors.settle()
        assert [await alice.coins(), await bob.coins()] == [3, 7]
        assert actors.crashes == (writes <= WRITES)


async def test_alarms_that_were_set_before_a_crash_run_after_it() -> None:
    async with testing.run(Ward) as actors:
        await actors.env.PURSE.id_from_name("alice").grow(timedelta(minutes=5))
        await actors.crash()
        actors.crash_after(writes=1)
        await actors.advance(minutes=10)
        assert await actors.env.PURSE.id_from_name("alice").coins() == 2
        assert actors.crashes == 2


async def test_a_crash_that_is_still_ahead_does_not_strike_after_the_end() -> None:
    async with testing.run(Ward) as actors:
        actors.crash_after(writes=1)
        left = begun(actors.env.PURSE.id_from_name("alice").put(1))
        await asyncio.sleep(0)  # the host is down, and comes back in the next tick
    with pytest.raises(ActorFencedError, match="the test ended"):
        await left


async def test_crash_after_counts_from_one() -> None:
    async with testing.run(Ward) as actors:
        with pytest.raises(ValueError, match=r"crash_after\(writes=1\) is the next batch"):
            actors.crash_after(writes=0)


async def test_a_restart_in_the_moment_of_a_crash_keeps_what_was_synced() -> None:
    async with testing.run(Ward) as actors:
        alice, bob = map(actors.env.PURSE.id_from_name, ["alice", "bob"])
        assert await alice.put(10) == 10
        actors.crash_after(writes=1)
        put = begun(bob.put(5))
        while ward.ran[-1] != "put 5":
            await asyncio.sleep(0)  # no further: the next host has not come up
        assert actors.crashes == 0
        await actors.restart()
        assert actors.crashes == 1
        assert [await put, await alice.coins(), await bob.coins()] == [5, 10, 5]


async def test_a_restart_keeps_everything_and_calls_go_on() -> None:
    async with testing.run(Ward) as actors:
        alice = actors.env.PURSE.id_from_name("alice")
        await alice.put(1)
        assert await alice.look() == 1
        slow = begun(actors.env.PURSE.id_from_name("slow").slow(0.01))
        await asyncio.sleep(0)
        await actors.restart()
        assert [await slow, await alice.coins(), await alice.look()] == [1, 1, 1]
        assert actors.crashes == 0


async def test_many_crashes_leave_no_threads_and_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = threading.active_count()
    async with testing.run(Ward) as actors:
        for _ in range(5):
            await actors.env.PURSE.id_from_name("alice").put(1)
            await actors.crash()
        assert len([path for folder in tmp_path.iterdir() for path in folder.iterdir()]) == 1
        assert threading.active_count() <= before + 2
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_that_fails_ends_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: LossyStore) -> None:
        raise StoreError("the disk is gone")

    async def test() -> None:
        async with testing.run(Ward) as actors:
            monkeypatch.setattr(LossyStore, "sync", fail)
            left.append(begun(actors.env.PURSE.id_from_name("alice").put(1)))
            await asyncio.sleep(0.01)
            for use in (actors.crash, actors.restart, actors.settle):
                with pytest.raises(BackgroundError, match="the disk is gone"):
                    await use()

    left: list[asyncio.Task[Any]] = []
    with pytest.raises(BackgroundError, match="the disk is gone"):
        await test()
    with pytest.raises(ActorFencedError):
        await left[0]
