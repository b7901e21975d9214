"""Nothing that a turn could have seen leaves before it is on disk."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.harness.engine import LIMIT_S, Machine, failure, on_engine, pauses, session_id

from kubeactor import Actor
from kubeactor.engine.store import StoreError


class Account(Actor):
    async def add(self, amount: int) -> int:
        total: int = await self.ctx.storage.get("total", 0) + amount
        self.ctx.storage.put("total", total)
        return total

    async def total(self) -> int:
        return await self.ctx.storage.get("total", 0)

    async def fail(self) -> None:
        raise ValueError(str(await self.total()))

    async def ask(self, name: str) -> int:
        result: int = await self.env.ACCOUNT.id_from_name(name).total()
        return result

    async def ask_and_fail(self, name: str) -> None:
        raise ValueError(str(await self.ask(name)))

    async def add_and_wait(self, amount: int) -> int:
        total = await self.add(amount)
        await pauses.here("add")
        return total

    async def add_at(self, name: str, amount: int) -> int:
        pauses.log.append("attempt")
        async with asyncio.timeout(0.02 if len(pauses.log) == 1 else LIMIT_S):
            result: int = await self.env.ACCOUNT.id_from_name(name).add_and_wait(amount)
        return result


async def held(m: Machine) -> asyncio.Future[int]:
    """A write whose sync is held back."""
    m.sync_in_thread()
    m.store.hold()
    write = m.send("ACCOUNT", "alice", "add", 30)
    await m.syncing()
    return write


async def nothing_leaves(m: Machine, *futures: asyncio.Future[Any]) -> None:
    """Give whatever wants to leave the chance to do so."""
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not any(future.done() for future in futures)


@on_engine(Account)
async def test_reads_errors_refusals_and_replays_wait_for_the_last_batch_of_their_instance(m: Machine) -> None:
    await m.call("ACCOUNT", "alice", "add", 1, key="k")
    write = await held(m)
    waiting = [
        write,
        m.send("ACCOUNT", "alice", "total"),
        m.send("ACCOUNT", "alice", "fail"),
        m.send("ACCOUNT", "alice", "missing"),
        m.send("ACCOUNT", "alice", "add", "wrong"),
        m.send("ACCOUNT", "alice", "add", 1, key="k"),
        m.send("ACCOUNT", "alice", "add", 2, key="k"),
    ]
    assert await m.call("ACCOUNT", "bob", "total") == 0  # others have nothing to wait for
    await nothing_leaves(m, *waiting)
    m.store.let_go()
    assert await write == 31
    assert await waiting[1] == 31
    assert [(await failure(one)).name for one in waiting[2:5]] == [
        "ActorMethodError",
        "ActorUnknownMethodError",
        "ActorArgumentError",
    ]
    assert await waiting[5] == 1
    assert (await failure(waiting[6])).name == "IdempotencyConflictError"


@on_engine(Account)
async def test_a_repeat_that_arrives_during_the_sync_joins_the_first_and_waits_with_it(m: Machine) -> None:
    m.sync_in_thread()
    m.store.hold()
    call, first = m.make("ACCOUNT", "alice", "add", 30, id=session_id(0, 1))
    m.engine.submit(call)
    await m.syncing()
    repeat = m.send("ACCOUNT", "alice", "add", 30, id=session_id(0, 1), repeat=True)
    await nothing_leaves(m, first, repeat)
    m.store.let_go()
    assert (await first, await repeat) == (30, 30)
    assert await m.call("ACCOUNT", "alice", "total") == 30


@on_engine(Account)
async def test_a_batch_written_while_a_sync_runs_is_not_released_by_it(m: Machine) -> None:
    m.sync_in_thread()
    ends = [threading.Semaphore(0), threading.Semaphore(0)]
    sync, began = m.store.sync, []

    def one_by_one() -> None:
        began.append(m.engine.gate.written)
        assert ends[min(len(began) - 1, 1)].acquire(timeout=LIMIT_S)
        sync()

    m.store.sync = one_by_one  # type: ignore[method-assign]
    first = m.send("ACCOUNT", "alice", "add", 1)
    await m.until(lambda: began)
    second = m.send("ACCOUNT", "alice", "add", 1)
    read = m.send("ACCOUNT", "alice", "total")
    ends[0].release()
    assert await first == 1
    await m.until(lambda: len(began) == 2)
    await nothing_leaves(m, second, read)
    ends[1].release(10)
    assert (await second, await read) == (2, 2)
    assert began == [1, 2]


@on_engine(Account, idle_s=0.0)
async def test_an_eviction_in_between_does_not_go_round_the_gate(m: Machine) -> None:
    write = await held(m)
    m.clock.advance(1)
    for _ in range(2):
        m.engine.housekeeping._tick()
    assert m.engine.find_instance("ACCOUNT", b"alice").actor is None  # type: ignore[union-attr]
    read = m.send("ACCOUNT", "alice", "total")
    await nothing_leaves(m, write, read)
    m.store.let_go()
    assert (await write, await read) == (30, 30)


@on_engine(Account)
async def test_the_unsynced_result_of_a_nested_call_holds_back_a_caller_that_wrote_nothing(m: Machine) -> None:
    write = await held(m)
    asked = m.send("ACCOUNT", "carol", "ask", "alice")
    failed = m.send("ACCOUNT", "dave", "ask_and_fail", "alice")
    await m.until(lambda: not m.engine.suspended)
    later = m.send("ACCOUNT", "carol", "total")  # its instance may hold what it was told in a field
    await nothing_leaves(m, write, asked, failed, later)
    m.store.let_go()
    assert (await asked, await later) == (30, 0)
    assert "30" in (await failure(failed)).detail


@on_engine(Account)
async def test_a_retried_caller_that_joins_its_earlier_nested_call_waits_for_that_ones_batch(m: Machine) -> None:
    m.sync_in_thread()
    assert "TimeoutError" in (await m.error("ACCOUNT", "carol", "add_at", "alice", 5, id=session_id(0, 1))).detail
    retried = m.send("ACCOUNT", "carol", "add_at", "alice", 5, id=session_id(0, 1), repeat=True)
    m.store.hold()
    pauses.go("add")
    await m.until(lambda: not m.engine.suspended)
    await nothing_leaves(m, retried)
    m.store.let_go()
    assert await retried == 5
    assert await m.call("ACCOUNT", "alice", "total") == 5


@on_engine(Account)
async def test_a_failed_sync_lets_nothing_leave_and_is_told_once(m: Machine) -> None:
    await m.call("ACCOUNT", "alice", "add", 1)
    write = await held(m)
    read = m.send("ACCOUNT", "alice", "total")
    m.store.fail_sync = "IO error: Input/output error"
    m.store.let_go()
    await m.until(lambda: m.failures)
    late = await m.error("ACCOUNT", "bob", "total")
    assert (late.name, late.started) == ("ActorFencedError", "no")
    await nothing_leaves(m, write, read)
    assert m.failures == ["IO error: Input/output error"]
    m.store.fail_sync = ""
    m.crash()
    assert await m.call("ACCOUNT", "alice", "total") in (1, 31)


@on_engine(Account)
async def test_a_sync_in_the_loop_that_fails_lets_nothing_leave(m: Machine) -> None:
    m.store.fail_sync = "IO error: Input/output error"
    write = m.send("ACCOUNT", "alice", "add", 1)
    await m.until(lambda: m.failures)
    await nothing_leaves(m, write)
    m.store.fail_sync = ""
    m.crash()


@on_engine(Account)
async def test_a_gated_reply_that_misses_its_deadline_is_unknown(m: Machine) -> None:
    m.sync_in_thread()
    m.store.hold()
    error = await m.error("ACCOUNT", "alice", "add", 1, timeout_s=0.05)
    assert (error.name, error.started, error.status) == ("ActorOutputGateError", "unknown", 504)
    m.store.let_go()
    assert await m.call("ACCOUNT", "alice", "total") == 1


@on_engine(Account)
async def test_batches_that_wait_share_one_sync(m: Machine) -> None:
    write = await held(m)
    syncs = m.store.syncs
    others = [m.send("ACCOUNT", f"n{i}", "add", i) for i in range(50)]
    m.store.let_go()
    assert await asyncio.gather(*others) == list(range(50))
    assert await write == 30
    assert m.store.syncs == syncs + 2


@on_engine(Account)
async def test_closing_syncs_what_was_written_and_lets_it_out(m: Machine) -> None:
    m.sync_in_thread()
    m.store.hold()
    write = m.send("ACCOUNT", "alice", "add", 1)
    await m.syncing()
    m.store.let_go()
    await m.engine.close(0)
    assert await write == 1
    m.start()
    assert await m.call("ACCOUNT", "alice", "total") == 1


@on_engine(Account, owned=lambda shard: False)
async def test_a_call_to_a_remote_shard_leaves_only_when_what_the_turn_saw_is_safe(m: Machine) -> None:
    m.engine.grant([(shard, 1) for shard in range(m.shards) if shard != _shard(m, "far")])
    m.sync_in_thread()
    m.store.hold()
    sent: list[str] = []

    class Elsewhere:
        shards = m.shards

        def submit(self, call: object) -> None:
            sent.append("left")
            call.reply(b"")  # type: ignore[attr-defined]

    m.engine.dispatcher = Elsewhere()
    write = m.send("ACCOUNT", "alice", "add", 1)
    asking = m.send("ACCOUNT", "alice", "ask", "far")
    idle = m.send("ACCOUNT", "carol", "ask", "far")
    await m.until(lambda: sent == ["left"])  # carol had nothing to wait for
    await nothing_leaves(m, write, asking)
    assert sent == ["left"]
    m.store.let_go()
    await m.until(lambda: sent == ["left", "left"])
    assert await write == 1
    assert [(await failure(one)).name for one in (asking, idle)] == ["CodecError"] * 2


@on_engine(Account)
async def test_the_memtable_is_flushed_in_the_background_after_so_many_batches(m: Machine) -> None:
    flushes: list[int] = []
    flush = m.store.flush

    def count() -> None:
        flushes.append(m.engine.gate.written)
        flush()

    m.store.flush = count  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kubeactor.engine.gate.FLUSH_BATCHES", 10)
        for i in range(25):
            await m.call("ACCOUNT", "alice", "add", 1)
            await m.until(lambda: not m.engine.gate._flushing)
            assert len(flushes) == (i + 1) // 10
    m.crash()
    assert await m.call("ACCOUNT", "alice", "total") == 25


@on_engine(Account)
async def test_a_failed_flush_ends_the_worker(m: Machine) -> None:
    def fail() -> None:
        raise StoreError("a flush failed: IO error")

    m.store.flush = fail  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kubeactor.engine.gate.FLUSH_BATCHES", 1)
        assert await m.call("ACCOUNT", "alice", "add", 1) == 1
        await m.until(lambda: m.failures)
    assert m.failures == ["a flush failed: IO error"]


def _shard(m: Machine, name: str) -> int:
    from kubeactor.ids import shard_of

    return shard_of(name.encode(), m.shards)


@on_engine(Account)
async def test_a_store_is_closed_only_after_the_flush_that_runs(m: Machine) -> None:
    began, go_on = threading.Event(), threading.Event()
    flushed = []

    def slow_flush() -> None:
        began.set()
        go_on.wait(LIMIT_S)
        flushed.append(True)

    m.store.flush = slow_flush  # type: ignore[method-assign]
    m.engine.gate.lay_out_wals()
    await asyncio.to_thread(began.wait, LIMIT_S)
    threading.Timer(0.05, go_on.set).start()
    m.engine.gate.close()
    assert flushed
