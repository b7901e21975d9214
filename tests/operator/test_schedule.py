"""A replica that is not the leader any more ends: nothing that it does swallows that, and what hangs is left alone."""

from __future__ import annotations

import asyncio

import pytest

from kubeactor_operator import main
from kubeactor_operator.schedule import Schedule

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("due_s", [0.0, 0.01, None])
async def test_a_wait_for_the_next_namespace_ends_when_it_is_cancelled_in_the_moment_of_a_change(
    due_s: float | None,
) -> None:
    """As in a process that was stopped for a minute: timers, events and the loss of the Lease come all at once."""
    now = [0.0]
    schedule = Schedule(lambda: now[0])
    if due_s is not None:
        schedule.wake(("space", "later"), 100.0)
    waits = asyncio.create_task(schedule.next())
    await asyncio.sleep(0.01)
    schedule.wake(("space", "other"), 50.0)
    if due_s:
        await asyncio.sleep(due_s)
        schedule.wake(("space", "sooner"), 10.0)
    waits.cancel()
    done, _ = await asyncio.wait([waits], timeout=10)
    assert done
    assert waits.cancelled()


async def test_what_does_not_end_is_told_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(main, "ENDS_S", 0.05)
    released = asyncio.Event()

    async def deaf() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    async def fails() -> None:
        try:
            await released.wait()
        finally:
            raise ValueError("at its end")

    tasks = [asyncio.create_task(one()) for one in (deaf, fails, released.wait)]
    await asyncio.sleep(0)
    assert not await main._end(tasks)
    assert [task.done() for task in tasks] == [False, True, True]
    assert "deaf" in caplog.text
    released.set()
    await tasks[0]
    assert await main._end([asyncio.create_task(asyncio.sleep(60))])
    assert await main._end([])
