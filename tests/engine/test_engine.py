"""One turn at a time, first in first out, with bounds."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from pathlib import Path

import pytest
from tests.harness.engine import Machine, failure, on_engine, pauses

from kubeactor import Actor, ActorOverloadedError, ActorUnknownMethodError, AlarmInfo, Problem, method
from kubeactor.call import Call
from kubeactor.engine.turn import Turn
from kubeactor.errors import ActorError


class Refused(Problem):
    status = 409
    left: int


class Account(Actor):
    def __init__(self) -> None:
        self.seen = 0

    async def add(self, amount: int) -> int:
        total = await self.ctx.storage.get("total", 0) + amount
        self.ctx.storage.put("total", total)
        self.seen += 1
        return total

    async def slow_add(self, amount: int) -> int:
        total = await self.ctx.storage.get("total", 0)
        await asyncio.sleep(0.001)
        self.ctx.storage.put("total", total + amount)
        return total + amount

    async def total(self) -> int:
        return await self.ctx.storage.get("total", 0)

    async def wait(self, name: str) -> str:
        await pauses.here(name)
        pauses.log.append(name)
        return name

    async def note(self, text: str) -> int:
        pauses.log.append(text)
        return len(pauses.log)

    async def note_and_write(self, text: str) -> None:
        pauses.log.append(text)
        self.ctx.storage.put(text, 1)

    async def wake_in(self, seconds: int) -> None:
        await self.ctx.storage.set_alarm(timedelta(seconds=seconds))

    async def alarm(self, info: AlarmInfo, /) -> None:
        pauses.log.append("alarm")

    async def tell(self, name: str, text: str) -> None:
        self.ctx.send(self.env.ACCOUNT.id_from_name(name).note, text)

    async def refuse(self) -> None:
        raise Refused("no more", left=3)

    async def swallow(self, text: str) -> int:
        return len(text)

    async def seen_calls(self) -> int:
        return self.seen

    @method(internal=True)
    async def inside(self) -> int:
        return 1


@on_engine(Account)
async def test_a_result_is_what_the_method_returned(m: Machine) -> None:
    assert await m.call("ACCOUNT", "alice", "add", 30) == 30
    assert await m.call("ACCOUNT", "alice", "add", 12) == 42
    assert await m.call("ACCOUNT", "bob", "total") == 0


@on_engine(Account)
async def test_calls_of_one_instance_run_one_at_a_time_and_in_order(m: Machine) -> None:
    first = m.send("ACCOUNT", "alice", "wait", "first")
    await pauses.arrived("first")
    others = [m.send("ACCOUNT", "alice", "note", f"n{i}") for i in range(20)]
    await asyncio.sleep(0.01)
    assert pauses.log == []
    pauses.go("first")
    await asyncio.gather(first, *others)
    assert pauses.log == ["first", *(f"n{i}" for i in range(20))]


@on_engine(Account)
async def test_an_await_between_get_and_put_lets_no_other_call_in(m: Machine) -> None:
    results = await asyncio.gather(*(m.send("ACCOUNT", "alice", "slow_add", 1) for _ in range(100)))
    assert sorted(results) == list(range(1, 101))


@on_engine(Account)
async def test_other_instances_go_on_while_one_waits(m: Machine) -> None:
    held = m.send("ACCOUNT", "alice", "wait", "x")
    await pauses.arrived("x")
    assert await m.call("ACCOUNT", "bob", "add", 1) == 1
    assert not held.done()
    pauses.go("x")
    assert await held == "x"


@on_engine(Account)
async def test_alarms_messages_and_calls_share_one_queue(m: Machine) -> None:
    await m.call("ACCOUNT", "alice", "wake_in", 10)
    held = m.send("ACCOUNT", "alice", "wait", "held")
    await pauses.arrived("held")
    m.clock.advance(10)
    m.engine.alarms.fire()
    told = m.send("ACCOUNT", "bob", "tell", "alice", "message")
    await m.until(lambda: m.engine.queued_calls == 2)
    late = m.send("ACCOUNT", "alice", "note", "call")
    pauses.go("held")
    await asyncio.gather(held, told, late)
    assert pauses.log == ["held", "alarm", "message", "call"]


@on_engine(Account)
async def test_a_full_queue_of_short_turns_is_worked_off_without_deep_recursion(m: Machine) -> None:
    held = m.send("ACCOUNT", "alice", "wait", "x")
    await pauses.arrived("x")
    queued = [m.send("ACCOUNT", "alice", "note_and_write", f"n{i}") for i in range(256)]
    pauses.go("x")
    await asyncio.gather(held, *queued)
    assert pauses.log[1:] == [f"n{i}" for i in range(256)]


@on_engine(Account)
async def test_the_queue_of_an_instance_holds_256_turns(m: Machine) -> None:
    held = m.send("ACCOUNT", "alice", "wait", "x")
    queued = [m.send("ACCOUNT", "alice", "note", "n") for _ in range(256)]
    error = await m.error("ACCOUNT", "alice", "note", "one too many")
    assert isinstance(error, ActorOverloadedError)
    assert (error.started, error.overloaded, error.retryable, error.retry_after_s) == ("no", True, True, 1)
    assert await m.call("ACCOUNT", "bob", "add", 1) == 1
    pauses.go("x")
    await asyncio.gather(held, *queued)
    assert m.engine.queued_calls == m.engine.queued_bytes == 0


@on_engine(Account)
async def test_the_queue_of_an_instance_holds_8_mib_but_an_empty_one_admits_any_call(m: Machine) -> None:
    big = "x" * (9 * 1024 * 1024)
    held = m.send("ACCOUNT", "alice", "wait", "x")
    queued = m.send("ACCOUNT", "alice", "swallow", big)
    assert not queued.done()
    assert (await m.error("ACCOUNT", "alice", "total")).name == "ActorOverloadedError"
    pauses.go("x")
    assert await queued == len(big)
    await held


@on_engine(Account)
async def test_the_queues_of_a_host_are_bounded_in_calls_and_bytes(m: Machine) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kubeactor.engine.engine.HOST_QUEUE_CALLS", 10)
        held = [m.send("ACCOUNT", name, "wait", "x") for name in "abcd"]
        queued = [m.send("ACCOUNT", name, "note", "n") for name in "abcd" for _ in range(3)]
        refused = [future for future in queued if future.done()]
        assert len(refused) == 2
        assert "this host has 10 calls" in (await failure(refused[0])).detail
        patch.setattr("kubeactor.engine.engine.HOST_QUEUE_CALLS", 100)
        patch.setattr("kubeactor.engine.engine.HOST_QUEUE_BYTES", m.engine.queued_bytes + 5)
        assert (await m.error("ACCOUNT", "a", "note", "longer")).overloaded
        pauses.go("x")
        await asyncio.gather(*held, *(future for future in queued if future not in refused))


@on_engine(Account)
async def test_a_call_whose_deadline_passes_in_the_queue_is_not_started(m: Machine) -> None:
    held = m.send("ACCOUNT", "alice", "wait", "x")
    late = await m.error("ACCOUNT", "alice", "note", "late", timeout_s=0.05)
    assert (late.name, late.started) == ("ActorMethodTimeoutError", "no")
    also_late = m.send("ACCOUNT", "alice", "note", "late", timeout_s=60)
    m.clock.skipped_s += 61
    pauses.go("x")
    assert (await failure(also_late)).started == "no"
    await held
    assert "late" not in pauses.log


@on_engine(Account)
async def test_unknown_bindings_methods_and_internal_methods_are_refused(m: Machine) -> None:
    names = [
        ("NOBODY", "add", "ActorUnknownBindingError"),
        ("ACCOUNT", "missing", "ActorUnknownMethodError"),
        ("ACCOUNT", "__class__", "ActorUnknownMethodError"),
        ("ACCOUNT", "ctx", "ActorUnknownMethodError"),
        ("ACCOUNT", "alarm", "ActorUnknownMethodError"),
        ("ACCOUNT", "inside", "ActorPrivateMethodError"),
    ]
    for binding, called, expected in names:
        error = await m.error(binding, "alice", called)
        assert (error.name, error.started) == (expected, "no")
    assert await m.call("ACCOUNT", "alice", "inside", internal=True) == 1


@on_engine(Account)
async def test_wrong_arguments_are_refused_before_the_method_starts(m: Machine) -> None:
    error = await m.error("ACCOUNT", "alice", "add", "thirty")
    assert (error.name, error.started) == ("ActorArgumentError", "no")
    assert "amount" in error.detail
    assert await m.call("ACCOUNT", "alice", "add", 1) == 1


@on_engine(Account, owned=lambda shard: shard == 3)
async def test_a_call_for_a_foreign_shard_or_epoch_is_fenced(m: Machine) -> None:
    call, future = m.make("ACCOUNT", "alice", "add", 1)
    call.shard = 4
    m.engine.submit(call)
    error = await failure(future)
    assert (error.name, error.started, error.retryable) == ("ActorFencedError", "no", True)
    call, future = m.make("ACCOUNT", "alice", "add", 1, epoch=7)
    call.shard = 3
    m.engine.submit(call)
    assert "epoch 1" in (await failure(future)).detail
    assert m.engine.stats.fenced == 2


@on_engine(Account)
async def test_a_problem_of_the_user_keeps_its_class_and_members(m: Machine) -> None:
    error = await m.error("ACCOUNT", "alice", "refuse")
    assert isinstance(error, Refused)
    assert (error.left, error.status, error.started) == (3, 409, "yes")


@on_engine(Account)
async def test_calls_that_come_while_the_host_goes_down_are_fenced(m: Machine) -> None:
    held = m.send("ACCOUNT", "alice", "wait", "x")
    queued = m.send("ACCOUNT", "alice", "note", "n")
    await m.engine.close(0.01)
    for future in (held, queued, m.send("ACCOUNT", "bob", "note", "n")):
        error = await failure(future)
        assert (error.name, error.started) == ("ActorFencedError", "no")
    assert m.engine.ready() == "going down"
    m.start()


@on_engine(Account)
async def test_the_engine_counts_what_it_does(m: Machine) -> None:
    await m.call("ACCOUNT", "alice", "add", 1)
    await m.error("ACCOUNT", "alice", "missing")
    stats = m.engine.stats
    assert (stats.turns, stats.activations, stats.instances, stats.commits) == (1, 1, 1, 1)
    assert stats.errors == {ActorUnknownMethodError.__name__: 1}
    assert stats.syncs >= 1
    assert stats.sync_seconds > 0
    assert (stats.queue_calls, stats.queue_bytes, stats.leftovers, stats.sync_errors, stats.stalls) == (0, 0, 0, 0, 0)
    assert m.engine.ready() is None


@on_engine(Account)
async def test_a_reply_that_raises_keeps_no_other_reply_back(m: Machine) -> None:
    m.sync_in_thread()
    m.store.hold()
    call, _ = m.make("ACCOUNT", "alice", "add", 1)

    def raises(outcome: bytes | ActorError) -> None:
        raise ConnectionError("the client has gone")

    call.reply = raises
    m.engine.submit(call)
    other = m.send("ACCOUNT", "bob", "add", 1)
    m.store.let_go()
    assert await other == 1
    gc.collect()


@pytest.mark.parametrize(("method", "argument"), [("add", 1), ("slow_add", 1), ("swallow", "x")])
def test_a_call_leaves_nothing_to_the_garbage_collector(method: str, argument: object, tmp_path: Path) -> None:
    @on_engine(Account)
    async def calls(m: Machine) -> None:
        await m.call("ACCOUNT", "alice", method, argument)
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                await m.call("ACCOUNT", "alice", method, argument)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            found = {type(one) for one in gc.garbage}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert not found & {Turn, Call, asyncio.Task}

    calls(tmp_path)
