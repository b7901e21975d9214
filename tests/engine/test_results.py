"""Applied once: under a client's key, an ingress's slot, or a derived id."""

from __future__ import annotations

import asyncio

import pytest
from tests.harness.engine import Machine, failure, on_engine, pauses, session_id

from kubeactor import Actor
from kubeactor.call import CODEC, DERIVED, Call, CallId
from kubeactor.engine import layout
from kubeactor.engine.store import new_batch
from kubeactor.errors import ActorOverloadedError
from kubeactor.limits import INSTANCE_QUEUE_TURNS

HOUR_S = 3600


class Account(Actor):
    async def add(self, amount: int) -> int:
        total: int = await self.ctx.storage.get("total", 0) + amount
        self.ctx.storage.put("total", total)
        return total

    async def total(self) -> int:
        pauses.log.append("total")
        return await self.ctx.storage.get("total", 0)

    async def fail_once(self) -> int:
        pauses.log.append("try")
        if len(pauses.log) == 1:
            raise ValueError("the first time")
        return await self.add(1)

    async def add_slowly(self, amount: int) -> int:
        await pauses.here("slow")
        return await self.add(amount)


# --- under a client's key


@on_engine(Account)
async def test_a_key_is_applied_once_and_its_answer_replayed(m: Machine) -> None:
    assert await m.call("ACCOUNT", "a", "add", 5, key="k") == 5
    assert await m.call("ACCOUNT", "a", "add", 7) == 12
    assert await m.call("ACCOUNT", "a", "add", 5, key="k") == 5
    assert await m.call("ACCOUNT", "a", "total") == 12
    assert m.engine.stats.replays == 1
    m.crash()
    assert await m.call("ACCOUNT", "a", "add", 5, key="k") == 5
    assert await m.call("ACCOUNT", "a", "total") == 12


@on_engine(Account)
async def test_a_key_belongs_to_one_instance(m: Machine) -> None:
    assert await m.call("ACCOUNT", "a", "add", 5, key="k") == 5
    assert await m.call("ACCOUNT", "b", "add", 6, key="k") == 6


@on_engine(Account)
async def test_a_read_under_a_key_is_recorded_too(m: Machine) -> None:
    assert await m.call("ACCOUNT", "a", "total", key="read") == 0
    await m.call("ACCOUNT", "a", "add", 5)
    m.crash()
    assert await m.call("ACCOUNT", "a", "total", key="read") == 0
    assert pauses.log == ["total"]


@on_engine(Account)
async def test_a_turn_that_raised_is_not_recorded_and_its_retry_runs(m: Machine) -> None:
    await m.error("ACCOUNT", "a", "fail_once", key="k")
    assert await m.call("ACCOUNT", "a", "fail_once", key="k") == 1
    assert await m.call("ACCOUNT", "a", "fail_once", key="k") == 1
    assert pauses.log == ["try", "try"]


@on_engine(Account)
async def test_the_same_key_with_another_method_or_body_is_a_conflict(m: Machine) -> None:
    running = m.send("ACCOUNT", "a", "add_slowly", 5, key="k")
    await pauses.arrived("slow")
    for args in (("add_slowly", 6), ("add", 5)):
        error = await m.error("ACCOUNT", "a", *args, key="k")
        assert (error.name, error.status, error.started) == ("IdempotencyConflictError", 409, "no")
    pauses.go("slow")
    assert await running == 5
    for args in (("add_slowly", 6), ("add", 5)):
        assert (await m.error("ACCOUNT", "a", *args, key="k")).name == "IdempotencyConflictError"
    assert (await m.error("ACCOUNT", "a", "add_slowly", 5, key="k", format=CODEC)).status == 409
    assert await m.call("ACCOUNT", "a", "total") == 5


@on_engine(Account)
async def test_a_retry_joins_a_call_that_is_queued_or_running(m: Machine) -> None:
    running = m.send("ACCOUNT", "a", "add_slowly", 5, key="k")
    joined = [m.send("ACCOUNT", "a", "add_slowly", 5, key="k") for _ in range(3)]
    queued = m.send("ACCOUNT", "a", "add", 1, key="q")
    joined_queued = m.send("ACCOUNT", "a", "add", 1, key="q")
    pauses.go("slow")
    assert await asyncio.gather(running, *joined) == [5, 5, 5, 5]
    assert list(await asyncio.gather(queued, joined_queued)) == [6, 6]
    assert await m.call("ACCOUNT", "a", "total") == 6


@on_engine(Account)
async def test_repeats_that_join_a_call_are_bounded_and_all_answered(m: Machine) -> None:
    running = m.send("ACCOUNT", "a", "add_slowly", 5, key="k")
    repeats = [m.send("ACCOUNT", "a", "add_slowly", 5, key="k") for _ in range(2000)]
    pauses.go("slow")
    outcomes = await asyncio.gather(running, *repeats, return_exceptions=True)
    assert outcomes[: 1 + INSTANCE_QUEUE_TURNS] == [5] * (1 + INSTANCE_QUEUE_TURNS)
    refused = outcomes[1 + INSTANCE_QUEUE_TURNS :]
    assert {type(outcome) for outcome in refused} == {ActorOverloadedError}
    assert await m.call("ACCOUNT", "a", "add", 1) == 6


@on_engine(Account)
async def test_a_joined_retry_gets_the_error_of_the_first_too(m: Machine) -> None:
    running = m.send("ACCOUNT", "a", "add_slowly", 5, key="k", timeout_s=0.05)
    joined = m.send("ACCOUNT", "a", "add_slowly", 5, key="k", timeout_s=0.05)
    for future in (running, joined):
        assert (await failure(future)).name == "ActorMethodTimeoutError"
    assert not m.engine.find_instance("ACCOUNT", b"a").inflight  # type: ignore[union-attr]


@on_engine(Account)
async def test_a_key_is_remembered_for_24_hours_whatever_the_hour_it_was_used_at(m: Machine) -> None:
    for hour in range(25):
        key = f"k{hour}"
        before = await m.call("ACCOUNT", "a", "add", 1, key=key)
        m.clock.advance(24 * HOUR_S - 1)
        for _ in range(2):
            await collect(m)
        assert await m.call("ACCOUNT", "a", "add", 1, key=key) == before
        m.clock.advance(HOUR_S + 1)


@on_engine(Account)
async def test_a_step_of_the_wall_clock_around_midnight_forgets_no_key(m: Machine) -> None:
    m.clock.advance(11.5 * HOUR_S)  # half past eleven in the evening
    for step in (HOUR_S, -HOUR_S, -HOUR_S, HOUR_S):
        key = f"k{m.clock.wall_us}{step}"
        first = await m.call("ACCOUNT", "a", "add", 1, key=key)
        m.clock.step(step)
        await collect(m)
        assert await m.call("ACCOUNT", "a", "add", 1, key=key) == first


@on_engine(Account)
async def test_old_keys_are_deleted_a_day_at_a_time(m: Machine) -> None:
    await m.call("ACCOUNT", "a", "add", 1, key="old")
    m.clock.advance(50 * HOUR_S)
    await m.call("ACCOUNT", "a", "add", 1, key="new")
    assert rows(m, layout.KEYED) == 2
    await collect(m)
    assert rows(m, layout.KEYED) == 2
    await collect(m)
    assert rows(m, layout.KEYED) == 1
    assert await m.call("ACCOUNT", "a", "add", 1, key="old") == 3


@on_engine(Account)
async def test_what_one_pass_alone_found_old_is_kept(m: Machine) -> None:
    await m.call("ACCOUNT", "a", "add", 1, key="k")
    m.clock.step(50 * HOUR_S)
    await collect(m)
    m.clock.step(-50 * HOUR_S)
    for _ in range(3):
        await collect(m)
    assert await m.call("ACCOUNT", "a", "add", 1, key="k") == 1


@on_engine(Account)
async def test_beyond_its_quota_an_instance_takes_no_new_key(m: Machine) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kubeactor.engine.results.RESULTS_PER_INSTANCE", 3)
        for i in range(3):
            await m.call("ACCOUNT", "a", "add", 1, key=f"k{i}")
        for _ in range(2):
            error = await m.error("ACCOUNT", "a", "add", 1, key="one too many")
            assert (error.name, error.status, error.started) == ("ActorQuotaError", 429, "no")
            assert await m.call("ACCOUNT", "a", "add", 1, key="k1") == 2
            assert await m.call("ACCOUNT", "b", "add", 1, key="k1") == 1
            m.crash()  # the count is read back
        assert await m.call("ACCOUNT", "a", "add", 1) == 4
        m.clock.advance(72 * HOUR_S)
        assert await m.call("ACCOUNT", "a", "add", 1, key="days later") == 5


# --- under an ingress's slot


@on_engine(Account)
async def test_a_slot_replays_for_a_repeat_and_is_overwritten_by_its_next_use(m: Machine) -> None:
    assert await m.call("ACCOUNT", "a", "add", 1, id=session_id(0, 1)) == 1
    m.crash()
    assert await m.call("ACCOUNT", "a", "add", 1, id=session_id(0, 1), repeat=True) == 1
    assert await m.call("ACCOUNT", "a", "add", 1, id=session_id(0, 2)) == 2
    assert rows(m, layout.SESSION) == 1
    assert await m.call("ACCOUNT", "a", "add", 1, id=session_id(0, 2), repeat=True) == 2
    stale = await m.error("ACCOUNT", "a", "add", 1, id=session_id(0, 1), repeat=True)
    assert (stale.name, stale.started) == ("ActorFencedError", "no")
    assert await m.call("ACCOUNT", "a", "total") == 2


@on_engine(Account)
async def test_a_repeat_of_a_call_that_never_arrived_runs(m: Machine) -> None:
    assert await m.call("ACCOUNT", "a", "add", 1, id=session_id(0, 1)) == 1
    assert await m.call("ACCOUNT", "a", "add", 1, id=session_id(0, 2), repeat=True) == 2
    assert await m.call("ACCOUNT", "a", "add", 1, id=session_id(1, 1), repeat=True) == 3


@on_engine(Account)
async def test_a_turn_that_wrote_nothing_takes_no_row_in_its_slot(m: Machine) -> None:
    await m.call("ACCOUNT", "a", "total", id=session_id(0, 1))
    assert rows(m, layout.SESSION) == 0


@on_engine(Account)
async def test_the_rows_of_a_session_are_deleted_when_it_was_gone_for_two_passes(m: Machine) -> None:
    await m.call("ACCOUNT", "a", "add", 1, id=session_id(0, 1, b"deadsess"))
    await m.call("ACCOUNT", "a", "add", 1, id=session_id(0, 1, b"livesess"))
    for _ in range(3):
        m.clock.advance(601)
        await m.call("ACCOUNT", "a", "total", id=session_id(9, 1, b"livesess"))
        await collect(m)
    assert rows(m, layout.SESSION) == 1
    assert await m.call("ACCOUNT", "a", "add", 1, id=session_id(0, 1, b"livesess"), repeat=True) == 2


# --- under a derived id


def derived(m: Machine, n: int, bucket: int, *, repeat: bool = False, amount: int = 1) -> asyncio.Future[int]:
    id = CallId(DERIVED, n.to_bytes(16, "big"))  # noqa: A001
    return m.send("ACCOUNT", "a", "add", amount, id=id, bucket=bucket, repeat=repeat)


@on_engine(Account)
async def test_a_derived_id_is_applied_once_in_its_bucket_and_under_a_root_of_a_day(m: Machine) -> None:
    bucket = m.clock.now_us() // 600_000_000
    for kept_in in (bucket, 0):
        first = await derived(m, kept_in, kept_in)
        m.crash()
        assert await derived(m, kept_in, kept_in, repeat=True) == first
        conflict = await failure(derived(m, kept_in, kept_in, repeat=True, amount=2))
        assert conflict.name == "IdempotencyConflictError"
    assert (rows(m, layout.DERIVED_BUCKET), rows(m, layout.DERIVED_DAY)) == (1, 1)


@on_engine(Account)
async def test_derived_results_go_a_bucket_at_a_time_and_those_of_a_day_later(m: Machine) -> None:
    bucket = m.clock.now_us() // 600_000_000
    await derived(m, 1, bucket)
    await derived(m, 2, 0)
    m.clock.advance(1200)
    for _ in range(2):
        await collect(m)
    assert (rows(m, layout.DERIVED_BUCKET), rows(m, layout.DERIVED_DAY)) == (1, 1)
    m.clock.advance(1800)
    for _ in range(2):
        await collect(m)
    assert (rows(m, layout.DERIVED_BUCKET), rows(m, layout.DERIVED_DAY)) == (0, 1)
    m.clock.advance(24 * HOUR_S - 3600)
    assert await derived(m, 2, 0, repeat=True) == 2
    m.clock.advance(26 * HOUR_S)
    for _ in range(2):
        await collect(m)
    assert rows(m, layout.DERIVED_DAY) == 0


@on_engine(Account)
async def test_recorded_results_survive_delete_all_and_are_no_user_keys(m: Machine) -> None:
    await m.call("ACCOUNT", "a", "add", 5, key="k")
    instance = m.engine.find_instance("ACCOUNT", b"a")
    assert instance is not None
    found = list(m.store.rows(instance.data, layout.range_end(instance.data)))
    assert len(found) == 1


def test_a_call_has_one_origin_whatever_slot_its_attempts_get() -> None:
    def call(id: CallId | None, root: bytes) -> Call:
        return Call("A", b"a", "m", b"", shard=0, deadline=0, reply=lambda outcome: None, id=id, root=root)

    assert call(session_id(0, 1), b"root").origin() == call(session_id(5, 9), b"root").origin()
    assert call(CallId(DERIVED, b"x"), b"root").origin() != call(CallId(DERIVED, b"y"), b"root").origin()
    assert call(None, b"root").origin() == b""


def rows(m: Machine, kind: bytes) -> int:
    return sum(
        1
        for shard in range(m.shards)
        for _ in m.store.rows(layout.shard_prefix(shard, kind), layout.range_end(layout.shard_prefix(shard, kind)))
    )


async def collect(m: Machine) -> None:
    """One pass of the deletion of old results, as the housekeeping makes it."""
    batch = new_batch()
    if m.engine.results.collect(batch, list(m.engine.epochs)):
        m.engine.system_write(batch, lambda: None, None)
