"""Virtual time: it stands still, goes from event to event, and forgets what is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from kubeactor.testing.clock import VirtualClock, Wait

pytestmark = pytest.mark.asyncio


async def test_what_waits_is_called_in_due_order_when_time_has_come() -> None:
    clock, loop, called = VirtualClock(), asyncio.get_running_loop(), list[str]()
    now = clock.now_us()
    clock.wake_at(loop, now + 20, called.append, "second")
    clock.wake_at(loop, now + 10, called.append, "first")
    clock.wake_at(loop, now - 1, called.append, "at once")
    clock.call_later(loop, 3.0, called.append, "last")
    cancelled = clock.wake_at(loop, now + 5, called.append, "never")
    cancelled.cancel()
    await asyncio.sleep(0)
    assert called == ["at once"]
    assert clock.next_us() == now + 10
    clock.move_to(now + 15)
    assert clock.now_us() == now + 15
    await asyncio.sleep(0)
    assert called == ["at once", "first"]
    clock.move_to(now + 3_000_000)
    await asyncio.sleep(0)
    assert called == ["at once", "first", "second", "last"]
    assert clock.next_us() is None


async def test_a_wait_that_is_cancelled_after_its_time_came_does_not_run() -> None:
    clock, loop, called = VirtualClock(), asyncio.get_running_loop(), list[str]()
    wait = clock.wake_at(loop, 0, called.append, "no")
    wait.cancel()
    await asyncio.sleep(0)
    assert called == []


async def test_time_never_goes_back_and_both_clocks_move_together() -> None:
    clock = VirtualClock()
    now, monotonic = clock.now_us(), clock.monotonic()
    clock.move_to(now + 60_000_000)
    clock.move_to(now)
    assert clock.now_us() == now + 60_000_000
    assert clock.skipped_s == 60.0
    assert clock.monotonic() >= monotonic + 60.0


async def test_one_can_ask_for_some_of_what_waits_and_forget_all() -> None:
    clock, loop = VirtualClock(), asyncio.get_running_loop()
    clock.wake_at(loop, clock.now_us() + 5, print)
    clock.wake_at(loop, clock.now_us() + 7, len)

    def of_len(wait: Wait) -> bool:
        return wait.callback is len

    assert clock.next_us(of_len) == clock.now_us() + 7
    clock.forget_all()
    assert clock.next_us() is None
