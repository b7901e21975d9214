"""Calls that turns make: their ids, chains, bounds and misuse."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.harness.engine import Machine, failure, on_engine, pauses, session_id

from kubeactor import Actor, ActorReentrancyError, ActorUnawaitedCallError, CodecError, Problem, id_of
from kubeactor.call import CODEC
from kubeactor.ids import ActorId
from kubeactor.limits import CHAIN_DEPTH


class TooMuch(Problem):
    status = 422
    most: int


class Account(Actor):
    async def add(self, amount: int) -> int:
        pauses.log.append(("add", self.ctx.name, amount))
        total: int = await self.ctx.storage.get("total", 0) + amount
        self.ctx.storage.put("total", total)
        return total

    async def total(self) -> int:
        return await self.ctx.storage.get("total", 0)

    async def limit(self, most: int) -> None:
        raise TooMuch("too much", most=most)

    async def mutate(self, items: list[int]) -> list[int]:
        items.append(99)
        return items

    async def keep(self, items: list[int]) -> None:
        self.items = items

    async def kept(self) -> list[int]:
        return self.items

    async def wait(self, name: str) -> None:
        await pauses.here(name)

    async def echo(self, value: Any) -> Any:
        return value


class Teller(Actor):
    def _account(self, name: str) -> Any:
        return self.env.ACCOUNT.id_from_name(name)

    async def pay(self, name: str, amount: int, fail: bool = False) -> int:
        """Two calls of the same method, which must keep their ids apart."""
        account = self._account(name)
        await account.add(amount)
        total: int = await account.add(amount)
        self.ctx.storage.put("paid", amount)
        if fail:
            raise ValueError("after the calls")
        return total

    async def pay_until_told(self, name: str, amounts: list[int]) -> int:
        """Fails until its log says otherwise; may pay another amount at each attempt."""
        pauses.log.append("attempt")
        attempt = pauses.log.count("attempt") - 1
        total: int = await self._account(name).add(amounts[attempt])
        if attempt + 1 < len(amounts):
            raise ValueError("again")
        return total

    async def paid(self) -> int:
        return await self.ctx.storage.get("paid", 0)

    async def catch(self, most: int) -> str:
        try:
            await self._account("a").limit(most)
        except TooMuch as error:
            return f"{type(error).__name__} {error.most}"
        return "nothing"

    async def copies(self) -> list[list[int]]:
        mine = [1, 2]
        returned = await self._account("a").mutate(mine)
        await self._account("a").keep(mine)
        mine.append(3)
        kept = await self._account("a").kept()
        kept.append(4)
        return [mine, returned, await self._account("a").kept()]

    async def forget(self) -> None:
        self.ctx.storage.put("paid", 1)
        self._account("a").add(1)  # the line that is told

    async def forget_and_raise(self) -> None:
        self._account("a").add(1)
        raise ValueError("first")

    async def start_and_leave(self) -> None:
        self.task = asyncio.create_task(self._account("a").add(1))

    async def gather(self, count: int) -> int:
        calls = [self._account(f"g{i}").wait("gate") for i in range(count)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        return sum(isinstance(result, Exception) for result in results)

    async def wait_for(self) -> int:
        first: int = await asyncio.wait_for(self._account("a").add(1), 5)
        second: int = await asyncio.create_task(self._account("a").add(1))
        return first + second

    async def pass_stub(self) -> None:
        await self._account("a").echo(self._account("b"))

    async def return_stub(self) -> Any:
        return self._account("b")

    async def store_stub(self) -> None:
        self.ctx.storage.put("x", {"stub": [self._account("b")]})

    async def pass_id(self) -> list[Any]:
        stub = self._account("b")
        found: ActorId = await self._account("a").echo(id_of(stub))
        self.ctx.storage.put("id", found)
        again = self.env.ACCOUNT.get(await self.ctx.storage.get("id"))
        return [str(found), again == stub, await again.total()]


class Node(Actor):
    async def visit(self, path: list[str]) -> list[str]:
        if not path:
            return [self.ctx.name]
        deeper: list[str] = await self.env.NODE.id_from_name(path[0]).visit(path[1:])
        return [self.ctx.name, *deeper]

    async def try_visit(self, path: list[str]) -> str:
        try:
            await self.visit(path)
        except ActorReentrancyError as error:
            return error.detail
        return ""


@on_engine(Account, Teller)
async def test_a_nested_call_is_applied_and_its_result_comes_back(m: Machine) -> None:
    assert await m.call("TELLER", "t", "pay", "a", 5) == 10
    assert await m.call("ACCOUNT", "a", "total") == 10
    assert await m.call("TELLER", "t", "paid") == 5


@on_engine(Account, Teller)
async def test_a_failed_outer_turn_leaves_the_callees_effect(m: Machine) -> None:
    error = await m.error("TELLER", "t", "pay", "a", 5, True)
    assert error.name == "ActorMethodError"
    assert await m.call("ACCOUNT", "a", "total") == 10
    assert await m.call("TELLER", "t", "paid") == 0


@on_engine(Account, Teller)
async def test_a_retried_outer_turn_does_not_apply_its_callees_twice(m: Machine) -> None:
    for fields in ({"key": "k"}, {"id": session_id(0, 1), "bucket": m.clock.now_us() // 600_000_000}):
        pauses.log.clear()
        before = await m.call("ACCOUNT", "a", "total")
        error = await m.error("TELLER", "t", "pay_until_told", "a", [7, 7, 7], **fields)
        assert error.name == "ActorMethodError"
        m.crash()
        await m.error("TELLER", "t", "pay_until_told", "a", [7, 7, 7], **fields, repeat=True)
        assert await m.call("TELLER", "t", "pay_until_told", "a", [7, 7, 7], **fields, repeat=True) == before + 7
        assert pauses.log.count(("add", "a", 7)) == 1


@on_engine(Account, Teller)
async def test_an_attempt_under_another_slot_keeps_the_ids_of_the_calls_inside(m: Machine) -> None:
    fields = {"bucket": m.clock.now_us() // 600_000_000, "root": b"root"}
    await m.error("TELLER", "t", "pay_until_told", "a", [7, 7], id=session_id(0, 1), **fields)
    result = await m.call("TELLER", "t", "pay_until_told", "a", [7, 7], id=session_id(3, 1), **fields, repeat=True)
    assert result == 7


@on_engine(Account, Teller)
async def test_other_arguments_under_the_same_derived_id_are_a_conflict_and_no_second_effect(m: Machine) -> None:
    await m.error("TELLER", "t", "pay_until_told", "a", [7, 8], key="k")
    error = await m.error("TELLER", "t", "pay_until_told", "a", [7, 8], key="k")
    assert error.name == "IdempotencyConflictError"
    assert await m.call("ACCOUNT", "a", "total") == 7


@on_engine(Account, Teller)
async def test_a_problem_reaches_the_calling_actor_as_its_own_class(m: Machine) -> None:
    assert await m.call("TELLER", "t", "catch", 3) == "TooMuch 3"


@on_engine(Account, Teller)
async def test_arguments_and_results_are_copied_between_actors_of_one_host(m: Machine) -> None:
    assert await m.call("TELLER", "t", "copies") == [[1, 2, 3], [1, 2, 99], [1, 2]]


@on_engine(Account, Teller)
async def test_a_call_that_nobody_awaited_fails_the_turn_and_tells_where(m: Machine) -> None:
    error = await m.error("TELLER", "t", "forget")
    assert isinstance(error, ActorUnawaitedCallError)
    lines = enumerate(Path(__file__).read_text().splitlines(), 1)
    line = next(number for number, text in lines if text.endswith("# the line that is told"))
    assert f"{__file__}:{line}" in error.detail
    assert "ACCOUNT.add" in error.detail
    assert await m.call("TELLER", "t", "paid") == 0
    assert await m.call("ACCOUNT", "a", "total") == 0
    assert (await m.error("TELLER", "t", "forget_and_raise")).name == "ActorMethodError"


@on_engine(Account, Teller)
async def test_a_task_of_a_call_that_did_not_start_before_the_turn_ended_is_unawaited_too(m: Machine) -> None:
    assert (await m.error("TELLER", "t", "start_and_leave")).name == "ActorUnawaitedCallError"
    await asyncio.sleep(0)
    assert await m.call("ACCOUNT", "a", "total") == 0
    teller = m.engine.find_instance("TELLER", b"t")
    assert teller is not None
    with pytest.raises(RuntimeError):
        await teller.actor.task  # type: ignore[union-attr]


@on_engine(Account, Teller)
async def test_stub_calls_are_coroutines_for_wait_for_and_tasks(m: Machine) -> None:
    assert await m.call("TELLER", "t", "wait_for") == 3


@on_engine(Account, Teller)
async def test_a_turn_has_at_most_64_calls_under_way(m: Machine) -> None:
    future = m.send("TELLER", "t", "gather", 70)
    await m.until(lambda: len(m.engine.suspended) == 65)
    pauses.go("gate")
    assert await future == 6


@on_engine(Account, Teller)
async def test_a_stub_as_an_argument_value_or_result_is_an_error_that_names_id_of(m: Machine) -> None:
    for called in ("pass_stub", "return_stub", "store_stub"):
        error = await m.error("TELLER", "t", called)
        assert isinstance(error, CodecError), called
        assert "id_of" in error.detail, called
    assert await m.call("TELLER", "t", "pass_id") == ["ACCOUNT/b", True, 0]


@on_engine(Node)
async def test_a_chain_that_comes_back_fails_at_once_and_names_itself(m: Machine) -> None:
    error = await m.error("NODE", "a", "visit", ["b", "a"])
    assert (error.name, error.status, error.retryable, error.started) == ("ActorReentrancyError", 409, False, "yes")
    assert "NODE/a -> NODE/b -> NODE/a" in error.detail
    assert "NODE/a -> NODE/a" in (await m.error("NODE", "a", "visit", ["a"])).detail
    assert "NODE/b -> NODE/c -> NODE/b" in await m.call("NODE", "a", "try_visit", ["b", "c", "b"])


@on_engine(Node)
async def test_a_chain_is_at_most_16_deep(m: Machine) -> None:
    path = [f"n{i}" for i in range(CHAIN_DEPTH)]
    assert len(await m.call("NODE", "first", "visit", path[:-1])) == CHAIN_DEPTH
    error = await m.error("NODE", "first", "visit", path)
    assert isinstance(error, ActorReentrancyError)
    assert "at most 16 deep" in error.detail


@on_engine(Account, Teller)
async def test_calls_outside_of_any_turn_have_a_scope_of_their_own(m: Machine) -> None:
    account = m.env.ACCOUNT.id_from_name("outside")
    assert await account.add(3) == 3
    assert await account.add(3) == 6
    with pytest.raises(TooMuch):
        await account.limit(1)


@on_engine(Account, Teller)
async def test_a_nested_call_gets_what_remains_of_its_callers_time(m: Machine) -> None:
    held = m.send("ACCOUNT", "g0", "wait", "gate", timeout_s=10)
    error = await m.error("TELLER", "t", "gather", 1, timeout_s=0.05)
    assert error.name == "ActorMethodTimeoutError"
    await m.until(lambda: m.engine.queued_calls == 0)  # the nested call's deadline passed in the queue
    pauses.go("gate")
    await held


@on_engine(Account)
async def test_codec_calls_carry_types_beyond_json(m: Machine) -> None:
    value = {"tuple": (1, 2), "set": {3}, "big": 2**70, b"bytes": None}
    assert await m.call("ACCOUNT", "a", "echo", value, format=CODEC) == value
    error = await failure(m.send("ACCOUNT", "a", "echo", 2**70, format=CODEC, kwargs={"nobody": 1}))
    assert error.name == "ActorArgumentError"
