"""The turn engine under random interleavings of calls, failures, held syncs, kills and power losses.

Order: what a call saw is a prefix of what later calls of that instance saw. Atomicity: a turn that failed left nothing
behind, in storage or in the object. Gate: no answer before the sync of all that it tells of. Applied once: under a key
each operation is there exactly once, however often it was sent.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.harness.engine import Machine

from kubeactor import Actor
from kubeactor.errors import ActorError

CALLS = st.tuples(
    st.just("call"),
    st.integers(0, 2),
    st.sampled_from(["plain", "slow", "fail", "late fail", "nested", "ask", "read"]),
    st.booleans(),
)
FAULTS = st.sampled_from(["hold", "hold", "go", "kill", "power loss", "evict"]).map(lambda name: (name, 0, "", False))
# After each step the loop runs that often.
PROGRAMS = st.lists(st.tuples(st.one_of(CALLS, CALLS, CALLS, FAULTS), st.integers(0, 3)), min_size=10, max_size=30)


class History(Actor):
    """Keeps the numbers of the operations that were applied."""

    run: Any = None

    def __init__(self) -> None:
        self.fields: list[int] | None = None

    async def apply(self, operation: int, mode: str) -> list[int]:
        applied: list[int] = await self.ctx.storage.get("applied", [])
        assert self.fields is None or self.fields == applied, "the object remembers what was not committed"
        self.fields = applied
        if mode in ("slow", "late fail"):
            await asyncio.sleep(0)
        if mode == "nested":
            await self.env.HISTORY.id_from_name("shared").apply(operation, "plain")
        if mode == "ask":
            found: list[int] = await self.env.HISTORY.id_from_name("shared").apply(operation, "read")
            return found
        if mode == "read":
            History.run.shows(operation, self.ctx.name, writes=False)
            return applied
        self.fields = [*applied, operation]
        self.ctx.storage.put("applied", self.fields)
        if mode in ("fail", "late fail"):
            raise ValueError(mode)
        History.run.shows(operation, self.ctx.name, writes=True)
        return self.fields


@dataclass
class Sent:
    """A call and what became of it."""

    operation: int
    name: str
    mode: str
    key: str | None
    life: int
    result: list[int] | None = None
    error: ActorError | None = None
    future: asyncio.Future[Any] | None = field(default=None, repr=False)

    @property
    def open(self) -> bool:
        return self.result is None and self.error is None


class Run:
    """One program on one machine."""

    def __init__(self, machine: Machine, folder: Path, *, images: bool) -> None:
        self.m = machine
        self._images = images
        self.sent: list[Sent] = []
        self.batch_of: dict[int, int] = {}
        self.life = 0
        self.early: list[Sent] = []
        self._folder = folder
        History.run = self
        self._opened()

    def _opened(self) -> None:
        if self._images:
            self.m.store.image = self._folder / f"image{self.life}"
        self.m.store.sync()
        self.m.sync_in_thread()
        self._before = self.m.store.writes - self.m.engine.gate.written

    def shows(self, operation: int, name: str, *, writes: bool) -> None:
        """The turn ends now: the last batch that its answer tells of."""
        instance = self.m.engine.find_instance("HISTORY", name.encode())
        assert instance is not None
        number = self.m.engine.gate.written + 1 if writes else instance.batch
        self.batch_of[operation] = max(number, self.batch_of.get(operation, 0))

    async def step(self, kind: str, instance: int, mode: str, keyed: bool) -> None:
        if kind == "call":
            number = len(self.sent)
            self.sent.append(Sent(number, f"i{instance}", mode, f"k{number}" if keyed else None, self.life))
            self.submit(self.sent[-1])
        elif kind == "hold":
            self.m.store.hold()
        elif kind == "go":
            self.m.store.let_go()
        elif kind == "evict":
            for found in list(self.m.engine.served["HISTORY"].instances.values()):
                self.m.engine.housekeeping.evict(found)
        else:
            await self.crash(power=kind == "power loss")

    def submit(self, sent: Sent) -> None:
        call, sent.future = self.m.make("HISTORY", sent.name, "apply", sent.operation, sent.mode, key=sent.key)
        settle, life = call.reply, self.life

        def reply(outcome: bytes | ActorError) -> None:
            assert life == self.life, "an answer of a worker that is dead"
            covered = self.m.store.durable - self._before
            if self.batch_of.get(sent.operation, 0) > covered:
                self.early.append(sent)  # an assertion here would be the engine's to log
            settle(outcome)
            assert sent.future is not None
            raised = sent.future.exception()
            if isinstance(raised, ActorError):
                sent.error = raised
            else:
                sent.result = sent.future.result()

        call.reply = reply
        self.m.engine.submit(call)

    async def crash(self, *, power: bool) -> None:
        self.m.crash(power=power)
        self.life += 1
        self.batch_of.clear()
        self._opened()
        for sent in self.sent:
            if sent.open and sent.key is not None:
                self.submit(sent)  # as an ingress, or a client under its key, does

    async def finish(self) -> None:
        self.m.store.let_go()
        await self.m.until(lambda: not any(s.open and (s.key is not None or s.life == self.life) for s in self.sent))
        assert not self.early, "an answer left before its batch was synced"
        final = {name: await self.m.call("HISTORY", name, "apply", 0, "read") for name in ("i0", "i1", "i2", "shared")}
        for name, applied in final.items():
            assert len(set(applied)) == len(applied), f"{name} applied an operation twice"
        for sent in self.sent:
            self._check(sent, final)
        self._check_order()

    def _check(self, sent: Sent, final: dict[str, list[int]]) -> None:
        there = sent.operation in final[sent.name]
        if sent.mode in ("fail", "late fail", "ask", "read"):
            assert not there
        if sent.result is not None:
            told_of = final["shared" if sent.mode == "ask" else sent.name]
            assert sent.result == told_of[: len(sent.result)], "what was acknowledged is not there"
            assert there or sent.mode in ("ask", "read")
            assert sent.mode != "nested" or sent.operation in final["shared"]

    def _check_order(self) -> None:
        for name in ("i0", "i1", "i2"):
            mine = [sent for sent in self.sent if sent.name == name and sent.life == self.life and sent.mode != "ask"]
            answered = [sent for sent in mine if sent.result is not None]
            for earlier, later in pairwise(answered):
                assert earlier.result is not None
                assert later.result is not None
                assert earlier.result == later.result[: len(earlier.result)], "a later call overtook an earlier one"


@settings(max_examples=30)
@given(PROGRAMS)
def test_order_atomicity_gate_and_applied_once_hold_for_any_interleaving(program: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        machine = Machine(Path(name), History)

        async def main() -> None:
            run = Run(machine, Path(name), images=any(step[0] == "power loss" for step, _ in program))
            for step, ticks in program:
                await run.step(*step)
                for _ in range(ticks):
                    await asyncio.sleep(0)
                assert not run.early
            await run.finish()

        machine.run(main())
