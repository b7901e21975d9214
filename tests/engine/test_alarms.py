"""Alarms: one per instance, in its turn's batch, retried with back-off, parked after ten counted attempts."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from tests.engine.clockwork import LONGEST_S, due_rows, look_often, now, pass_time, rest
from tests.harness.engine import Machine, on_engine, pauses

from kubeactor import Actor, ActorError, AlarmInfo, Binding, Env
from kubeactor.actor import ActorType
from kubeactor.engine.alarms import AlarmRow
from kubeactor.errors import ActorArgumentError
from kubeactor.ids import shard_of
from kubeactor.limits import ALARM_ATTEMPTS
from kubeactor.parked import ALARM, Retry

EVERY = timedelta(seconds=60)


class Sleeper(Actor):
    """Does in its alarm what `plan` says: fail, sleep, set the next one, call another instance."""

    env: House

    async def set(self, seconds: float, plan: str = "") -> None:
        self.ctx.storage.put("plan", plan)
        self.ctx.storage.set_alarm(timedelta(seconds=seconds))

    async def set_at(self, when: datetime) -> None:
        self.ctx.storage.set_alarm(when)

    async def set_and_look(self, seconds: float) -> list[Any]:
        before = await self.ctx.storage.get_alarm()
        self.ctx.storage.set_alarm(timedelta(seconds=seconds))
        after = await self.ctx.storage.get_alarm()
        self.ctx.storage.delete_alarm()
        return [before, after, await self.ctx.storage.get_alarm()]

    async def set_and_raise(self, seconds: float) -> None:
        self.ctx.storage.set_alarm(timedelta(seconds=seconds))
        raise RuntimeError("after all")

    async def set_in_transaction(self, seconds: float) -> datetime | None:
        try:
            async with self.ctx.storage.transaction():
                self.ctx.storage.set_alarm(timedelta(seconds=seconds))
                raise LookupError
        except LookupError:
            return await self.ctx.storage.get_alarm()

    async def due(self) -> datetime | None:
        return await self.ctx.storage.get_alarm()

    async def unset(self) -> None:
        self.ctx.storage.delete_alarm()

    async def wipe(self, keep_alarm: bool) -> None:
        self.ctx.storage.delete_all(keep_alarm=keep_alarm)

    async def plan(self, plan: str) -> None:
        self.ctx.storage.put("plan", plan)

    async def hold(self, name: str) -> None:
        await pauses.here(name)

    async def hold_and_set(self, name: str, seconds: float) -> None:
        await pauses.here(name)
        self.ctx.storage.set_alarm(timedelta(seconds=seconds))

    async def runs(self) -> int:
        return await self.ctx.storage.get("runs", 0)

    async def add(self) -> int:
        runs = await self.ctx.storage.get("runs", 0) + 1
        self.ctx.storage.put("runs", runs)
        return runs

    async def alarm(self, info: AlarmInfo, /) -> None:
        plan = await self.ctx.storage.get("plan", "")
        pauses.log.append((self.ctx.name, info.retry_count, info.is_retry))
        assert await self.ctx.storage.get_alarm() is None
        await self.add()
        if plan == "fail":
            raise RuntimeError("as planned")
        if plan == "again":
            self.ctx.storage.set_alarm(EVERY)
        if plan == "again and fail":
            self.ctx.storage.set_alarm(EVERY)
            raise RuntimeError("as planned")
        if plan == "sleep":
            await asyncio.sleep(3600)
        if plan == "call and fail":
            await self.env.SLEEPER.id_from_name("callee").add()
            raise RuntimeError("as planned")
        if plan == "hold":
            await pauses.here("alarm")


class Careless(Actor):
    """Has no alarm handler."""

    async def set(self) -> None:
        self.ctx.storage.set_alarm(EVERY)


class House(Env):
    SLEEPER: Binding[Sleeper]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    look_often(monkeypatch)


def row(m: Machine, name: str = "a", binding: str = "SLEEPER") -> AlarmRow | None:
    """The stored alarm."""
    identity = name.encode()
    return m.engine.alarms.stored(shard_of(identity, m.shards), b"%b\0%b" % (binding.encode(), identity))


async def fail_until_parked(m: Machine) -> None:
    for _ in range(ALARM_ATTEMPTS):
        await pass_time(m, LONGEST_S)


@on_engine(Sleeper, env_class=House)
async def test_a_turn_sees_its_own_alarm_and_only_its_last_word_is_stored(m: Machine) -> None:
    assert await m.call("SLEEPER", "a", "set_and_look", 60) == [
        None,
        (now(m) + EVERY).isoformat().replace("+00:00", "Z"),
        None,
    ]
    assert row(m) is None
    await m.call("SLEEPER", "a", "set", 60)
    await m.call("SLEEPER", "a", "set", 30)
    assert await m.call("SLEEPER", "a", "due") == (now(m) + EVERY / 2).isoformat().replace("+00:00", "Z")
    assert due_rows(m) == 1
    await m.call("SLEEPER", "a", "unset")
    assert (row(m), due_rows(m)) == (None, 0)
    await pass_time(m, 120)
    assert pauses.log == []


@on_engine(Sleeper, env_class=House)
async def test_an_alarm_runs_once_when_it_is_due(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set", 60)
    await pass_time(m, 59)
    assert pauses.log == []
    await pass_time(m, 1)
    assert pauses.log == [("a", 0, False)]
    await pass_time(m, 3600)
    assert pauses.log == [("a", 0, False)]
    assert (row(m), due_rows(m)) == (None, 0)


@on_engine(Sleeper, env_class=House)
async def test_a_time_that_has_passed_means_now(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set_at", "2001-01-01T00:00:00Z")
    await m.call("SLEEPER", "b", "set", -5)
    await rest(m)
    assert sorted(pauses.log) == [("a", 0, False), ("b", 0, False)]


@on_engine(Sleeper, env_class=House)
async def test_an_alarm_of_a_turn_that_raised_or_was_rolled_back_is_not_set(m: Machine) -> None:
    await m.error("SLEEPER", "a", "set_and_raise", 60)
    assert await m.call("SLEEPER", "b", "set_in_transaction", 60) is None
    await pass_time(m, 120)
    assert pauses.log == []


@on_engine(Sleeper, env_class=House)
async def test_an_alarm_set_in_the_handler_is_the_next_one(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set", 60, "again")
    for run in range(1, 4):
        await pass_time(m, 60)
        assert len(pauses.log) == run
    assert await m.call("SLEEPER", "a", "due") == (now(m) + EVERY).isoformat().replace("+00:00", "Z")
    assert await m.call("SLEEPER", "a", "runs") == 3


@on_engine(Sleeper, env_class=House)
async def test_the_alarm_is_cleared_by_the_batch_of_its_handler(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set", 60, "hold")
    m.clock.advance(60)
    m.engine.alarms.fire()
    await pauses.arrived("alarm")
    assert row(m) is not None
    m.crash()
    await m.until(lambda: len(pauses.log) == 2)
    pauses.go("alarm")
    await rest(m)
    assert pauses.log == [("a", 0, False)] * 2
    assert row(m) is None
    assert await m.call("SLEEPER", "a", "runs") == 1


@on_engine(Sleeper, env_class=House)
async def test_a_failing_alarm_is_retried_on_schedule_and_parked_after_the_tenth_attempt(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set", 60, "fail")
    await pass_time(m, 60)
    for failures in range(1, ALARM_ATTEMPTS):
        found = row(m)
        assert found is not None
        wait_s = (found.next_us - m.clock.wall_us) / 1e6
        expected = min(2.0 ** (failures - 1), 300.0)
        assert 0.75 * expected <= wait_s <= 1.25 * expected
        assert found.retries == failures
        assert datetime.fromisoformat(await m.call("SLEEPER", "a", "due")) == now(m) + timedelta(seconds=wait_s)
        await pass_time(m, wait_s * 0.9)
        assert len(pauses.log) == failures
        await pass_time(m, wait_s * 0.1 + 1e-6)
    assert pauses.log == [("a", n, n > 0) for n in range(ALARM_ATTEMPTS)]
    assert await m.call("SLEEPER", "a", "due") is None
    assert await m.call("SLEEPER", "a", "runs") == 0
    assert (due_rows(m), m.engine.stats.alarms_parked, m.engine.stats.alarm_failures) == (0, 1, ALARM_ATTEMPTS)
    [item] = m.engine.parked.items()
    assert (item.kind, item.instance, item.number, item.attempts) == (ALARM, "SLEEPER/a", 0, ALARM_ATTEMPTS)
    assert item.since == m.clock.wall_us / 1e6
    assert "as planned" in item.error
    await pass_time(m, 100_000)
    assert len(pauses.log) == ALARM_ATTEMPTS


@on_engine(Sleeper, env_class=House)
async def test_a_parked_alarm_is_tried_again_by_hand_also_after_a_restart(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set", 0, "fail")
    await fail_until_parked(m)
    await m.restart()
    assert m.engine.stats.alarms_parked == 1
    await m.call("SLEEPER", "a", "plan", "")
    assert m.engine.parked.retry(Retry(ALARM, "SLEEPER/a"))
    assert not m.engine.parked.retry(Retry(ALARM, "SLEEPER/a"))
    await rest(m)
    assert pauses.log[-1] == ("a", 0, False)
    assert (await m.call("SLEEPER", "a", "runs"), m.engine.stats.alarms_parked) == (1, 0)
    assert m.engine.parked.items() == []


@on_engine(Sleeper, env_class=House)
async def test_a_parked_alarm_is_revived_by_a_new_one(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set", 0, "fail")
    await fail_until_parked(m)
    await m.call("SLEEPER", "a", "set", 60)
    assert (m.engine.parked.items(), m.engine.stats.alarms_parked) == ([], 0)
    await pass_time(m, 60)
    assert pauses.log[-1] == ("a", 0, False)


@on_engine(Sleeper, env_class=House)
async def test_delete_all_clears_a_parked_alarm_unless_it_is_to_be_kept(m: Machine) -> None:
    for name in ("a", "b", "c"):
        await m.call("SLEEPER", name, "set", 0, "fail")
    await fail_until_parked(m)
    assert m.engine.stats.alarms_parked == 3
    await m.call("SLEEPER", "a", "wipe", False)
    await m.call("SLEEPER", "b", "wipe", True)
    await m.call("SLEEPER", "c", "unset")
    assert [item.instance for item in m.engine.parked.items()] == ["SLEEPER/b"]
    assert m.engine.stats.alarms_parked == 1
    assert (row(m, "a"), row(m, "c")) == (None, None)


@on_engine(Sleeper, env_class=House)
async def test_delete_all_keeps_a_pending_alarm_only_when_told_to(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set", 60)
    await m.call("SLEEPER", "b", "set", 60)
    await m.call("SLEEPER", "a", "wipe", False)
    await m.call("SLEEPER", "b", "wipe", True)
    await pass_time(m, 60)
    assert pauses.log == [("b", 0, False)]


@pytest.mark.parametrize("method", ["set", "unset"])
def test_another_turn_replaces_a_retrying_alarm_and_resets_its_count(m_of: Any, method: str) -> None:
    async def story(m: Machine) -> None:
        await m.call("SLEEPER", "a", "set", 0, "fail")
        for _ in range(3):
            await pass_time(m, LONGEST_S)
        assert row(m).retries >= 3  # type: ignore[union-attr]
        await m.call("SLEEPER", "a", method, *([60, "fail"] if method == "set" else []))
        pauses.log.clear()
        await pass_time(m, 60)
        assert pauses.log == ([("a", 0, False)] if method == "set" else [])

    m_of(story)


@pytest.fixture
def m_of(tmp_path: Any) -> Any:
    """Runs a story on a machine."""

    def run(story: Any) -> None:
        pauses.reset()
        machine = Machine(tmp_path, Sleeper, env_class=House)
        machine.run(story(machine))

    return run


@on_engine(Sleeper, env_class=House)
async def test_an_alarm_that_was_replaced_while_it_waited_for_its_turn_does_not_run(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set", 60)
    held = m.send("SLEEPER", "a", "hold_and_set", "x", 600)
    await pauses.arrived("x")
    m.clock.advance(60)
    m.engine.alarms.fire()
    assert m.engine.queued_calls == 1
    pauses.go("x")
    await held
    await rest(m)
    assert pauses.log == []
    await pass_time(m, 600)
    assert pauses.log == [("a", 0, False)]


@on_engine(Sleeper, env_class=House)
async def test_what_a_failed_run_did_to_its_alarm_is_not_kept(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set", 0, "again and fail")
    await rest(m)
    found = row(m)
    assert found is not None
    assert found.retries == 1
    assert found.next_us - m.clock.wall_us < 2_000_000


@on_engine(Sleeper, env_class=House, alarm_timeout_s=0.02)
async def test_a_timeout_counts(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set", 0, "sleep")
    await m.until(lambda: m.engine.stats.alarm_failures == 1)
    found = row(m)
    assert found is not None
    assert (found.retries, found.error[:23]) == (1, "ActorMethodTimeoutError")


@on_engine(Sleeper, env_class=House)
async def test_an_alarm_that_the_shutdown_cancelled_or_kept_from_starting_does_not_count(m: Machine) -> None:
    await m.call("SLEEPER", "running", "set", 60, "sleep")
    await m.call("SLEEPER", "queued", "set", 60)
    held = m.send("SLEEPER", "queued", "hold", "x")
    await pauses.arrived("x")
    m.clock.advance(60)
    m.engine.alarms.fire()
    await m.until(lambda: m.engine.queued_calls == 1 and len(pauses.log) == 1)
    await m.restart()
    assert isinstance(held.exception(), ActorError)
    for name in ("running", "queued"):
        found = row(m, name)
        assert found is None or found.retries == 0
    await m.until(lambda: len(pauses.log) == 3)
    assert sorted(pauses.log) == [("queued", 0, False), ("running", 0, False), ("running", 0, False)]


@on_engine(Sleeper, env_class=House, quarantined=lambda key: key.endswith(b"bad"))
async def test_an_alarm_of_a_quarantined_instance_waits_and_does_not_count(m: Machine) -> None:
    instance = m.engine.instance_of_key(b"SLEEPER\0bad", shard_of(b"bad", m.shards))
    assert instance is not None
    m.engine.quarantined, refuse = None, m.engine.quarantined
    await m.call("SLEEPER", "bad", "set", 60)
    m.engine.housekeeping.evict(instance)
    m.engine.quarantined = refuse
    turns = m.engine.stats.turns
    await pass_time(m, 60)
    found = row(m, "bad")
    assert found is not None
    assert (found.retries, m.engine.stats.turns, m.engine.stats.alarm_failures) == (0, turns, 0)
    assert not m.engine.alarms._running


@on_engine(Sleeper, env_class=House)
async def test_calls_of_an_alarm_that_is_retried_are_applied_once(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set", 0, "call and fail")
    for _ in range(3):
        await pass_time(m, LONGEST_S)
    assert len(pauses.log) >= 3
    assert await m.call("SLEEPER", "callee", "runs") == 1


@on_engine(Sleeper, env_class=House)
async def test_calls_of_the_next_alarm_are_applied_again_even_if_time_stands_still(m: Machine) -> None:
    for _ in range(2):
        await m.call("SLEEPER", "a", "set", 0, "call and fail")
        await rest(m)
        await m.call("SLEEPER", "a", "unset")
    assert await m.call("SLEEPER", "callee", "runs") == 2


@on_engine(Sleeper, env_class=House, idle_s=0.01)
async def test_an_idle_instance_is_activated_for_its_alarm(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set", 60)
    await m.until(lambda: m.engine.stats.instances == 0)
    await pass_time(m, 60)
    assert pauses.log == [("a", 0, False)]


@on_engine(Sleeper, Careless, env_class=House)
async def test_set_alarm_on_a_class_without_a_handler_is_an_error(m: Machine) -> None:
    assert isinstance(await m.error("CARELESS", "a", "set"), ActorArgumentError)


@on_engine(Sleeper, env_class=House)
async def test_an_alarm_whose_handler_is_gone_is_parked_and_not_dropped(m: Machine) -> None:
    await m.call("SLEEPER", "a", "set", 0, "fail")
    await rest(m)
    served = m.engine.served["SLEEPER"]
    bare = ActorType("SLEEPER", Careless)
    served.type = bare
    for instance in served.instances.values():
        instance.type, instance.actor = bare, None
    await fail_until_parked(m)
    [item] = m.engine.parked.items()
    assert (item.instance, item.attempts, "no `alarm`" in item.error) == ("SLEEPER/a", ALARM_ATTEMPTS, True)


@on_engine(Sleeper, env_class=House)
async def test_overdue_alarms_run_at_once_after_a_restart(m: Machine) -> None:
    for n in range(20):
        await m.call("SLEEPER", f"a{n}", "set", 60 + n)
    await m.stop()
    m.clock.advance(3600)
    m.start()
    began = time.monotonic()
    await m.until(lambda: len(pauses.log) == 20)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_a_step_of_the_wall_clock_loses_and_doubles_nothing(m_of: Any, step_s: float) -> None:
    async def story(m: Machine) -> None:
        names = [f"a{n}" for n in range(50)]
        for n, name in enumerate(names):
            await m.call("SLEEPER", name, "set", 60 + n, "fail" if n % 10 == 0 else "")
        await pass_time(m, 80)
        m.clock.step(step_s)
        await rest(m)
        for n in range(0, 50, 10):
            await m.call("SLEEPER", f"a{n}", "plan", "")
        m.crash()
        await pass_time(m, 2 * 3600 + LONGEST_S)
        assert [await m.call("SLEEPER", name, "runs") for name in names] == [1] * 50
        assert (due_rows(m), m.engine.stats.alarms_parked) == (0, 0)

    m_of(story)


class Saver(Actor):
    """Credits interest every minute; fails as the test says."""

    async def open(self) -> None:
        self.ctx.storage.put("credits", [])
        self.ctx.storage.set_alarm(EVERY)

    async def credits(self) -> list[datetime]:
        return await self.ctx.storage.get("credits")

    async def touch(self) -> None:
        self.ctx.storage.put("touched", True)

    async def alarm(self, info: AlarmInfo, /) -> None:
        credited = await self.ctx.storage.get("credits")
        self.ctx.storage.put("credits", [*credited, info.scheduled_time])
        self.ctx.storage.set_alarm(info.scheduled_time + EVERY)
        if random.random() < 0.2:
            await asyncio.sleep(0)
        if random.random() < 0.2:
            raise RuntimeError("bad luck")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_over_random_crashes_each_interest_is_credited_once_and_no_alarm_is_missing(tmp_path: Any, seed: int) -> None:
    names = [f"a{n}" for n in range(12)]
    rounds = 12

    async def story(m: Machine) -> None:
        began = now(m)
        for name in names:
            await m.call("SAVER", name, "open")
        for _ in range(rounds):
            m.clock.advance(random.choice([20.0, 60.0, 75.0]))
            m.engine.alarms.fire()
            for name in random.sample(names, 3):
                m.send("SAVER", name, "touch")
            for _ in range(random.randrange(4)):
                await asyncio.sleep(0)
            if random.random() < 0.7:
                m.crash()
        for _ in range(30):
            await pass_time(m, 1)
        for name in names:
            credited = [datetime.fromisoformat(text) for text in await m.call("SAVER", name, "credits")]
            # A time that has passed means now, so what is late moves on the rest; none is credited twice.
            assert credited[0] == began + EVERY
            assert all(later - earlier >= EVERY for earlier, later in pairwise(credited))
            pending = row(m, name, "SAVER")
            assert pending is not None, "due, being retried or parked"
            assert pending.scheduled_us >= round((credited[-1] + EVERY).timestamp() * 1e6)
            assert pending.next_us > m.clock.wall_us, "what was due has run"
            assert now(m) - credited[-1] < EVERY + timedelta(seconds=LONGEST_S)

    random.seed(seed)
    pauses.reset()
    machine = Machine(tmp_path, Saver)
    machine.run(story(machine))
