"""Money that is sent to and fro while hosts crash: each transfer arrives once and in order, or comes back."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.engine.clockwork import delivered, look_often
from tests.harness.engine import Machine, pauses
from tests.harness.hosts import Hosts

from kubeactor import Actor, ActorError, Binding, Env, Message, Problem
from kubeactor.engine import outbox


class Unlucky(Problem):
    status = 409


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    look_often(monkeypatch)


class Purse(Actor):
    """Money that is sent to and fro; some of it is refused."""

    env: Market

    async def fill(self, amount: int) -> None:
        self.ctx.storage.put("money", amount)

    async def money(self) -> int:
        return await self.ctx.storage.get("money", 0)

    async def seen(self) -> dict[str, list[int]]:
        return await self.ctx.storage.get("seen", {})

    async def give(self, to: str, amount: int) -> None:
        number = await self.ctx.storage.get("given", 0) + 1
        self.ctx.storage.put("given", number)
        self.ctx.storage.put("money", await self.money() - amount)
        self.ctx.send(self.env.PURSE.id_from_name(to).take, self.ctx.name, number, amount)

    async def take(self, giver: str, number: int, amount: int) -> None:
        if amount % 7 == 0:
            raise Unlucky("an unlucky number")
        if random.random() < 0.1:
            raise RuntimeError("bad luck")
        seen = await self.ctx.storage.get("seen", {})
        seen.setdefault(giver, []).append(number)
        self.ctx.storage.put("seen", seen)
        self.ctx.storage.put("money", await self.money() + amount)

    async def undelivered(self, message: Message, error: ActorError, /) -> None:
        if random.random() < 0.1:
            raise RuntimeError("bad luck")
        self.ctx.storage.put("money", await self.money() + message.args[2])


class Market(Env):
    PURSE: Binding[Purse]


@pytest.mark.parametrize("seed", range(4))
def test_over_random_crashes_each_transfer_arrives_once_in_order_or_comes_back(tmp_path: Any, seed: int) -> None:
    names = [f"p{n}" for n in range(6)]

    async def story(m: Machine) -> None:
        for name in names:
            await m.call("PURSE", name, "fill", 1000)
        for _ in range(10):
            for _ in range(12):
                giver, taker = random.sample(names, 2)
                m.send("PURSE", giver, "give", taker, random.randrange(1, 30))
            await asyncio.sleep(random.uniform(0, 0.006))
            m.clock.advance(random.choice([0, 1, 5]))
            m.crash()
        await delivered(m)
        await check([m], dict.fromkeys(names, m))

    random.seed(seed)
    pauses.reset()
    machine = Machine(tmp_path, Purse, env_class=Market)
    machine.run(story(machine))


async def check(machines: list[Machine], names: dict[str, Machine]) -> None:
    """Nothing is lost or doubled, and what came is in the order in which it was given."""
    assert sum([await m.call("PURSE", name, "money") for name, m in names.items()]) == 1000 * len(names)
    for name, m in names.items():
        for numbers in (await m.call("PURSE", name, "seen")).values():
            assert numbers == sorted(set(numbers))
    for m in machines:
        assert m.engine.outbox.pending_in_memory == 0
        assert m.engine.parked.items() == []


@pytest.mark.parametrize("seed", range(3))
def test_between_hosts_that_crash_each_transfer_arrives_once_in_order_or_comes_back(
    tmp_path: Any, monkeypatch: Any, seed: int
) -> None:
    monkeypatch.setattr(outbox, "MESSAGES", 6)
    monkeypatch.setattr(outbox, "SENDERS", 3)
    hosts = Hosts(tmp_path, Purse, env_class=Market)
    names = {name: hosts.machines[number] for number in (0, 1) for name in hosts.names(number, 3)}

    async def main() -> None:
        for name, m in names.items():
            await m.call("PURSE", name, "fill", 1000)
        for _ in range(8):
            for _ in range(12):
                giver, taker = random.sample(list(names), 2)
                names[giver].send("PURSE", giver, "give", taker, random.randrange(1, 30))
            await asyncio.sleep(random.uniform(0, 0.01))
            for m in hosts.machines:
                m.clock.wall_us += random.choice([0, 1, 5]) * 1_000_000
            await hosts.crash(random.randrange(2))
        for _ in range(2):  # what comes back to one host may be the last that the other waits for
            for m in hosts.machines:
                await delivered(m)
        await check(hosts.machines, names)

    random.seed(seed)
    pauses.reset()
    hosts.run(main())


def test_a_message_waits_for_a_host_that_is_away_and_arrives_once(tmp_path: Any) -> None:
    hosts = Hosts(tmp_path, Purse, env_class=Market)
    (here,), (there,) = hosts.names(0, 1), hosts.names(1, 1)

    async def main() -> None:
        zero, one = hosts.machines
        for number in range(1, 6):
            gift = zero.send("PURSE", here, "give", there, number)
            await hosts.crash(1)
            await gift
        await delivered(zero)
        assert await one.call("PURSE", there, "seen") == {here: [1, 2, 3, 4, 5]}
        assert await one.call("PURSE", there, "money") == 15

    random.seed(1)
    pauses.reset()
    hosts.run(main())
