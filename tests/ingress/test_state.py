"""What all connections share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from kubeactor.call import CLIENT, DAY, LOCAL, SESSION, Call, CallId
from kubeactor.errors import ActorOverloadedError, ActorReentrancyError
from kubeactor.ingress.state import CYCLE_WAIT_MAX_S, CYCLE_WAIT_S, Ingress, cycle_wait_s

CYCLE = ActorReentrancyError("a circle", retryable=True)


def test_a_later_request_has_a_higher_root_and_gives_way(script: Callable[[], Any]) -> None:
    ingress = Ingress(script())
    roots = [ingress.root(ingress.next_request()) for _ in range(300)]
    assert roots == sorted(set(roots))
    assert ingress.request_id(300) == roots[-1].hex()
    assert Ingress(script()).root(1) != roots[0]


def test_the_id_is_the_client_s_key_or_local(script: Callable[[], Any]) -> None:
    ingress = Ingress(script())
    root = ingress.root(1)
    assert ingress.call_id(root, b"k") == (CallId(CLIENT, b"k"), DAY)
    call_id, bucket = ingress.call_id(root, None)
    assert (call_id, bucket) == (CallId(LOCAL, root), int(time.time()) // 600)


def test_the_wait_after_a_broken_cycle_grows_to_a_bound() -> None:
    for attempt in range(1000):
        wait_s = cycle_wait_s(CYCLE, attempt)
        assert wait_s is not None
        assert CYCLE_WAIT_S / 2 <= wait_s <= CYCLE_WAIT_MAX_S * 1.5
    assert cycle_wait_s(ActorReentrancyError("a -> a"), 0) is None
    assert cycle_wait_s(ActorOverloadedError("full"), 0) is None
    assert cycle_wait_s(None, 0) is None


def test_a_repeated_call_keeps_its_id(script: Callable[[], Any]) -> None:
    dispatcher = script()
    ingress = Ingress(dispatcher)

    async def repeat(given: CallId | None, deadline_s: float) -> tuple[bool, Call]:
        call = Call(
            "ACCOUNT", b"a", "echo", b"", shard=1, deadline=time.monotonic() + deadline_s, reply=print, id=given
        )
        submitted = asyncio.Event()
        dispatcher.do_echo = lambda call: submitted.set()
        repeated = ingress.repeat_later(call, CYCLE, 7, 0)
        if repeated:
            await submitted.wait()
        return repeated, call

    for given, kept in [
        (CallId(CLIENT, b"k"), CallId(CLIENT, b"k")),
        (CallId(SESSION, b"router", 3, 4), CallId(LOCAL, ingress.root(7))),
        (None, CallId(LOCAL, ingress.root(7))),
    ]:
        repeated, call = asyncio.run(repeat(given, 60))
        assert (repeated, call.repeat, call.id) == (True, True, kept)
    assert asyncio.run(repeat(None, 0.001))[0] is False
