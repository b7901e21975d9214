"""What a host does every now and then: evict what is idle, look at the disk, forget old results, end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tests.engine.clockwork import rest
from tests.harness.engine import Machine, failure, on_engine, pauses, session_id

from kubeactor import Actor, AlarmInfo
from kubeactor.engine import housekeeping
from kubeactor.errors import ActorFencedError, StorageLimitError


class Cell(Actor):
    """Counts in memory and in storage."""

    def __init__(self) -> None:
        self.fresh = True

    async def add(self) -> int:
        count = await self.ctx.storage.get("count", 0) + 1
        self.ctx.storage.put("count", count)
        return count

    async def is_fresh(self) -> bool:
        fresh, self.fresh = self.fresh, False
        return fresh

    async def drop(self) -> bool:
        return await self.ctx.storage.delete("count")

    async def wait(self, name: str) -> str:
        await pauses.here(name)
        return name

    async def wake(self) -> None:
        self.ctx.storage.set_alarm(timedelta(seconds=60))

    async def alarm(self, info: AlarmInfo, /) -> None:
        await self.add()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "TICK_S", 0.002)


def kept(m: Machine) -> bool:
    return m.engine.find_instance("CELL", b"a") is not None


@on_engine(Cell)
async def test_an_idle_instance_is_evicted_after_its_time_and_activated_anew(m: Machine) -> None:
    assert await m.call("CELL", "a", "is_fresh") is True
    assert await m.call("CELL", "a", "is_fresh") is False
    m.clock.advance(59)
    await asyncio.sleep(0.02)
    assert kept(m)
    m.clock.advance(2)
    await m.until(lambda: not kept(m))
    assert m.engine.stats.evictions == 1
    assert await m.call("CELL", "a", "is_fresh") is True


@on_engine(Cell)
async def test_with_too_many_instances_in_memory_those_that_were_idle_for_a_second_go(m: Machine) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(housekeeping, "INSTANCES", 20)
        for n in range(20):
            await m.call("CELL", f"old{n}", "add")
        m.clock.advance(2)
        await asyncio.sleep(0.02)
        assert m.engine.stats.instances == 20
        await m.call("CELL", "a", "add")
        await m.until(lambda: m.engine.stats.instances <= 20)
        assert kept(m), "it was used just now"
    assert await m.call("CELL", "old7", "add") == 2


@on_engine(Cell)
async def test_a_call_begins_the_idle_time_anew(m: Machine) -> None:
    for _ in range(3):
        await m.call("CELL", "a", "add")
        m.clock.advance(40)
        await asyncio.sleep(0.01)
        assert kept(m)


@on_engine(Cell)
async def test_an_instance_with_a_turn_or_a_queue_is_not_evicted(m: Machine) -> None:
    held = m.send("CELL", "a", "wait", "x", timeout_s=300)
    await pauses.arrived("x")
    queued = m.send("CELL", "a", "is_fresh", timeout_s=300)
    instance = m.engine.find_instance("CELL", b"a")
    assert instance is not None
    assert not m.engine.housekeeping.evict(instance)
    pauses.go("x")
    assert (await held, await queued) == ("x", True)


@on_engine(Cell)
async def test_the_record_of_an_evicted_instance_stays_until_its_last_batch_is_on_disk(m: Machine) -> None:
    m.sync_in_thread()
    m.store.hold()
    written = m.send("CELL", "a", "add")
    await m.syncing()
    instance = m.engine.find_instance("CELL", b"a")
    assert instance is not None
    assert m.engine.housekeeping.evict(instance)
    assert instance.actor is None
    assert kept(m)
    read = m.send("CELL", "a", "is_fresh")
    await asyncio.sleep(0.02)
    assert not read.done(), "it has seen a batch that is not on disk"
    m.store.let_go()
    assert (await written, await read) == (1, True)


@on_engine(Cell)
async def test_an_alarm_in_time_is_kept_by_an_evicted_instance(m: Machine) -> None:
    await m.call("CELL", "a", "wake")
    m.clock.advance(61)
    await m.until(lambda: m.engine.alarms.ran == 1)
    m.clock.advance(61)
    await m.until(lambda: not kept(m))
    assert await m.call("CELL", "a", "add") == 2


@on_engine(Cell)
async def test_a_nearly_full_disk_refuses_growth_only_and_only_as_long_as_it_is(m: Machine) -> None:
    await m.call("CELL", "a", "add")
    m.store.nearly_full = lambda: True  # type: ignore[method-assign]
    m.clock.skipped_s += 2
    await m.until(lambda: m.engine.disk_full)
    error = await m.error("CELL", "a", "add")
    assert isinstance(error, StorageLimitError)
    assert error.http_status() == 507
    assert await m.call("CELL", "a", "is_fresh") is True
    assert await m.call("CELL", "a", "drop") is True
    m.store.nearly_full = lambda: False  # type: ignore[method-assign]
    m.clock.skipped_s += 2
    await m.until(lambda: not m.engine.disk_full)
    assert await m.call("CELL", "a", "add") == 1


@on_engine(Cell)
async def test_a_disk_that_can_not_be_looked_at_ends_the_worker(m: Machine) -> None:
    def broken() -> bool:
        raise OSError("Input/output error")

    m.store.nearly_full = broken  # type: ignore[method-assign]
    m.clock.skipped_s += 2
    await m.until(lambda: m.failures)
    assert m.failures == ["Input/output error"]
    assert m.engine.ready() == "Input/output error"


@on_engine(Cell)
async def test_results_of_a_session_that_is_gone_are_deleted(m: Machine) -> None:
    await m.call("CELL", "a", "add", id=session_id(0, 1))

    def recorded() -> list[Any]:
        return [row for shard in range(m.shards) for row in m.store.rows(_prefix(shard), _prefix(shard) + b"\xff")]

    assert len(recorded()) == 1
    for _ in range(3):
        m.clock.advance(housekeeping.COLLECT_S + 1)
        await asyncio.sleep(0.02)
        await rest(m)
    assert recorded() == []
    assert await m.call("CELL", "a", "add") == 2


def _prefix(shard: int) -> bytes:
    return shard.to_bytes(2, "big") + b"s"


@on_engine(Cell)
async def test_the_end_lets_running_turns_finish_and_fences_what_waits(m: Machine) -> None:
    held = m.send("CELL", "a", "wait", "x")
    await pauses.arrived("x")
    queued = m.send("CELL", "a", "add")
    closing = asyncio.ensure_future(m.engine.close(5))
    error = await failure(queued)
    assert isinstance(error, ActorFencedError)
    assert error.started == "no"
    pauses.go("x")
    assert await held == "x"
    await closing
    m.start()


@on_engine(Cell)
async def test_the_end_cancels_what_does_not_finish_in_its_grace(m: Machine) -> None:
    held = m.send("CELL", "a", "wait", "x")
    await pauses.arrived("x")
    await m.engine.close(0.01)
    assert isinstance(held.exception(), ActorFencedError)
    m.start()
    assert await m.call("CELL", "a", "add") == 1
