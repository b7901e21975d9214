"""The built-in probe: write, sync, read in a shard, without user code."""

from __future__ import annotations

from tests.harness.engine import Machine, on_engine

from kubeactor import Actor
from kubeactor.engine.check import WAITING, Checks
from kubeactor.engine.layout import CHECK, shard_prefix
from kubeactor.errors import ActorError, ActorFencedError, ActorOverloadedError, ActorShardUnavailableError


class Thing(Actor):
    async def activate(self) -> None:
        raise AssertionError("no user code runs")


Outcomes = list[bytes | ActorError]


@on_engine(Thing)
async def test_a_probe_is_answered_when_what_it_wrote_is_on_disk(machine: Machine) -> None:
    checks, outcomes = Checks(machine.engine), Outcomes()
    machine.sync_in_thread()
    machine.store.hold()
    checks.run(3, 1, outcomes.append)
    await machine.syncing()
    assert outcomes == []
    machine.store.let_go()
    await machine.until(lambda: outcomes)
    assert outcomes == [b""]
    assert len(machine.store.get(shard_prefix(3, CHECK)) or b"") == 16


@on_engine(Thing)
async def test_each_probe_writes_over_the_one_before(machine: Machine) -> None:
    checks, outcomes = Checks(machine.engine), Outcomes()
    for count in (1, 2):
        checks.run(3, 1, outcomes.append)
        await machine.until(lambda count=count: len(outcomes) == count)
    assert outcomes == [b"", b""]
    prefix = shard_prefix(3)
    assert [key for key, _ in machine.store.rows(prefix, shard_prefix(4))] == [prefix + CHECK]


@on_engine(Thing)
async def test_probes_of_one_shard_share_a_write_and_are_bounded(machine: Machine) -> None:
    checks, outcomes = Checks(machine.engine), Outcomes()
    written = machine.engine.gate.written
    for _ in range(WAITING):
        checks.run(3, 1, outcomes.append)
    checks.run(4, 1, outcomes.append)
    assert [type(one) for one in outcomes] == [ActorOverloadedError]
    await machine.until(lambda: len(outcomes) == WAITING + 1)
    assert outcomes[1:] == [b""] * WAITING
    assert machine.engine.gate.written == written + 1


@on_engine(Thing, owned=lambda shard: shard == 3)
async def test_only_an_owned_shard_at_its_epoch_is_probed(machine: Machine) -> None:
    checks, outcomes = Checks(machine.engine), Outcomes()
    checks.run(4, 1, outcomes.append)
    checks.run(3, 2, outcomes.append)
    machine.engine.stopping = True
    checks.run(3, 1, outcomes.append)
    assert [type(one) for one in outcomes] == [ActorFencedError] * 3


@on_engine(Thing)
async def test_a_row_that_reads_otherwise_fails_the_probe(machine: Machine) -> None:
    checks, outcomes = Checks(machine.engine), Outcomes()
    get = machine.store.get
    machine.store.get = lambda key: b"other" if key == shard_prefix(3, CHECK) else get(key)  # type: ignore[method-assign]
    checks.run(3, 1, outcomes.append)
    await machine.until(lambda: outcomes)
    assert [type(one) for one in outcomes] == [ActorShardUnavailableError]
