"""The table against the volume: what is served, and what is refused although a table or a volume says otherwise."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from tests.harness.engine import NAMESPACE, Machine, on_engine

from kubeactor import Actor
from kubeactor.engine.claims import Claims, judge
from kubeactor.errors import ActorFencedError
from kubeactor.ids import shard_of
from kubeactor.placement import Table

SHARDS = 4


def table(owners: list[str | None], epochs: list[int], **volumes: str) -> Table:
    known = {"host-0": "v0", "host-1": "v1"} | {host.replace("_", "-"): v for host, v in volumes.items()}
    return Table(NAMESPACE, volumes=known, owners=owners, epochs=epochs)


def test_a_host_serves_what_table_and_volume_agree_on() -> None:
    verdict = judge(table(["host-0", "host-0", "host-1", "host-1"], [1, 2, 1, 1]), "host-0", "v0", {0: 1, 1: 2})
    assert verdict == ({0: 1, 1: 2}, [], "")


def test_a_table_that_is_behind_a_grant_takes_nothing_away() -> None:
    assert judge(table([None] * 4, [0] * 4), "host-0", "v0", {0: 1, 1: 1}).served == {0: 1, 1: 1}
    assert judge(Table.empty(NAMESPACE, 4), "host-0", "v0", {0: 1}).served == {0: 1}


def test_what_the_table_gives_to_another_host_is_not_served() -> None:
    verdict = judge(table(["host-1", "host-0", None, None], [2, 1, 1, 0]), "host-0", "v0", {0: 1, 1: 1, 2: 1})
    assert verdict == ({1: 1}, [], "")


def test_a_volume_that_is_not_the_recorded_one_serves_nothing_whatever_it_holds() -> None:
    verdict = judge(table(["host-0"] * 4, [1] * 4), "host-0", "other", {0: 1, 1: 9})
    assert (verdict.served, verdict.lifted) == ({}, [])
    assert verdict.trouble.startswith("VolumeLost: the placement table records volume v0 for host-0")


def test_what_the_volume_does_not_hold_is_told_and_not_served() -> None:
    verdict = judge(table(["host-0"] * 4, [1] * 4), "host-0", "v0", {0: 1})
    assert verdict.served == {0: 1}
    assert verdict.trouble == "the placement table gives host-0 3 shards that its volume does not hold"


def test_a_table_made_anew_above_all_epochs_lifts_those_of_the_volume() -> None:
    verdict = judge(table(["host-0", "host-0", "host-1", "host-1"], [5, 1, 5, 5]), "host-0", "v0", {0: 4, 1: 1})
    assert verdict == ({0: 5, 1: 1}, [(0, 5)], "")


class Clock(Actor):
    """Its alarm counts."""

    async def begin(self) -> None:
        await self.ctx.storage.set_alarm(timedelta(seconds=1))

    async def alarm(self, info: Any) -> None:
        await self.ctx.storage.put("rang", True)

    async def rang(self) -> bool:
        return bool(await self.ctx.storage.get("rang", False))

    async def tell(self, other: str, word: str) -> None:
        self.ctx.send(self.env.CLOCK.id_from_name(other).hear, word)

    async def hear(self, word: str) -> None:
        await self.ctx.storage.put("heard", [*await self.heard(), word])

    async def heard(self) -> list[str]:
        return list(await self.ctx.storage.get("heard", []))


def owned_by(machine: Machine, host: str, epoch: int, volume: str | None = None) -> Table:
    volumes = {"host-0": volume or machine.engine.volume_id, "host-1": "v1"}
    return Table(NAMESPACE, volumes=volumes, owners=[host] * SHARDS, epochs=[epoch] * SHARDS)


@on_engine(Clock, shards=SHARDS)
async def test_lifted_epochs_are_stored_and_served_at_once(machine: Machine) -> None:
    Claims(machine.engine, machine.failures.append).apply(owned_by(machine, "host-0", 7))
    assert await machine.call("CLOCK", "a", "rang", epoch=7) is False
    assert type(await machine.error("CLOCK", "a", "rang", epoch=1)) is ActorFencedError
    assert machine.failures == []
    machine._owned = lambda shard: False
    machine.crash()
    assert machine.engine.epochs == dict.fromkeys(range(SHARDS), 7)


@on_engine(Clock, shards=SHARDS)
async def test_a_shard_that_is_lost_is_fenced_at_once_and_the_worker_begins_anew(machine: Machine) -> None:
    Claims(machine.engine, machine.failures.append).apply(owned_by(machine, "host-1", 2))
    assert type(await machine.error("CLOCK", "a", "rang")) is ActorFencedError
    assert machine.failures == [f"{SHARDS} of its shards are not this host's any more"]


@on_engine(Clock, shards=SHARDS)
async def test_no_alarm_of_a_lost_shard_runs_after_the_worker_began_anew(machine: Machine) -> None:
    await machine.call("CLOCK", "a", "begin")
    lost = owned_by(machine, "host-1", 2)
    machine.prepare = lambda engine: Claims(engine, machine.failures.append).apply(lost)
    machine.crash()
    machine.clock.advance(5)
    assert machine.engine.epochs == {}
    assert machine.engine.alarms.pending_in_memory == 0
    # It comes back when the table gives the shards to this host again.
    Claims(machine.engine, machine.failures.append).apply(owned_by(machine, "host-0", 3))
    shard = shard_of(b"a", SHARDS)
    assert machine.engine.epochs[shard] == 3
    await machine.until(lambda: machine.engine.alarms.ran)
    assert machine.failures == []


@on_engine(Clock, shards=SHARDS)
async def test_alarms_and_messages_wait_in_their_order_while_the_placement_is_not_known(machine: Machine) -> None:
    await machine.call("CLOCK", "a", "begin")
    machine.background = False
    machine.crash()
    machine.clock.advance(5)
    await machine.call("CLOCK", "a", "tell", "b", "one")
    machine.crash()
    await machine.call("CLOCK", "a", "tell", "b", "two")
    await machine.call("CLOCK", "c", "begin")
    machine.clock.advance(5)
    await machine.call("CLOCK", "c", "tell", "b", "three")
    assert [await machine.call("CLOCK", name, "rang") for name in "ac"] == [False, False]
    assert await machine.call("CLOCK", "b", "heard") == []
    machine.engine.run_background()
    await machine.until(lambda: machine.engine.alarms.ran == 2 and not machine.engine.outbox.pending_in_memory)
    heard = await machine.call("CLOCK", "b", "heard")
    assert sorted(heard) == ["one", "three", "two"]
    assert heard.index("one") < heard.index("two"), "both are from a"


@on_engine(Clock, shards=SHARDS)
async def test_nothing_that_waits_for_the_placement_runs_when_it_takes_the_shards_away(machine: Machine) -> None:
    await machine.call("CLOCK", "a", "begin")
    machine.background = False
    machine.crash()
    machine.clock.advance(5)
    Claims(machine.engine, machine.failures.append).apply(owned_by(machine, "host-0", 2, volume="v9"))
    machine.engine.run_background()
    await asyncio.sleep(0)
    assert machine.failures == [f"{SHARDS} of its shards are not this host's any more"]
    assert machine.engine.alarms.ran == machine.engine.alarms.running == 0
