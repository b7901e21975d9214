from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.harness.wiring import (
    NAMESPACE,
    SHARDS,
    Asked,
    RunningHost,
    ScriptedEngine,
    addresses,
    ask,
    down,
    namespace,
    once,
    run,
    table,
)

from kubeactor import router as routers
from kubeactor.call import CLIENT, DERIVED, LOCAL, SESSION, Call, CallId
from kubeactor.errors import (
    ActorError,
    ActorFencedError,
    ActorMethodTimeoutError,
    ActorOutputGateError,
    ActorOverloadedError,
    ActorShardUnavailableError,
    BodyTooLargeError,
    Problem,
)
from kubeactor.limits import BODY_BYTES
from kubeactor.parking import Parking
from kubeactor.placement import PlacementError, Table
from kubeactor.router import Router
from kubeactor.sessions import Sessions
from kubeactor.wire import Failure, Inventory

NOBODY = table([None] * SHARDS)


def test_a_call_reaches_the_owner_of_its_shard_with_all_that_it_carries() -> None:
    async def main() -> None:
        placement = table(["host-0", "host-1"] * 4, epoch=7)
        async with namespace(2, placement) as (router, hosts):
            asked = Asked(b'{"amount":30}', shard=3, id=CallId(CLIENT, b"key"))
            call = asked.call
            call.bucket, call.chain, call.root, call.internal, call.format = 9, (b"ACCOUNT\0bob",), b"root", True, 1
            router.submit(call)
            assert await asked.outcome() == b'{"amount":30}'
            [got] = hosts[1].engine.calls
            for name in ("binding", "identity", "method", "body", "shard", "id", "bucket", "chain", "root", "internal"):
                assert getattr(got, name) == getattr(call, name)
            assert (got.epoch, got.format, got.repeat) == (7, 1, False)
            assert 0 < call.deadline - got.deadline < 1 or got.deadline <= call.deadline + 0.1
            assert hosts[0].engine.calls == []
            assert (router.shards, router.epoch_of(3), router.trouble()) == (SHARDS, 7, {})

    run(main())


def test_an_error_arrives_as_it_was_raised() -> None:
    class Refused(Problem):
        status = 409
        balance: int

    async def main() -> None:
        async with namespace() as (router, hosts):
            hosts[0].engine.rule = lambda call: Refused("too poor", balance=5)
            error = await ask(router).error()
            assert isinstance(error, Refused)
            assert (error.detail, error.balance) == ("too poor", 5)

    run(main())


def test_ids_are_made_for_calls_that_have_none_or_a_local_one_only() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            given = [CallId(CLIENT, b"k"), CallId(DERIVED, b"d" * 16)]
            for one in (None, CallId(LOCAL, b"l"), *given):
                await ask(router, id=one).outcome()
            ids = [call.id for call in hosts[0].engine.calls]
            assert ids[2:] == given
            first, second = ids[:2]
            assert first is not None
            assert second is not None
            assert (first.kind, second.kind, len(first.key)) == (SESSION, SESSION, 8)
            assert (first.key, first.slot, first.count) == (second.key, 0, 1)
            assert (second.slot, second.count) == (0, 2), "the slot is free again after its reply"

    run(main())


def test_a_slot_is_not_used_again_before_the_final_answer_even_if_the_caller_has_given_up() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            engine = hosts[0].engine
            engine.rule = lambda call: None
            late = ask(router, timeout_s=0.05)
            error = await late.error()
            assert (type(error), error.started) == (ActorMethodTimeoutError, "unknown")
            second = ask(router)
            await engine.has(2)
            assert [call.id.slot for call in engine.calls if call.id] == [0, 1]
            engine.held[0].reply(b"too late")
            engine.held[1].reply(b"in time")
            assert await second.outcome() == b"in time"
            assert late.times == 1
            ask(router)
            assert [(c.id.slot, c.id.count) for c in await engine.has(3) if c.id][2] == (0, 2)

    run(main())


def test_a_slot_whose_answer_was_lost_after_the_deadline_rests() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            engine = hosts[0].engine
            engine.rule = lambda call: None
            assert (await ask(router, timeout_s=0.05).error()).started == "unknown"
            assert router.open_calls == 1, "it still waits for the final answer"
            await hosts[0].kill()
            engine.rule = lambda call: b"ok"
            await hosts[0].start()
            await ask(router).outcome()
            assert [call.id.slot for call in engine.calls if call.id] == [0, 1]
            assert router.open_calls == 0

    run(main())


def test_a_call_waits_for_a_killed_host_and_is_sent_again_as_a_repeat_under_its_id() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            engine = hosts[0].engine
            engine.rule = lambda call: None
            asked = [ask(router, b"%d" % n) for n in range(20)]
            before = [(call.id, call.body, call.repeat) for call in await engine.has(20)]
            await down(router, hosts[0])
            engine.calls.clear()
            engine.rule = lambda call: b"again:" + call.body
            later = ask(router, b"later")
            await hosts[0].start()
            assert [await one.outcome() for one in asked] == [b"again:%d" % n for n in range(20)]
            assert await later.outcome() == b"again:later"
            after = [(call.id, call.body, call.repeat) for call in engine.calls]
            assert [sent[:2] for sent in after[:20]] == [sent[:2] for sent in before], "in order"
            assert [repeat for *_, repeat in before] == [False] * 20
            assert [repeat for *_, repeat in after] == [True] * 20 + [False], "the later one was never sent before"
            assert router.stats.retries == 20
            assert [one.times for one in asked] == [1] * 20
            assert (router.parked_calls, router.parked_bytes, router.open_calls) == (0, 0, 0)

    run(main())


def test_a_host_that_restarts_again_and_again_loses_no_call() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            host = hosts[0]
            asked = [ask(router, b"%d" % n, shard=n % SHARDS) for n in range(200)]
            for _ in range(5):
                await host.engine.has(1)
                await host.kill()
                host.engine.calls.clear()
                asked += [ask(router, b"%d" % n, shard=n % SHARDS) for n in range(50)]
                await host.start()
            for one in asked:
                assert await one.outcome() == one.call.body
            assert {one.times for one in asked} == {1}

    run(main())


def test_a_call_of_a_shard_without_owner_waits_for_the_table() -> None:
    async def main() -> None:
        async with namespace(placement=NOBODY) as (router, hosts):
            asked = [ask(router, b"%d" % n) for n in range(3)]
            assert (router.parked_calls, router.parked_bytes, router.stats.parked) == (3, 3, 3)
            router.update(table(), addresses(hosts))
            assert [await one.outcome() for one in asked] == [b"0", b"1", b"2"]
            assert [call.body for call in hosts[0].engine.calls] == [b"0", b"1", b"2"]
            assert [call.repeat for call in hosts[0].engine.calls] == [False] * 3
            router.update(table(), {})
            waiting = ask(router)
            router.update(table(), addresses(hosts))
            await waiting.outcome()

    run(main())


def test_a_fenced_call_is_sent_again_until_another_table_comes() -> None:
    async def main() -> None:
        async with namespace(2) as (router, hosts):
            old, new = hosts[0].engine, hosts[1].engine
            old.rule = lambda call: ActorFencedError("not mine")
            asked = [ask(router, b"%d" % n) for n in range(3)]
            assert all(call.repeat for call in (await old.has(6))[3:]), "tried again before"
            moved = table(["host-1"] + ["host-0"] * 7).assigned([(0, "host-1", 5)])
            router.update(moved, addresses(hosts))
            assert [await one.outcome() for one in asked] == [b"0", b"1", b"2"]
            assert [(call.body, call.epoch) for call in new.calls] == [(b"0", 5), (b"1", 5), (b"2", 5)]

    run(main())


def test_a_fence_inside_of_a_turn_is_the_callers_to_know_and_holds_no_other_call() -> None:
    """Code that acts after its turn gets the same error class; to run it again and again would stop its whole shard."""

    async def main() -> None:
        async with namespace() as (router, hosts):
            engine, before = hosts[0].engine, router.stats.parked
            engine.rule = once(ActorFencedError("the turn has ended", started="yes"), lambda call: b"ok")
            error = await ask(router).error()
            assert (type(error), error.started) == (ActorFencedError, "yes")
            assert await ask(router).outcome() == b"ok"
            assert (router.stats.retries, router.stats.parked) == (0, before)

    run(main())


def test_a_slot_rests_when_its_last_attempt_was_refused_but_an_earlier_one_may_still_run() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            engine = hosts[0].engine
            engine.rule = lambda call: None
            asked = ask(router, timeout_s=0.3)
            await engine.has(1)
            await down(router, hosts[0])
            await hosts[0].start()
            await engine.has(2)
            await asked.error()
            engine.rule = lambda call: b"ok"
            engine.held[1].reply(ActorFencedError("not any more"))
            await ask(router, id=CallId(CLIENT, b"its answer comes after that")).outcome()
            await ask(router).outcome()
            assert [call.id.slot for call in engine.calls if call.id and call.id.kind == SESSION] == [0, 0, 1]

    run(main())


def test_refusals_are_answered_with_longer_and_longer_waits() -> None:
    assert [routers._delay(tries) for tries in (0, 1, 5, 6, 1000)] == [0.005, 0.01, 0.16, 0.25, 0.25]

    async def main() -> None:
        async with namespace() as (router, hosts):
            hosts[0].engine.rule = lambda call: ActorFencedError("not mine")
            error = await ask(router, timeout_s=0.5).error()
            assert (type(error), error.started, error.status) == (ActorShardUnavailableError, "no", 503)
            assert error.detail == "refused until the deadline: not mine"
            assert 3 <= len(hosts[0].engine.calls) <= 9

    run(main())


def test_a_success_ends_the_waits_of_a_shard() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            engine = hosts[0].engine
            engine.rule = once(ActorFencedError("still starting"), lambda call: call.body)
            assert await ask(router, b"x").outcome() == b"x"
            assert [call.repeat for call in engine.calls] == [False, True]
            assert router._fences == {}

    run(main())


def test_a_gate_error_is_retried_and_reaches_the_caller_only_at_the_deadline() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            engine = hosts[0].engine
            engine.rule = once(ActorOutputGateError("sync failed"), lambda call: b"recorded")
            assert await ask(router).outcome() == b"recorded"
            assert [call.repeat for call in engine.calls] == [False, True]
            engine.rule = lambda call: ActorOutputGateError("sync failed")
            error = await ask(router, timeout_s=0.2).error()
            assert (type(error), error.started) == (ActorOutputGateError, "unknown")

    run(main())


def test_the_deadline_tells_whether_the_call_can_have_started() -> None:
    async def main() -> None:
        async with namespace(2, table(["host-0", "host-1", None, "host-2"] * 2)) as (router, hosts):
            await ask(router, shard=0).outcome()
            hosts[0].engine.rule = lambda call: None
            await ask(router, shard=1).outcome()
            await down(router, hosts[1])
            hosts[1].socket.close()
            sent = ask(router, shard=0, timeout_s=0.1)
            unreachable = ask(router, shard=1, timeout_s=0.1)
            ownerless = ask(router, shard=2, timeout_s=0.1)
            addressless = ask(router, shard=3, timeout_s=0.1)
            got = [await asked.error() for asked in (sent, unreachable, ownerless, addressless)]
            assert [(type(error), error.started) for error in got] == [
                (ActorMethodTimeoutError, "unknown"),
                (ActorShardUnavailableError, "no"),
                (ActorShardUnavailableError, "no"),
                (ActorShardUnavailableError, "no"),
            ]
            assert "host-1 could not be reached" in got[1].detail
            assert "its address is not known" in got[3].detail
            assert router.stats.expired == 4
            assert router.parked_calls == 0
            assert "host-1" in router.trouble()

    run(main())


def test_a_call_without_time_left_is_not_a_success() -> None:
    async def main() -> None:
        async with namespace(placement=NOBODY) as (router, _):
            assert isinstance(await ask(router, timeout_s=-1).error(), ActorShardUnavailableError)

    run(main())


def test_a_shorter_deadline_that_comes_later_is_kept() -> None:
    async def main() -> None:
        async with namespace(placement=NOBODY) as (router, _):
            long, short = ask(router, timeout_s=0.4), ask(router, timeout_s=0.05)
            await short.error()
            assert not long.done
            await long.error()

    run(main())


def test_parking_is_bounded_and_the_call_beyond_was_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with namespace(placement=NOBODY) as (router, _):
            router._parking = Parking(max_calls=3, max_bytes=100, max_shard_calls=2)
            ask(router, shard=0)
            ask(router, shard=0)
            refused = [ask(router, shard=0), ask(router, b"x" * 100, shard=1)]
            ask(router, shard=1)
            refused.append(ask(router, shard=2))
            for asked in refused:
                error = await asked.error()
                assert (type(error), error.started, error.retry_after_s) == (ActorOverloadedError, "no", 1)
            assert router.stats.overloaded == 3

    run(main())


def test_a_call_that_was_sent_and_finds_no_room_to_wait_may_have_run() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            await ask(router).outcome()
            router._parking = Parking(max_calls=2)
            hosts[0].engine.rule = lambda call: None
            asked = [ask(router, timeout_s=0.3) for _ in range(3)]
            await hosts[0].engine.has(4)
            await hosts[0].kill()
            error = await asked[2].error()
            assert (type(error), error.started) == (ActorOverloadedError, "unknown")
            retired = router._sessions._retired
            assert [slot for _, _, slot in retired] == [2], "its slot rests, since its attempt may be alive"
            assert [(await one.error()).started for one in asked[:2]] == ["unknown", "unknown"]

    run(main())


def test_a_refusal_of_a_repeat_says_nothing_about_the_attempts_before() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            engine = hosts[0].engine
            engine.rule = lambda call: None
            asked = ask(router)
            await engine.has(1)
            await hosts[0].kill()
            engine.rule = lambda call: ActorOverloadedError("full")
            await hosts[0].start()
            error = await asked.error()
            assert (type(error), error.started) == (ActorOverloadedError, "unknown")
            assert (await ask(router).error()).started == "no"

    run(main())


def test_a_body_above_the_limit_is_refused_here() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            assert isinstance(await ask(router, b"x" * (BODY_BYTES + 1)).error(), BodyTooLargeError)
            large = Asked(b"x" * BODY_BYTES)
            large.call.method = "m" * 100_000
            router.submit(large.call)
            assert isinstance(await large.error(), BodyTooLargeError)
            assert hosts[0].engine.calls == []
            assert await ask(router, b"x").outcome() == b"x"
            assert hosts[0].engine.calls[0].id == CallId(SESSION, router._sessions.key, 0, 2)

    run(main())


def test_large_calls_beyond_what_the_host_takes_wait_and_all_arrive() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            asked = [ask(router, bytes([n]) * 3_000_000) for n in range(12)]
            for one in asked:
                assert await one.outcome() == one.call.body
            assert [call.body[0] for call in hosts[0].engine.calls] == list(range(12))
            assert router.stats.parked > 0

    run(main())


def test_one_caller_that_fails_at_its_answer_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            hosts[0].engine.rule = lambda call: None
            broken, fine = Asked(b"1"), Asked(b"2")

            def fails(outcome: object) -> None:
                raise RuntimeError("the client is gone")

            broken.call.reply = fails
            router.submit(broken.call)
            router.submit(fine.call)
            for call in await hosts[0].engine.has(2):
                call.reply(call.body)
            assert await fine.outcome() == b"2"
            assert router._links["host-0"].opens == 1

    run(main())
    assert "the client is gone" in caplog.text


@pytest.mark.parametrize(
    "nonsense",
    [lambda number: Failure(number, b"not json"), lambda number: Inventory(number, [])],
    ids=["damaged", "of another kind"],
)
def test_an_answer_that_makes_no_sense_costs_the_connection_but_not_the_call(nonsense: Callable[[int], Any]) -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            engine = hosts[0].engine
            engine.rule = once(None, lambda call: b"ok")
            asked = ask(router)
            [call] = await engine.has(1)
            connection, number = call.reply.args  # type: ignore[attr-defined]
            connection.reply(nonsense(number))
            assert await asked.outcome() == b"ok"
            assert engine.calls[1].repeat
            assert router._links["host-0"].opens == 2

    run(main())


class Host:
    """The engine of this process."""

    shards = SHARDS

    def __init__(self, answer: Callable[[Call], bytes | ActorError]) -> None:
        self.answer = answer
        self.calls: list[tuple[int, CallId | None]] = []

    def submit(self, call: Call) -> None:
        self.calls.append((call.epoch, call.id))
        call.reply(self.answer(call))


def test_a_call_of_the_local_host_goes_straight_to_its_engine() -> None:
    async def main() -> None:
        local = Host(lambda call: call.body)
        async with namespace(2, table(["host-0", "host-1"] * 4, epoch=4), local=local, local_host="host-1") as (
            router,
            hosts,
        ):
            here, there = Asked(b"here", shard=1, id=CallId(DERIVED, b"d" * 16)), Asked(b"there", shard=0)
            router.submit(here.call)
            assert here.done, "no loop, no socket in between"
            assert local.calls == [(4, CallId(DERIVED, b"d" * 16))]
            router.submit(there.call)
            assert await there.outcome() == b"there"
            assert len(hosts[0].engine.calls) == 1
            assert router.open_calls == 0

    run(main())


def test_a_call_that_the_local_engine_fences_follows_its_shard() -> None:
    async def main() -> None:
        local = Host(lambda call: ActorFencedError("frozen"))
        async with namespace(2, local=local, local_host="host-0") as (router, hosts):
            asked = ask(router, b"x")
            assert (router.parked_calls, len(local.calls)) == (1, 1)
            router.update(table().with_volumes({"host-1": "vol-1"}).assigned([(0, "host-1", 2)]), addresses(hosts))
            assert await asked.outcome() == b"x"
            assert asked.times == 1
            [call] = hosts[1].engine.calls
            assert call.epoch == 2
            assert call.repeat, "a turn that was cancelled by the move may have made calls"

    run(main())


def test_other_errors_of_the_local_engine_are_passed_on() -> None:
    async def main() -> None:
        local = Host(lambda call: ActorOverloadedError("full"))
        async with namespace(local=local, local_host="host-0") as (router, _):
            assert isinstance(await ask(router).error(), ActorOverloadedError)

    run(main())


@pytest.mark.parametrize(
    ("engine", "complaint"),
    [
        (("host-9", "vol-0", SHARDS), "the address of host-0 is answered by host-9"),
        (("host-0", "vol-9", SHARDS), "host-0 has volume vol-9, but the table records volume vol-0"),
        (("host-0", "vol-0", 4), "divides its names over 4 shards, not 8"),
    ],
)
def test_a_host_that_is_not_the_recorded_one_gets_no_call(engine: tuple[str, str, int], complaint: str) -> None:
    async def main() -> None:
        host = await RunningHost(ScriptedEngine(*engine)).start()
        router = Router(table(), {"host-0": host.address})
        error = await ask(router, timeout_s=0.2).error()
        assert error.started == "no"
        assert complaint in error.detail
        assert complaint in router.trouble()["host-0"]
        assert host.engine.calls == []
        await router.close()
        await host.close()

    run(main())


def test_a_host_at_a_new_address_is_found_there() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            hosts[0].engine.rule = lambda call: None
            asked = ask(router, b"x")
            await hosts[0].engine.has(1)
            moved = await RunningHost(ScriptedEngine()).start()
            router.update(table(), {"host-0": moved.address})
            assert await asked.outcome() == b"x"
            assert [call.repeat for call in moved.engine.calls] == [True]
            await router.close()
            await moved.close()

    run(main())


def test_a_host_with_another_volume_by_the_table_gets_no_call_over_its_open_connection() -> None:
    async def main() -> None:
        async with namespace(2, table(["host-0", "host-1"] * 4)) as (router, hosts):
            other = router._links["host-1"]
            router.update(table(["host-0", "host-1"] * 4, **{"host-0": "vol-9"}), addresses(hosts))
            error = await ask(router, shard=0, timeout_s=0.2).error()
            assert error.started == "no"
            assert "host-0 has volume vol-0, but the table records volume vol-9" in error.detail
            assert hosts[0].engine.calls == []
            assert router._links["host-1"] is other, "nothing changed for it"
            hosts[0].engine.volume_id = "vol-9"
            assert await ask(router, b"x", shard=0).outcome() == b"x"

    run(main())


def test_calls_of_a_host_that_left_the_table_follow_their_shards() -> None:
    async def main() -> None:
        async with namespace(2, table(["host-0", "host-1"] * 4)) as (router, hosts):
            hosts[0].engine.rule = lambda call: None
            await ask(router, shard=1).outcome()
            asked = ask(router, b"x", shard=0)
            await hosts[0].engine.has(1)
            router.update(table(["host-1"] * SHARDS, epoch=2), addresses(hosts))
            assert await asked.outcome() == b"x"
            assert hosts[1].engine.calls[-1].repeat
            assert router.trouble() == {}

    run(main())


def test_a_table_of_another_namespace_is_refused() -> None:
    async def main() -> None:
        async with namespace() as (router, hosts):
            for other in (Table.empty("another", SHARDS), Table.empty(NAMESPACE, 4)):
                with pytest.raises(PlacementError, match="is not ours"):
                    router.update(other, addresses(hosts))
            assert await ask(router, b"x").outcome() == b"x"

    run(main())


def test_closing_answers_everybody_once() -> None:
    async def main() -> None:
        async with namespace(placement=table(["host-0", None] * 4)) as (router, hosts):
            hosts[0].engine.rule = lambda call: None
            flying, parked = ask(router, shard=0), ask(router, shard=1)
            await hosts[0].engine.has(1)
            await router.close()
            for asked, started in ((flying, "unknown"), (parked, "no")):
                error = await asked.error()
                assert (type(error), error.started) == (ActorShardUnavailableError, started)
            assert (await ask(router).error()).started == "no"
            assert (flying.times, parked.times, router.parked_calls, router.open_calls) == (1, 1, 0, 0)

    run(main())


def test_a_probe_is_answered_by_the_owner_or_at_once() -> None:
    async def main() -> None:
        async with namespace(placement=table(["host-0", None] * 4)) as (router, hosts):
            await ask(router).outcome()

            async def probe(shard: int, body: bytes) -> bytes | ActorError:
                got: asyncio.Future[bytes | ActorError] = asyncio.get_running_loop().create_future()
                router.probe(shard, body, got.set_result)
                return await got

            assert await probe(2, b"who?") == b"2:who?"
            assert isinstance(await probe(1, b"who?"), ActorShardUnavailableError)
            hosts[0].engine.probe = lambda shard, body, reply: reply(ActorFencedError("no"))  # type: ignore[method-assign]
            assert isinstance(await probe(2, b"who?"), ActorFencedError)
            hosts[0].engine.probe = ScriptedEngine().probe  # type: ignore[method-assign]
            assert isinstance(await probe(2, b""), ActorShardUnavailableError), "its connection was cut"

    run(main())


def test_the_session_is_of_one_routers_life() -> None:
    async def main() -> None:
        async with namespace() as (one, hosts):
            two = Router(table(), addresses(hosts))
            await ask(one).outcome()
            await ask(two).outcome()
            keys = {call.id.key for call in hosts[0].engine.calls if call.id}
            assert len(keys) == 2
            assert isinstance(one._sessions, Sessions)
            assert hosts[0].server is not None
            assert len(hosts[0].server.connections) == 2
            await two.close()

    run(main())
