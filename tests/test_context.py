"""`self.ctx`: identity, time, messages, blocking."""

from __future__ import annotations

import asyncio
from datetime import UTC
from typing import Any

import pytest
from tests.harness.engine import NOON_US, Machine, on_engine, pauses

from kubeactor import Actor, ActorArgumentError, ActorFencedError, BlockConcurrencyTimeoutError
from kubeactor.storage import from_us


class Box(Actor):
    async def identity(self) -> list[Any]:
        return [str(self.ctx.id), self.ctx.id.name, self.ctx.name]

    async def times(self) -> bool:
        first = self.ctx.now()
        await pauses.here("clock")
        return self.ctx.now() == first == from_us(NOON_US) and first.tzinfo is UTC

    async def note(self, text: str) -> None:
        pauses.log.append(text)

    async def send(self, name: str) -> None:
        self.ctx.send(self.env.BOX.id_from_name(name).note, text="hello")

    async def send_wrongly(self) -> None:
        stub = self.env.BOX.id_from_name("b")
        wrong: tuple[Any, ...] = (self.note, print, "note", stub, stub.__repr__)
        for target in wrong:
            with pytest.raises(ActorArgumentError, match="send takes a stub's method"):
                self.ctx.send(target, "x")

    async def block(self, seconds: float) -> str:
        async def inside() -> str:
            await asyncio.sleep(seconds)
            return "ready"

        return await self.ctx.block_concurrency_while(inside)


@on_engine(Box)
async def test_an_instance_knows_its_name_and_id(m: Machine) -> None:
    assert await m.call("BOX", "a/b", "identity") == ["BOX/a/b", "a/b", "a/b"]
    stub = m.env.BOX.new_unique_id()
    text, name, shown = await stub.identity()
    assert (text, name) == (f"BOX!{shown}", None)
    assert len(shown) == 32


@on_engine(Box)
async def test_now_is_constant_within_a_turn(m: Machine) -> None:
    future = m.send("BOX", "a", "times")
    await pauses.arrived("clock")
    m.clock.advance(5)
    pauses.go("clock")
    assert await future


@on_engine(Box)
async def test_a_message_is_delivered_when_its_turn_has_committed(m: Machine) -> None:
    await m.call("BOX", "a", "send", "b")
    assert pauses.log == ["hello"]


@on_engine(Box)
async def test_send_takes_a_method_of_a_stub_only(m: Machine) -> None:
    await m.call("BOX", "a", "send_wrongly")
    assert m.engine.outbox.pending_in_memory == 0


@on_engine(Box)
async def test_send_and_now_belong_to_a_turn(m: Machine) -> None:
    await m.call("BOX", "a", "identity")
    instance = m.engine.find_instance("BOX", b"a")
    assert instance is not None
    assert instance.actor is not None
    with pytest.raises(ActorFencedError):
        instance.actor.ctx.send(m.env.BOX.id_from_name("b").note, "x")
    with pytest.raises(ActorFencedError):
        instance.actor.ctx.now()


@on_engine(Box)
async def test_block_concurrency_while_ends_after_its_time(m: Machine) -> None:
    assert await m.call("BOX", "a", "block", 0.0) == "ready"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kubeactor.context.BLOCK_CONCURRENCY_S", 0.02)
        error = await m.error("BOX", "a", "block", 10.0)
    assert isinstance(error, BlockConcurrencyTimeoutError)
