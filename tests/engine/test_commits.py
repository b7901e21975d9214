"""Batches: atomic, in order, and patient while RocksDB asks to wait."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from tests.engine.clockwork import delivered, due_rows, pass_time
from tests.harness.engine import Machine, on_engine, pauses

from kubeactor import Actor, AlarmInfo


class Log(Actor):
    async def add(self, text: str) -> list[str]:
        texts: list[str] = await self.ctx.storage.get("texts", [])
        self.ctx.storage.put("texts", [*texts, text])
        pauses.log.append((self.ctx.name, text))
        return [*texts, text]

    async def texts(self) -> list[str]:
        pauses.log.append((self.ctx.name, "read"))
        return await self.ctx.storage.get("texts", [])

    async def add_and_wait(self, text: str) -> None:
        await self.add(text)
        await pauses.here(text)

    async def swap(self) -> None:
        self.ctx.storage.delete("texts")
        self.ctx.storage.put({"a": 1, "b": [2, 3]})

    async def keys(self) -> list[str]:
        return list(await self.ctx.storage.list())

    async def everything(self, to: str) -> str:
        self.ctx.storage.set_alarm(timedelta(hours=1))
        self.ctx.send(self.env.LOG.id_from_name(to).add, "sent")
        await self.add("kept")
        return "done"

    async def alarm(self, info: AlarmInfo, /) -> None:
        await self.add("rang")


@on_engine(Log)
async def test_a_turns_writes_are_one_batch(m: Machine) -> None:
    await m.call("LOG", "a", "add", "x")
    writes = m.store.writes
    await m.call("LOG", "a", "swap")
    assert m.store.writes == writes + 1
    m.crash()
    assert await m.call("LOG", "a", "keys") == ["a", "b"]


@on_engine(Log)
async def test_data_alarm_messages_and_recorded_result_are_one_batch(m: Machine) -> None:
    m.engine.background = False  # what follows from the turn has batches of its own
    writes = m.store.writes
    m.send("LOG", "a", "everything", "b", key="k")
    assert m.store.writes == writes + 1
    m.crash()
    assert due_rows(m) == 1
    assert await m.call("LOG", "a", "everything", "b", key="k") == "done"
    await delivered(m)
    assert await m.call("LOG", "a", "texts") == ["kept"]
    assert await m.call("LOG", "b", "texts") == ["sent"]


@on_engine(Log)
async def test_what_an_alarm_wrote_and_its_end_are_one_batch(m: Machine) -> None:
    await m.call("LOG", "a", "everything", "b")
    await delivered(m)
    writes = m.store.writes
    await pass_time(m, 3600)
    assert m.store.writes == writes + 1
    m.crash()
    assert due_rows(m) == 0
    assert await m.call("LOG", "a", "texts") == ["kept", "rang"]


@on_engine(Log)
async def test_a_write_stall_keeps_the_order_and_loses_nothing(m: Machine) -> None:
    m.store.stalls = 5
    futures = [m.send("LOG", "a", "add", str(i)) for i in range(5)]
    other = m.send("LOG", "b", "add", "x")
    assert pauses.log == [("a", "0")]  # its batch waits, so nothing else starts, not even of other instances
    assert m.engine.queued_calls == 5
    results = await asyncio.gather(*futures)
    assert results[-1] == ["0", "1", "2", "3", "4"]
    assert await other == ["x"]
    assert m.engine.stats.stalls == 5
    m.crash()
    assert await m.call("LOG", "a", "texts") == ["0", "1", "2", "3", "4"]


@on_engine(Log)
async def test_several_stalled_batches_are_all_written_before_anything_new_starts(m: Machine) -> None:
    ending = [m.send("LOG", name, "add_and_wait", f"w{name}") for name in "abc"]
    for name in "abc":
        await pauses.arrived(f"w{name}")
    m.store.stalls = 10**6  # more than the retries until all three wait
    for name in "abc":
        pauses.go(f"w{name}")
    await m.until(lambda: len(m.engine.commits._stalled) == 3)
    queued = [m.send("LOG", name, "texts") for name in "abcd"]
    m.store.stalls = 0
    written: list[str] = []
    write = m.store.write

    def watch(batch: object) -> None:
        written.append("batch")
        assert not [entry for entry in pauses.log if entry[1] == "read"]
        write(batch)  # type: ignore[arg-type]

    m.store.write = watch  # type: ignore[method-assign]
    await asyncio.gather(*ending)
    assert await asyncio.gather(*queued) == [["wa"], ["wb"], ["wc"], []]
    assert len(written) == 3


@on_engine(Log)
async def test_a_failed_write_lets_nothing_leave_and_is_told_once(m: Machine) -> None:
    assert await m.call("LOG", "a", "add", "kept") == ["kept"]
    running = m.send("LOG", "c", "add_and_wait", "late")
    await pauses.arrived("late")
    m.store.fail_write = "IO error: No space left on device"
    lost = [m.send("LOG", "a", "add", "lost"), m.send("LOG", "b", "add", "lost")]
    assert (await m.error("LOG", "b", "texts")).name == "ActorFencedError"
    pauses.go("late")
    await m.until(lambda: not m.engine.suspended)
    assert [future.done() for future in (*lost, running)] == [False, True, False]
    assert m.failures == ["IO error: No space left on device"]
    assert m.engine.ready() == "IO error: No space left on device"
    assert m.engine.stats.sync_errors == 1
    m.crash()
    assert await m.call("LOG", "a", "texts") == ["kept"]


@on_engine(Log)
async def test_a_write_that_fails_while_a_sync_runs_keeps_back_what_that_sync_covers(m: Machine) -> None:
    m.sync_in_thread()
    m.store.hold()
    covered = m.send("LOG", "a", "add", "x")
    await m.syncing()
    m.store.fail_write = "IO error: Input/output error"
    failing = m.send("LOG", "b", "add", "y")
    m.store.let_go()
    await m.until(lambda: not m.engine.gate._busy)
    assert not covered.done()
    assert not failing.done()
    assert m.failures == ["IO error: Input/output error"]
