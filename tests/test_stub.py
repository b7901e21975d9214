"""Stubs: what they offer, what they refuse."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.harness.engine import Machine, on_engine, pauses

from kubeactor import Actor, ActorArgumentError, ActorError, id_of, method


class Account(Actor):
    async def add(self, amount: int) -> int:
        """Add to the balance."""
        return amount

    async def wait(self) -> str:
        await pauses.here("wait")
        pauses.log.append("done")
        return "waited"

    async def fail(self) -> None:
        raise ValueError("no")

    @method(aliases=["plus"])
    async def sum(self, a: int, b: int = 1) -> int:
        return a + b


@on_engine(Account)
async def test_a_stub_has_the_methods_of_its_class_and_nothing_else(m: Machine) -> None:
    stub: Any = m.env.ACCOUNT.id_from_name("a")
    assert stub.add.__doc__ == "Add to the balance."
    assert stub.add.__qualname__ == "Account.add"
    assert (await stub.sum(1, b=2), await stub.plus(3)) == (3, 4)
    with pytest.raises(AttributeError, match="did you mean 'add'"):
        _ = stub.addd
    with pytest.raises(AttributeError, match="a stub has methods only"):
        _ = stub.ctx
    with pytest.raises(AttributeError):
        stub.field = 1


@on_engine(Account)
async def test_wrong_arguments_are_told_at_the_call(m: Machine) -> None:
    stub: Any = m.env.ACCOUNT.id_from_name("a")
    for wrong in ((), (1, 2)):
        with pytest.raises((ActorArgumentError, TypeError)):
            await stub.add(*wrong)
    with pytest.raises(ActorError, match="amount"):
        await stub.add("thirty")


@on_engine(Account)
async def test_a_call_is_a_coroutine_whose_arguments_are_taken_when_it_is_written(m: Machine) -> None:
    stub: Any = m.env.ACCOUNT.id_from_name("a")
    call = stub.add(1)
    assert isinstance(call, Coroutine)
    assert asyncio.iscoroutine(call)
    assert not inspect.iscoroutine(call)
    assert await call == 1
    assert list(await asyncio.gather(stub.add(2), stub.add(3))) == [2, 3]


@on_engine(Account)
async def test_giving_up_a_call_leaves_it_running_at_its_callee(m: Machine) -> None:
    stub: Any = m.env.ACCOUNT.id_from_name("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stub.wait(), 0.02)
    assert len(m.engine.suspended) == 1
    pauses.go("wait")
    await m.until(lambda: pauses.log == ["done"])


@on_engine(Account)
async def test_an_error_can_be_thrown_into_a_call_and_a_call_be_closed(m: Machine) -> None:
    stub: Any = m.env.ACCOUNT.id_from_name("a")
    call = stub.wait()
    call.send(None)
    with pytest.raises(KeyError):
        call.throw(KeyError("thrown"))
    unused = stub.add(1)
    unused.close()
    with pytest.raises(RuntimeError):
        await unused


@on_engine(Account)
async def test_an_error_names_the_instance_that_raised_it(m: Machine) -> None:
    with pytest.raises(ActorError) as caught:
        await m.env.ACCOUNT.id_from_name("a").fail()
    assert caught.value.instance == "ACCOUNT/a"


def test_id_of_takes_stubs_only() -> None:
    with pytest.raises(TypeError, match=r"id_of takes a stub"):
        id_of("alice")
