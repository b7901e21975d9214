"""An instance comes to life, fails to, and is forgotten."""

from __future__ import annotations

import asyncio

from tests.harness.engine import Machine, failure, on_engine, pauses

from kubeactor import Actor, ActorFencedError


class Plain(Actor):
    def __init__(self) -> None:
        self.turns = 0

    async def turn(self) -> int:
        self.turns += 1
        return self.turns

    async def put(self, value: int) -> int:
        self.turns += 1
        self.ctx.storage.put("value", value)
        return self.turns

    async def wait(self, name: str) -> None:
        await pauses.here(name)


class Careful(Actor):
    """Counts its activations; fails as told by the log."""

    def __init__(self) -> None:
        self.ready = False

    async def activate(self) -> None:
        count = await self.ctx.storage.get("activations", 0) + 1
        self.ctx.storage.put("activations", count)
        if "wait" in pauses.log:
            await pauses.here("activate")
        if "fail" in pauses.log:
            raise OSError("no connection")
        self.ready = True

    async def activations(self) -> int:
        assert self.ready
        return await self.ctx.storage.get("activations", 0)

    async def fail(self) -> None:
        self.ctx.storage.put("x", 1)
        raise ValueError("thrown away")


class Reader(Actor):
    async def activate(self) -> None:
        self.value = await self.ctx.storage.get("value", 7)

    async def get(self) -> int:
        return self.value


class Clumsy(Actor):
    def __init__(self) -> None:
        raise RuntimeError("not today")

    async def turn(self) -> None: ...


class Early(Actor):
    def __init__(self) -> None:
        self.ctx.storage.put("too", "early")

    async def turn(self) -> None: ...


class Caller(Actor):
    async def wake(self, name: str) -> str:
        try:
            await self.env.EARLY.id_from_name(name).turn()
        except Exception as error:
            return type(error).__name__
        return "no error"


@on_engine(Careful)
async def test_activate_runs_once_before_the_first_turn_and_commits_its_own_batch(m: Machine) -> None:
    writes = m.store.writes
    results = await asyncio.gather(*(m.send("CAREFUL", "a", "activations") for _ in range(5)))
    assert results == [1] * 5
    assert m.store.writes == writes + 1
    m.crash()
    assert await m.call("CAREFUL", "a", "activations") == 2


@on_engine(Reader)
async def test_an_activation_that_writes_nothing_writes_no_batch(m: Machine) -> None:
    writes = m.store.writes
    assert await m.call("READER", "a", "get") == 7
    assert m.store.writes == writes


@on_engine(Careful)
async def test_a_failing_activate_commits_nothing_and_fails_the_call_that_woke_the_instance(m: Machine) -> None:
    pauses.log.append("fail")
    writes = m.store.writes
    error = await m.error("CAREFUL", "a", "activations")
    assert (error.name, getattr(error, "cause", "")) == ("ActorMethodError", "OSError")
    assert m.store.writes == writes


@on_engine(Careful)
async def test_a_failing_activation_backs_off_from_one_second_to_sixty(m: Machine) -> None:
    pauses.log.append("fail")
    for wait_s in (1, 2, 4, 8, 16, 32, 60, 60):
        error = await m.error("CAREFUL", "a", "activations")
        assert getattr(error, "cause", "") == "OSError"
        error = await m.error("CAREFUL", "a", "activations")
        assert getattr(error, "cause", "") == "ActivationBackoff"
        assert (error.started, error.retry_after_s) == ("no", wait_s)
        m.clock.advance(wait_s + 0.01)
        m.engine.housekeeping._tick()
        m.engine.housekeeping._tick()
    pauses.log.clear()
    assert await m.call("CAREFUL", "a", "activations") == 1
    pauses.log.append("fail")
    await m.error("CAREFUL", "a", "fail")
    assert getattr(await m.error("CAREFUL", "a", "activations"), "cause", "") == "OSError"
    assert (await m.error("CAREFUL", "a", "activations")).retry_after_s == 1


@on_engine(Clumsy)
async def test_an_init_that_raises_fails_the_call_and_backs_off(m: Machine) -> None:
    error = await m.error("CLUMSY", "a", "turn")
    assert (error.name, getattr(error, "cause", "")) == ("ActorMethodError", "RuntimeError")
    assert getattr(await m.error("CLUMSY", "a", "turn"), "cause", "") == "ActivationBackoff"
    assert getattr(await m.error("CLUMSY", "b", "turn"), "cause", "") == "RuntimeError"


@on_engine(Early, Caller)
async def test_storage_is_usable_from_activate_on_and_not_in_init(m: Machine) -> None:
    assert isinstance(await m.error("EARLY", "a", "turn"), ActorFencedError)
    assert await m.call("CALLER", "c", "wake", "b") == "ActorFencedError"


@on_engine(Careful)
async def test_a_call_whose_deadline_passes_during_activation_is_answered_in_time_and_not_started(m: Machine) -> None:
    pauses.log.append("wait")
    late = m.send("CAREFUL", "a", "fail", timeout_s=0.05)
    patient = m.send("CAREFUL", "a", "activations")
    error = await failure(late)
    assert (error.name, error.started) == ("ActorMethodTimeoutError", "no")
    assert not patient.done()
    pauses.go("activate")
    assert await patient == 1


@on_engine(Careful)
async def test_calls_queued_behind_a_failing_activation_are_told_of_the_back_off(m: Machine) -> None:
    pauses.log += ["wait", "fail"]
    first, second = m.send("CAREFUL", "a", "activations"), m.send("CAREFUL", "a", "activations")
    await pauses.arrived("activate")
    pauses.go("activate")
    assert getattr(await failure(first), "cause", "") == "OSError"
    assert getattr(await failure(second), "cause", "") == "ActivationBackoff"
    assert m.engine.queued_calls == 0


@on_engine(Plain, idle_s=60.0)
async def test_an_idle_instance_is_dropped_and_comes_back_without_its_fields(m: Machine) -> None:
    assert await m.call("PLAIN", "a", "put", 5) == 1
    assert await m.call("PLAIN", "a", "turn") == 2
    m.clock.advance(61)
    for _ in range(2):
        m.engine.housekeeping._tick()
    assert m.engine.stats.instances == 0
    assert m.engine.stats.evictions == 1
    assert await m.call("PLAIN", "a", "turn") == 1


@on_engine(Plain, idle_s=60.0)
async def test_an_instance_that_runs_or_has_calls_waiting_is_not_dropped(m: Machine) -> None:
    held = m.send("PLAIN", "a", "wait", "x", timeout_s=300)
    await pauses.arrived("x")
    m.clock.skipped_s += 61
    for _ in range(2):
        m.engine.housekeeping._tick()
    assert m.engine.stats.instances == 1
    pauses.go("x")
    await held


@on_engine(Plain, quarantined=lambda instance: instance == b"PLAIN\0bad")
async def test_a_quarantined_instance_is_refused_and_others_live_on(m: Machine) -> None:
    error = await m.error("PLAIN", "bad", "turn")
    assert (error.name, error.started, error.status) == ("ActorQuarantinedError", "no", 503)
    assert await m.call("PLAIN", "good", "turn") == 1
