"""Calls wait for a volume that can't be opened: in order, up to their deadline, within bounds."""

from __future__ import annotations

import asyncio
import time

from tests.harness.wiring import SHARDS, Asked, ScriptedEngine, run

from kubeactor.call import Call
from kubeactor.errors import ActorOverloadedError, ActorShardUnavailableError
from kubeactor.limits import INGRESS_PARKED_BYTES, INGRESS_PARKED_CALLS
from kubeactor.standby import Standby


def test_calls_are_handed_on_in_their_order_and_later_ones_pass_through() -> None:
    async def main() -> None:
        standby, engine = Standby(asyncio.get_running_loop(), SHARDS), ScriptedEngine()
        early = [Asked(b"%d" % n) for n in range(100)]
        for asked in early:
            standby.submit(asked.call)
        assert not any(asked.done for asked in early)
        standby.serve(engine)
        late = Asked(b"late")
        standby.submit(late.call)
        assert [await asked.outcome() for asked in [*early, late]] == [*(b"%d" % n for n in range(100)), b"late"]
        assert [call.body for call in engine.calls] == [*(b"%d" % n for n in range(100)), b"late"]

    run(main())


def test_a_call_that_is_made_while_others_are_handed_on_does_not_overtake_them() -> None:
    async def main() -> None:
        standby, engine = Standby(asyncio.get_running_loop(), SHARDS), ScriptedEngine()
        nested = Asked(b"nested")

        def rule(call: Call) -> bytes:
            if call.body == b"1":
                standby.submit(nested.call)
            return call.body

        engine.rule = rule
        for body in (b"1", b"2"):
            standby.submit(Asked(body).call)
        standby.serve(engine)
        assert await nested.outcome() == b"nested"
        assert [call.body for call in engine.calls] == [b"1", b"2", b"nested"]

    run(main())


def test_a_call_is_answered_soon_after_its_deadline_with_the_reason() -> None:
    async def main() -> None:
        standby, engine = Standby(asyncio.get_running_loop(), SHARDS), ScriptedEngine()
        standby.reason = "the disk is on fire"
        short, long = Asked(timeout_s=0.1), Asked(timeout_s=10.0)
        for asked in (short, long):
            standby.submit(asked.call)
        began = time.monotonic()
        error = await short.error()
        assert 0.1 <= time.monotonic() - began + 0.01 < 5.0
        assert type(error) is ActorShardUnavailableError
        assert (error.retryable, error.started, error.status) == (True, "no", 503)
        assert "the disk is on fire" in error.detail
        standby.serve(engine)
        assert await long.outcome() == b"{}"
        assert engine.calls == [long.call]
        assert (short.times, long.times) == (1, 1)

    run(main())


def test_the_number_of_waiting_calls_is_bounded() -> None:
    async def main() -> None:
        standby = Standby(asyncio.get_running_loop(), SHARDS)
        for _ in range(INGRESS_PARKED_CALLS):
            standby.submit(Asked().call)
        error = await submitted(standby, Asked()).error()
        assert type(error) is ActorOverloadedError
        assert (error.retryable, error.overloaded, error.started) == (True, True, "no")

    run(main())


def test_the_bytes_of_waiting_calls_are_bounded_and_freed_by_deadlines() -> None:
    async def main() -> None:
        standby = Standby(asyncio.get_running_loop(), SHARDS)
        body = b"x" * (4 * 1024 * 1024)
        waiting = [submitted(standby, Asked(body, timeout_s=0.05)) for _ in range(INGRESS_PARKED_BYTES // len(body))]
        assert not any(asked.done for asked in waiting)
        assert type(await submitted(standby, Asked(b"x")).error()) is ActorOverloadedError
        for asked in waiting:
            assert type(await asked.error()) is ActorShardUnavailableError
        assert not submitted(standby, Asked(body)).done

    run(main())


def submitted(standby: Standby, asked: Asked) -> Asked:
    standby.submit(asked.call)
    return asked
