"""The engine of `kubeactor dev` tells of each call what its line shows."""

from __future__ import annotations

import itertools
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.harness.engine import Machine, pauses

from kubeactor import Actor, Binding, Env, Problem
from kubeactor.engine import watched
from kubeactor.engine.watched import Answered, WatchedEngine


class Full(Problem):
    status = 409


class Desk(Actor):
    env: Office

    async def put(self, value: int) -> None:
        self.ctx.storage.put("value", value)

    async def wait(self) -> None:
        await pauses.here("wait")

    async def refuse(self) -> None:
        raise Full("no more")

    async def ask(self, other: str) -> None:
        await self.env.DESK.id_from_name(other).put(1)

    async def later(self, fails: bool) -> None:
        self.ctx.storage.put("fails", fails)
        self.ctx.storage.set_alarm(timedelta(0))

    async def alarm(self, info: Any) -> None:
        if await self.ctx.storage.get("fails"):
            raise Full("in the alarm")


class Office(Env):
    DESK: Binding[Desk]


class Log:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Answered] = []
        self.full = False
        self.closed = False

    def wants(self) -> bool:
        return not self.full

    def answered(self, answered: Answered) -> None:
        self.told.append(answered)

    def close(self) -> None:
        self.closed = True


class Watched(Machine):
    engine_class = WatchedEngine

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Desk, env_class=Office)
        self.log = Log()
        self.prepare = self.watch

    def watch(self, engine: Any) -> None:
        engine.watcher = self.log

    @property
    def times(self) -> dict[Any, Any]:
        assert isinstance(self.engine, WatchedEngine)
        return self.engine._times


def run(machine: Watched, main: Coroutine[Any, Any, None]) -> list[Answered]:
    pauses.reset()
    machine.run(main)
    assert machine.log.closed
    return machine.log.told


def test_a_call_is_told_with_its_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "perf_counter", itertools.count().__next__)  # a clock that ticks when it is read
    machine = Watched(tmp_path)

    async def main() -> None:
        machine.sync_in_thread()
        machine.store.hold()
        answer = machine.send("DESK", "alice", "put", 5)
        await machine.syncing()
        machine.store.let_go()
        await answer
        waiting = machine.send("DESK", "bob", "wait")
        behind = machine.send("DESK", "bob", "put", 1)
        await pauses.arrived("wait")
        pauses.go("wait")
        await waiting
        await behind
        assert not machine.times

    put, wait, behind = run(machine, main())
    assert (put.instance, put.method, put.depth, put.system, put.error) == (b"DESK\0alice", "put", 0, False, None)
    assert min(put.queue_s, put.sync_s) > 0
    assert put.queue_s + put.sync_s < put.total_s
    assert wait.method == "wait"
    assert behind.queue_s > wait.queue_s
    assert behind.queue_s + behind.sync_s < behind.total_s


def test_an_error_is_told_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    machine = Watched(tmp_path)

    async def main() -> None:
        await machine.error("DESK", "alice", "refuse")
        await machine.error("DESK", "alice", "nothing")
        await machine.error("DESK", "alice", "put", "x")
        await machine.error("NOWHERE", "alice", "put")
        assert not machine.times

    told = run(machine, main())
    assert [each.error.name for each in told if each.error] == [
        "Full",
        "ActorUnknownMethodError",
        "ActorArgumentError",
        "ActorUnknownBindingError",
    ]


def test_a_call_of_an_actor_is_told_one_level_down(tmp_path: Path) -> None:
    machine = Watched(tmp_path)

    async def main() -> None:
        await machine.call("DESK", "alice", "ask", "bob")

    assert [(each.instance, each.depth) for each in run(machine, main())] == [(b"DESK\0bob", 1), (b"DESK\0alice", 0)]


def test_alarms_are_told_whether_they_succeed_or_fail(tmp_path: Path) -> None:
    machine = Watched(tmp_path)

    async def main() -> None:
        await machine.call("DESK", "alice", "later", False)
        await machine.until(lambda: len(machine.log.told) == 2)
        await machine.call("DESK", "bob", "later", True)
        await machine.until(lambda: len(machine.log.told) == 4)
        assert not machine.times

    ran, failed = (each for each in run(machine, main()) if each.method == "alarm")
    assert (ran.instance, ran.method, ran.system, ran.error) == (b"DESK\0alice", "alarm", True, None)
    assert (failed.instance, failed.method, failed.system) == (b"DESK\0bob", "alarm", True)
    assert failed.error is not None
    assert failed.error.name == "Full"


def test_what_nobody_wants_to_know_is_answered_and_not_told(tmp_path: Path) -> None:
    machine = Watched(tmp_path)

    async def main() -> None:
        machine.log.full = True
        await machine.call("DESK", "alice", "put", 5)
        await machine.call("DESK", "alice", "later", False)
        await machine.until(lambda: machine.engine.stats.turns >= 3)
        assert not machine.times

    assert run(machine, main()) == []
