"""Turns are real tasks whose first step runs at once."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

import pytest

from kubeactor.engine.loop import EngineLoop, new_event_loop, start_task

LABEL = b"A\0a\0m\0"
NUMBER: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)


def on_loop(main: Coroutine[Any, Any, Any]) -> Any:
    loop = new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


def start(coroutine: Coroutine[Any, Any, Any], context: contextvars.Context | None = None) -> asyncio.Task[Any]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, EngineLoop)
    return start_task(loop, coroutine, context or contextvars.copy_context(), LABEL)


def test_a_turn_that_never_waits_is_done_when_it_has_been_started() -> None:
    async def turn() -> int:
        return 5

    async def main() -> None:
        task = start(turn())
        assert task.done()
        assert task.result() == 5

    on_loop(main())


def test_the_current_task_inside_is_the_turn_and_outside_the_caller_again() -> None:
    seen: list[object] = []

    async def turn() -> None:
        seen.append(asyncio.current_task())
        inner = start(nested())
        assert inner.done()
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    async def nested() -> None:
        seen.append(asyncio.current_task())

    async def main() -> None:
        outer = asyncio.current_task()
        task = start(turn())
        assert asyncio.current_task() is outer
        await task
        assert [seen[0], seen[2], seen[3]] == [task] * 3
        assert seen[1] not in (task, outer, None)

    on_loop(main())


def test_a_turn_can_be_started_from_a_callback_where_no_task_is_current() -> None:
    async def turn() -> asyncio.Task[Any] | None:
        await asyncio.sleep(0)
        return asyncio.current_task()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        started: asyncio.Future[asyncio.Task[Any]] = loop.create_future()
        loop.call_soon(lambda: started.set_result(start(turn())))
        task = await started
        assert await task is task

    on_loop(main())


def test_a_turn_runs_in_its_own_context_from_the_first_step_on() -> None:
    async def turn() -> list[int]:
        first = NUMBER.get()
        NUMBER.set(first + 1)
        await asyncio.sleep(0)
        return [first, NUMBER.get()]

    async def main() -> None:
        context = contextvars.copy_context()
        context.run(NUMBER.set, 7)
        assert await start(turn(), context) == [7, 8]
        assert NUMBER.get() == 0

    on_loop(main())


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_what_the_first_step_raises_is_the_tasks(raised: type[BaseException]) -> None:
    async def turn() -> None:
        raise raised

    async def main() -> None:
        task = start(turn())
        assert task.done()
        with pytest.raises(raised):
            task.result()
        assert asyncio.current_task() is not None

    on_loop(main())


def test_a_task_that_a_turn_makes_is_scheduled_as_ever() -> None:
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    async def turn() -> None:
        task = asyncio.create_task(other())
        order.append("turn")
        await task

    async def main() -> None:
        await start(turn())
        assert order == ["turn", "other"]

    on_loop(main())
