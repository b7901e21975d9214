"""Many alarms: few of them in memory, none late, calls go on meanwhile. Figures are printed, bounds are asserted."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from tests.engine.clockwork import due_rows, look_often, pass_time, rest
from tests.harness.engine import Machine, on_engine, pauses

from kubeactor import Actor, AlarmInfo
from kubeactor.engine import alarms, layout
from kubeactor.engine.alarms import AlarmRow
from kubeactor.engine.store import new_batch
from kubeactor.ids import shard_of


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    look_often(monkeypatch)


class Pinger(Actor):
    """As little as an alarm can do."""

    async def set(self, seconds: float) -> None:
        self.ctx.storage.set_alarm(timedelta(seconds=seconds))

    async def alarm(self, info: AlarmInfo, /) -> None:
        self.ctx.storage.put("ran", await self.ctx.storage.get("ran", 0) + 1)
        pauses.log.append(self.ctx.name)

    async def ping(self) -> int:
        return 1


@on_engine(Pinger)
async def test_an_idle_host_fires_within_100_ms(m: Machine) -> None:
    # On the real clock: the virtual one is put aside.
    m.clock.now_us = lambda: time.time_ns() // 1000  # type: ignore[method-assign]
    late = []
    for n in range(5):
        ran = len(pauses.log)
        await m.call("PINGER", f"a{n}", "set", 0.05)
        due = time.monotonic() + 0.05
        await m.until(lambda ran=ran: len(pauses.log) > ran)  # type: ignore[misc]
        late.append(time.monotonic() - due)
    print(f"alarms late by {[round(seconds * 1000, 1) for seconds in late]} ms")
    assert min(late) < 0.1, "a busy machine may stop for longer, though not each time"


def plant(m: Machine, count: int, spread_s: float) -> None:
    """Write that many alarms as if they had been set, the first one due in 60 s."""
    batch = new_batch()
    for n in range(count):
        identity = f"p{n}".encode()
        key = b"PINGER\0" + identity
        number = shard_of(identity, m.shards)
        due_us = m.clock.wall_us + 60_000_000 + int(spread_s * 1e6 * n / count)
        batch.put(layout.instance_key(number, layout.ALARM, key), msgspec.msgpack.encode(AlarmRow(1, due_us, due_us)))
        batch.put(layout.due_key(number, due_us, key), b"")
    m.store.write(batch)
    m.store.sync()


@on_engine(Pinger, shards=256)
async def test_100_000_pending_alarms_are_mostly_on_disk(m: Machine) -> None:
    await m.restart()
    began = time.monotonic()
    await m.restart()
    empty_s = time.monotonic() - began
    plant(m, 100_000, spread_s=1e6)
    await m.stop()
    began = time.monotonic()
    m.start()
    print(f"start with 100,000 pending alarms: {time.monotonic() - began:.3f} s, restart with none: {empty_s:.3f} s")
    assert m.engine.alarms.pending_in_memory <= alarms.LOADED + 256 * alarms.LOADED_PER_SHARD_MIN


@pytest.mark.parametrize(("shards", "loaded"), [(4, 64), (1, 16)])
def test_alarms_beyond_what_is_in_memory_all_fire_once(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, shards: int, loaded: int
) -> None:
    monkeypatch.setattr(alarms, "LOADED", loaded)
    names = [f"p{n}" for n in range(600)]

    async def story(m: Machine) -> None:
        plant(m, 400, spread_s=100)
        await m.restart()
        for n in range(400, 600):
            await m.call("PINGER", f"p{n}", "set", random.uniform(0, 200))
        assert m.engine.alarms.pending_in_memory <= 5 * max(loaded, 16 * shards)
        for _ in range(14):
            await pass_time(m, 15)
            assert m.engine.alarms.pending_in_memory <= 5 * max(loaded, 16 * shards)
        assert sorted(pauses.log) == sorted(names)
        assert due_rows(m) == 0

    pauses.reset()
    random.seed(1)
    machine = Machine(tmp_path, Pinger, shards=shards)
    machine.run(story(machine))


@on_engine(Pinger, shards=256)
async def test_10_000_alarms_of_one_second_all_run_once_and_calls_go_on(m: Machine) -> None:
    async def latencies(until: Any) -> list[float]:
        found = []
        while not until():
            began = time.perf_counter()
            await m.call("PINGER", "other", "ping")
            found.append(time.perf_counter() - began)
            await asyncio.sleep(0.001)
        return sorted(found)

    plant(m, 10_000, spread_s=1)
    await m.restart()
    quiet = time.monotonic() + 0.5
    before = await latencies(lambda: time.monotonic() > quiet)
    m.clock.advance(61)
    began = time.monotonic()
    m.engine.alarms.fire()
    during = await latencies(lambda: len(pauses.log) >= 10_000)
    took_s = time.monotonic() - began
    for name, found in (("quiet", before), ("while 10,000 alarms run", during)):
        middle, high = found[len(found) // 2], found[len(found) * 99 // 100]
        print(f"{name}: {len(found)} calls, median {middle * 1e6:.0f} us, p99 {high * 1e6:.0f} us")
    print(f"10,000 alarms took {took_s:.2f} s")
    await rest(m)
    assert len(pauses.log) == len(set(pauses.log)) == 10_000
    assert due_rows(m) == 0
