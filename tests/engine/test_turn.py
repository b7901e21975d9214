"""What a turn may do, how it ends, and what is left when it failed."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import anyio
import pytest
from tests.harness.engine import Machine, failure, on_engine, pauses

from kubeactor import Actor, ActorFencedError, ActorMethodError, ActorMethodTimeoutError, method
from kubeactor.engine.loop import NoPage

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


class Failing(Actor):
    def __init__(self) -> None:
        self.field = 0

    async def write_and_raise(self) -> None:
        self.field += 1
        self.ctx.storage.put("key", 1)
        raise ValueError("after the write")

    async def read_and_raise(self) -> None:
        self.field += 1
        await self.ctx.storage.get("key")
        raise ValueError("after a read")

    async def roll_back_and_raise(self) -> None:
        self.field += 1
        async with self.ctx.storage.transaction():
            self.ctx.storage.put("key", 1)
            raise ValueError("inside")

    async def put(self, value: int) -> None:
        self.ctx.storage.put("key", value)

    async def look(self) -> list[Any]:
        return [self.field, await self.ctx.storage.get("key")]

    async def exit(self) -> None:
        self.ctx.storage.put("key", 2)
        raise SystemExit(3)

    async def exit_later(self) -> None:
        await asyncio.sleep(0)
        raise SystemExit(3)

    async def interrupt_in_task(self) -> None:
        async def inner() -> None:
            raise KeyboardInterrupt

        await asyncio.create_task(inner())

    async def cancel_itself(self) -> None:
        self.ctx.storage.put("key", 3)
        raise asyncio.CancelledError

    async def unencodable(self) -> Any:
        self.ctx.storage.put("key", 4)
        return object()


class Slow(Actor):
    def __init__(self) -> None:
        self.field = "new"

    @method(timeout_s=0.02)
    async def stubborn(self, name: str) -> None:
        self.field = "old"
        self.ctx.storage.put("written", "by the late one")
        while not pauses.log.count(name):
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        try:
            self.ctx.storage.put("written", "after its end")
        except ActorFencedError as error:
            pauses.log.append(type(error).__name__)

    async def ignore(self) -> None:
        await Slow.stubborn(self, "stop")

    @method(timeout_s=0.02)
    async def thread(self) -> None:
        def later() -> None:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), loop).result()
            try:
                self.ctx.storage.put("written", "by a thread")
            except ActorFencedError:
                pauses.log.append("thread fenced")

        loop = asyncio.get_running_loop()
        await asyncio.to_thread(later)

    @method(timeout_s=0.02)
    async def polite(self) -> None:
        await asyncio.sleep(10)

    async def wait(self, name: str) -> None:
        await pauses.here(name)

    async def look(self) -> list[Any]:
        return [self.field, await self.ctx.storage.get("written")]

    async def leave_task(self) -> None:
        async def later() -> None:
            await pauses.here("task")
            for use in (
                lambda: self.ctx.storage.put("written", "by a task"),
                lambda: self.ctx.storage.delete("written"),
                lambda: self.ctx.storage.delete_all(),
                lambda: self.ctx.storage.delete_alarm(),
                lambda: self.ctx.now(),
                lambda: self.ctx.send(self.env.SLOW.id_from_name("b").look),
                lambda: self.env.SLOW.id_from_name("b").look(),
            ):
                with pytest.raises(ActorFencedError):
                    use()
            with pytest.raises(ActorFencedError):
                await self.ctx.storage.get("written")
            pauses.log.append("all fenced")

        pauses.log.append(asyncio.create_task(later()))


class Concurrent(Actor):
    async def timeout(self) -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        except TimeoutError:
            self.ctx.storage.put("after", 1)
            return "timed out"
        return "no"

    async def group(self) -> list[int]:
        async def one(i: int) -> int:
            await asyncio.sleep(0)
            self.ctx.storage.put(f"k{i}", i)
            return i

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(i)) for i in range(3)]
        return [task.result() for task in tasks]

    async def scopes(self) -> list[str]:
        found = []
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep(10)
        found.append(f"moved on: {scope.cancelled_caught}")
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 10)
            group.cancel_scope.cancel()
        found.append("group cancelled")
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await anyio.sleep(10)
        return found

    async def nested_scopes(self, name: str) -> list[str]:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            inner = group.create_task(self.env.CONCURRENT.id_from_name(name).scopes())
            with anyio.fail_after(5):
                direct = await self.env.CONCURRENT.id_from_name(name + "2").timeout()
        return [*inner.result(), direct]

    async def context(self) -> str:
        before = REQUEST.get()
        REQUEST.set("mine")
        await asyncio.sleep(0)
        inner = await asyncio.create_task(self._inner())
        threaded = await asyncio.to_thread(REQUEST.get)
        return f"{before} {inner} {threaded}"

    async def _inner(self) -> str:
        return REQUEST.get()

    async def task_name(self) -> bool:
        task = asyncio.current_task()
        await asyncio.sleep(0)
        return task is not None and task is asyncio.current_task()


@on_engine(Failing)
async def test_a_turn_that_raised_after_writing_leaves_no_trace(m: Machine) -> None:
    error = await m.error("FAILING", "a", "write_and_raise")
    assert isinstance(error, ActorMethodError)
    assert (error.cause, error.started) == ("ValueError", "yes")
    assert await m.call("FAILING", "a", "look") == [0, None]


@on_engine(Failing)
async def test_a_turn_that_raised_without_having_written_keeps_the_instance(m: Machine) -> None:
    await m.error("FAILING", "a", "read_and_raise")
    assert await m.call("FAILING", "a", "look") == [1, None]


@on_engine(Failing)
async def test_a_turn_that_raised_out_of_its_own_transaction_drops_the_instance(m: Machine) -> None:
    await m.error("FAILING", "a", "roll_back_and_raise")
    assert await m.call("FAILING", "a", "look") == [0, None]


@on_engine(Failing)
async def test_system_exit_and_keyboard_interrupt_end_only_the_turn(m: Machine) -> None:
    for called in ("exit", "exit_later", "interrupt_in_task", "cancel_itself", "unencodable"):
        error = await m.error("FAILING", "a", called)
        assert error.name in ("ActorMethodError", "CodecError"), called
        assert await m.call("FAILING", "a", "look") == [0, None]


@on_engine(Failing, detail=False)
async def test_the_text_of_an_exception_stays_on_the_host_unless_detail_is_asked_for(m: Machine) -> None:
    error = await m.error("FAILING", "a", "write_and_raise")
    assert "after the write" not in error.detail
    assert "ValueError" in error.detail


@on_engine(Slow)
async def test_a_timed_out_turn_commits_nothing_and_the_next_runs_at_once_on_a_new_object(m: Machine) -> None:
    late = m.send("SLOW", "a", "stubborn", "stop")
    following = m.send("SLOW", "a", "look")
    error = await failure(late)
    assert isinstance(error, ActorMethodTimeoutError)
    assert error.started == "yes"
    assert await following == ["new", None]
    pauses.log.append("stop")
    await m.until(lambda: "ActorFencedError" in pauses.log)
    assert await m.call("SLOW", "a", "look") == ["new", None]
    await m.until(lambda: not m.engine.suspended)


@on_engine(Slow)
async def test_a_thread_left_over_by_a_turn_that_timed_out_cannot_write(m: Machine) -> None:
    assert (await m.error("SLOW", "a", "thread")).name == "ActorMethodTimeoutError"
    await m.until(lambda: "thread fenced" in pauses.log)
    assert await m.call("SLOW", "a", "look") == ["new", None]


@on_engine(Slow)
async def test_the_budget_is_the_smaller_of_the_methods_and_of_what_remains(m: Machine) -> None:
    before = m.loop.time()
    assert (await m.error("SLOW", "a", "wait", "x", timeout_s=0.03)).name == "ActorMethodTimeoutError"
    assert (await m.error("SLOW", "a", "polite")).name == "ActorMethodTimeoutError"
    assert m.loop.time() - before < 2


@on_engine(Slow)
async def test_everything_that_acts_for_a_turn_is_fenced_once_it_has_ended(m: Machine) -> None:
    await m.call("SLOW", "a", "leave_task")
    task = pauses.log.pop()
    pauses.go("task")
    await task
    assert pauses.log == ["all fenced"]


@on_engine(Slow)
async def test_many_turns_that_time_out_together_are_no_leftovers(m: Machine) -> None:
    late = [m.send("SLOW", f"s{i}", "polite") for i in range(150)]
    for one in late:
        assert (await failure(one)).name == "ActorMethodTimeoutError"
    await m.until(lambda: not m.engine.suspended)
    assert m.failures == []


@on_engine(Slow)
async def test_more_than_a_hundred_turns_that_ignore_their_cancellation_end_the_worker(m: Machine) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kubeactor.engine.engine.LEFTOVER_AFTER_S", 0.02)
        late = [m.send("SLOW", f"s{i}", "stubborn", "stop") for i in range(101)]
        await m.until(lambda: m.failures)
        assert m.engine.stats.leftovers == 101
        assert m.failures == ["more than 100 turns that timed out ignore their cancellation"]
        assert (await failure(late[0])).name == "ActorMethodTimeoutError"
        pauses.log.append("stop")
        await m.until(lambda: not m.engine.suspended)
        assert m.engine.stats.leftovers == 0


@on_engine(Concurrent)
async def test_timeouts_groups_and_cancel_scopes_work_inside_methods(m: Machine) -> None:
    assert await m.call("CONCURRENT", "a", "timeout") == "timed out"
    assert await m.call("CONCURRENT", "a", "group") == [0, 1, 2]
    assert await m.call("CONCURRENT", "a", "scopes") == ["moved on: True", "group cancelled"]
    assert await m.call("CONCURRENT", "a", "nested_scopes", "b") == ["moved on: True", "group cancelled", "timed out"]
    assert await m.call("CONCURRENT", "a", "task_name")


@on_engine(Concurrent)
async def test_context_variables_are_a_turns_own_and_reach_its_tasks_and_threads(m: Machine) -> None:
    token = REQUEST.set("of the caller")
    try:
        assert await m.call("CONCURRENT", "a", "context") == "none mine mine"
        assert await m.call("CONCURRENT", "a", "context") == "none mine mine"
        assert REQUEST.get() == "of the caller"
    finally:
        REQUEST.reset(token)


@on_engine(Slow)
async def test_a_turn_that_ignores_a_shutdown_commits_nothing(m: Machine) -> None:
    held = m.send("SLOW", "a", "ignore")
    await m.engine.close(0)
    error = await failure(held)
    assert (error.name, error.started) == ("ActorFencedError", "no")
    pauses.log.append("stop")
    await m.until(lambda: "ActorFencedError" in pauses.log)
    assert m.failures == []
    m.start()
    assert await m.call("SLOW", "a", "look") == ["new", None]


class Recorder(NoPage):
    """A page that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[bytes | None] = []

    def enter(self, label: bytes) -> None:
        self.told.append(label)

    def leave(self) -> None:
        self.told.append(None)


class Outer(Actor):
    def __init__(self) -> None:
        pauses.log.append(list(RECORDER.told))

    async def rest(self) -> None:
        await asyncio.sleep(0)

    async def call(self, name: str) -> None:
        await self.env.OUTER.id_from_name(name).quick()
        pauses.log.append(RECORDER.told[-1])

    async def quick(self) -> None: ...


RECORDER = Recorder()


@on_engine(Outer, page=RECORDER)
async def test_the_page_names_the_instance_while_its_code_is_stepped_and_no_longer(m: Machine) -> None:
    await m.call("OUTER", "a", "quick")
    RECORDER.told.clear()
    await m.call("OUTER", "a", "rest")
    label = b"OUTER\0a\0rest\0"
    assert RECORDER.told == [label, None, label, None]


@on_engine(Outer, page=RECORDER)
async def test_after_a_nested_turn_the_page_names_the_outer_one_again(m: Machine) -> None:
    await m.call("OUTER", "a", "quick")
    await m.call("OUTER", "b", "quick")
    RECORDER.told.clear()
    await m.call("OUTER", "a", "call", "b")
    outer, inner = b"OUTER\0a\0call\0", b"OUTER\0b\0quick\0"
    assert RECORDER.told[:3] == [outer, inner, outer]
    assert pauses.log[-1] == outer
    assert RECORDER.told[-1] is None


@on_engine(Outer, page=RECORDER)
async def test_the_page_names_the_instance_while_its_init_runs(m: Machine) -> None:
    RECORDER.told.clear()
    await m.call("OUTER", "new", "quick")
    assert pauses.log[-1] == [b"OUTER\0new\0__init__\0"]
