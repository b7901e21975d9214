"""Calls that wait for each other in a circle: found soon, one gives way, the others complete."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from tests.harness.engine import Machine, failure, on_engine, pauses
from tests.harness.hosts import Hosts

from kubeactor import Actor, ActorReentrancyError
from kubeactor.call import Call
from kubeactor.engine.cycles import Step
from kubeactor.engine.instance import Instance
from kubeactor.errors import ActorError
from kubeactor.ingress.state import cycle_wait_s

CALLS = 1
SOON_S = 1.0
BUSY_S = 10.0  # at most: a busy machine may stop for seconds, and without a way out it would be 30 s


class Node(Actor):
    async def rest(self) -> str:
        return self.ctx.name

    async def go(self, meeting: str, path: list[str]) -> list[str]:
        """Wait until all have met, then call along the path."""
        if meeting:
            await pauses.here(f"{meeting}{self.ctx.name}")
        if not path:
            return [self.ctx.name]
        try:
            found: list[str] = await self.env.NODE.id_from_name(path[0]).go("", path[1:])
        except ActorReentrancyError as error:
            pauses.log.append(error.started)
            raise
        return [self.ctx.name, *found]

    async def ping(self, name: str, count: int) -> int:
        """Call back and forth, and write at each step."""
        self.ctx.storage.put("pings", await self.ctx.storage.get("pings", 0) + 1)
        await asyncio.sleep(0.001)
        if count:
            await self.env.NODE.id_from_name(name).rest()
        return count


class Waking(Actor):
    async def activate(self) -> None:
        if self.ctx.name == "sleeper":
            await pauses.here("activate")
            await self.env.WAKING.id_from_name("middle").rest()

    async def rest(self) -> None: ...

    async def go(self, path: list[str]) -> None:
        if path:
            await pauses.here(self.ctx.name)
            await self.env.WAKING.id_from_name(path[0]).go(path[1:])


async def meet(m: Machine, paths: dict[str, list[str]]) -> dict[str, asyncio.Future[list[str]]]:
    """Start a call at each name; all then call along their paths at once."""
    futures = {name: m.send("NODE", name, "go", "meet", path) for name, path in paths.items()}
    for name in paths:
        await pauses.arrived(f"meet{name}")
    for name in paths:
        pauses.go(f"meet{name}")
    return futures


async def one_gives_way(futures: dict[str, asyncio.Future[list[str]]]) -> ActorError:
    """All but one succeed, and soon; the error of the one."""
    began = time.monotonic()
    await asyncio.wait(futures.values())
    assert time.monotonic() - began < BUSY_S
    failed = [future for future in futures.values() if future.exception()]
    assert len(failed) == 1
    error = await failure(failed[0])
    assert isinstance(error, ActorReentrancyError)
    # The call that gave way was not started; the turn that made it was, and may have made others before.
    assert (error.started, error.retryable) == ("yes", True)
    assert pauses.log[0] == "no"
    return error


@on_engine(Node)
async def test_a_cycle_of_two_is_broken_and_names_itself(m: Machine) -> None:
    futures = await meet(m, {"alice": ["bob"], "bob": ["alice"]})
    error = await one_gives_way(futures)
    assert "NODE/alice" in error.detail
    assert "NODE/bob" in error.detail
    # The younger root gives way.
    assert await futures["alice"] == ["alice", "bob"]
    assert m.engine.stats.cycles == 1


@on_engine(Node)
async def test_a_cycle_of_three_is_broken(m: Machine) -> None:
    await one_gives_way(await meet(m, {"a": ["b"], "b": ["c"], "c": ["a"]}))


@on_engine(Node)
async def test_a_cycle_through_calls_that_already_run_is_broken(m: Machine) -> None:
    # a's call runs at x and waits there for b; b waits for a: x is in the circle but nothing is queued there.
    await one_gives_way(await meet(m, {"a": ["x", "b"], "b": ["y", "z", "a"]}))


@on_engine(Node)
async def test_two_cycles_through_one_instance_are_both_broken(m: Machine) -> None:
    futures = await meet(m, {"a": ["b"], "b": ["a"], "c": ["a"]})
    await asyncio.wait(futures.values())
    assert sum(1 for future in futures.values() if future.exception()) == 1


@on_engine(Waking)
async def test_a_cycle_through_an_instance_that_is_being_activated_is_broken(m: Machine) -> None:
    # outer waits for sleeper, whose activation waits for middle, which waits for outer.
    outer = m.send("WAKING", "outer", "go", ["sleeper"])
    middle = m.send("WAKING", "middle", "go", ["outer"])
    await pauses.arrived("outer")
    await pauses.arrived("middle")
    pauses.go("outer")
    await pauses.arrived("activate")
    pauses.go("middle")
    pauses.go("activate")
    await asyncio.wait([outer, middle])
    assert m.engine.stats.cycles == 1


@on_engine(Node)
async def test_a_long_wait_that_is_no_cycle_is_left_alone(m: Machine) -> None:
    slow = m.send("NODE", "slow", "go", "held", [])
    await pauses.arrived("heldslow")
    waiting = [m.send("NODE", f"n{i}", "go", "", ["slow"]) for i in range(5)]
    await asyncio.sleep(0.05)
    assert not any(future.done() for future in waiting)
    pauses.go("heldslow")
    await slow
    assert await asyncio.gather(*waiting) == [[f"n{i}", "slow"] for i in range(5)]
    assert m.engine.stats.cycles == 0


async def persistent(m: Machine, client: int, names: list[str], longest: list[float]) -> None:
    """A client that calls as through an ingress: a call that fell victim to a cycle is made again, with jitter."""
    chooser = random.Random(client)
    for number in range(CALLS):
        here, there = chooser.sample(names, 2)
        root = b"%08d%08d" % (number, client)
        began, attempt = time.monotonic(), 0
        while True:
            call, future = m.make("NODE", here, "ping", there, 1, root=root, repeat=attempt > 0, bucket=1)
            m.engine.submit(call)
            try:
                await future
                break
            except ActorReentrancyError as error:
                wait_s = cycle_wait_s(error, attempt)
                assert wait_s is not None
                await asyncio.sleep(wait_s)
                attempt += 1
        longest.append(time.monotonic() - began)


@on_engine(Node)
async def test_of_64_clients_that_call_back_and_forth_between_4_instances_none_waits_for_a_cycle(m: Machine) -> None:
    names = ["n1", "n2", "n3", "n4"]
    longest: list[float] = []
    queued: dict[bytes, float] = {}
    waited: list[float] = []
    cycles = m.engine.cycles
    watch, give_way = cycles.watch, cycles._break

    def note_queued(instance: Instance, call: Call) -> None:
        queued[call.token()] = time.monotonic()
        watch(instance, call)

    def note_cycle(steps: list[Step]) -> None:
        closed = max(queued[step.token] for step in steps if step.queued)
        waited.append(time.monotonic() - closed)
        give_way(steps)

    cycles.watch, cycles._break = note_queued, note_cycle  # type: ignore[method-assign]
    await asyncio.gather(*(persistent(m, client, names, longest) for client in range(64)))
    assert len(longest) == 64 * CALLS
    assert m.engine.stats.cycles > 0
    assert sorted(waited)[len(waited) * 9 // 10] < SOON_S
    assert max(waited) < BUSY_S


def test_a_cycle_across_two_hosts_is_broken_by_probes(tmp_path: Path) -> None:
    pauses.reset()
    hosts = Hosts(tmp_path, Node)
    zero, one = hosts.machines
    (alice, carol), (bob, dave) = hosts.names(0, 2), hosts.names(1, 2)

    async def main() -> None:
        # The direct circle, and one through instances of both hosts where a call runs already.
        for first, second in (([bob], [alice]), ([carol, dave, bob], [dave + "x", alice])):
            pauses.reset()
            futures = {
                alice: zero.send("NODE", alice, "go", "meet", first),
                bob: one.send("NODE", bob, "go", "meet", second),
            }
            for name in futures:
                await pauses.arrived(f"meet{name}")
            for name in futures:
                pauses.go(f"meet{name}")
            await one_gives_way(futures)
        assert zero.engine.stats.cycles + one.engine.stats.cycles == 2

    hosts.run(main())


def test_calls_between_two_hosts_are_applied_once_and_copied(tmp_path: Path) -> None:
    pauses.reset()
    hosts = Hosts(tmp_path, Node)
    here, there = hosts.names(0, 1)[0], hosts.names(1, 1)[0]

    async def main() -> None:
        zero = hosts.machines[0]
        assert await zero.call("NODE", here, "go", "", [there]) == [here, there]
        assert "NODE/" in (await zero.error("NODE", here, "go", "", [there, here])).detail

    hosts.run(main())
