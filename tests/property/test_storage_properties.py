"""Storage against a dict: any sequence of operations, turns that fail, savepoints, restarts and kills."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.harness.engine import Machine, failure

from kubeactor import Actor

KEYS = st.sampled_from(["", "a", "a\0", "aa", "ab", "b", "é", "\uffff", "\U0001f600", "k" * 300])
VALUES = st.one_of(st.integers(), st.text(max_size=5), st.just("long" * 500), st.lists(st.booleans(), max_size=3))
WRITES = st.one_of(
    st.tuples(st.just("put"), KEYS, VALUES),
    st.tuples(st.just("put_many"), st.dictionaries(KEYS, VALUES, max_size=4), st.none()),
    st.tuples(st.just("delete"), KEYS, st.none()),
    st.tuples(st.just("delete_many"), st.lists(KEYS, max_size=4), st.none()),
    st.tuples(st.just("delete_all"), st.none(), st.none()),
)
BLOCKS = st.lists(
    st.tuples(st.sampled_from(["plain", "kept", "rolled back"]), st.lists(WRITES, max_size=4)), max_size=4
)
RANGES = st.fixed_dictionaries(
    {"reverse": st.booleans()},
    optional={"prefix": KEYS, "start": KEYS, "end": KEYS, "limit": st.integers(1, 5)},
)


class DiscardError(Exception):
    """Ends a savepoint or a turn whose writes are to be discarded."""


class Store(Actor):
    """Does what the test put into `job`."""

    job: Any = None

    async def work(self) -> Any:
        return await Store.job(self)


def apply(model: dict[str, Any], write: tuple[str, Any, Any]) -> Any:
    """What a write does to the dict, and what it returns."""
    kind, key, value = write
    if kind == "put":
        model[key] = value
    elif kind == "put_many":
        model.update(key)
    elif kind == "delete":
        return model.pop(key, DiscardError) is not DiscardError
    elif kind == "delete_many":
        return sum(model.pop(one, DiscardError) is not DiscardError for one in key)
    else:
        model.clear()
    return None


async def do(storage: Any, write: tuple[str, Any, Any]) -> Any:
    kind, key, value = write
    if kind == "put":
        return await storage.put(key, value)
    if kind == "put_many":
        return await storage.put(key)
    if kind == "delete_all":
        return await storage.delete_all()
    return await storage.delete(key)


def ordered(model: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(model.items(), key=lambda item: item[0].encode())


def selected(model: dict[str, Any], options: dict[str, Any]) -> list[tuple[str, Any]]:
    """What `list` answers for these options."""
    found = [
        (key, value)
        for key, value in ordered(model)
        if key.startswith(options.get("prefix", ""))
        and key.encode() >= options.get("start", "").encode()
        and ("end" not in options or key.encode() < options["end"].encode())
    ]
    if options["reverse"]:
        found.reverse()
    return found[: options.get("limit", 1000)]


class StorageMachine(RuleBasedStateMachine):
    """One instance; `model` is what is committed."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.machine = Machine(Path(self.folder.name), Store)
        self.model: dict[str, Any] = {}
        self.down = False

    @initialize()
    def begin(self) -> None:
        asyncio.set_event_loop(self.machine.loop)
        self._run(self._start())

    async def _start(self) -> None:
        self.machine.start()

    def _run(self, coroutine: Any) -> Any:
        return self.machine.loop.run_until_complete(asyncio.wait_for(coroutine, 20))

    def _turn(self, job: Any) -> Any:
        Store.job = job
        return self._run(self.machine.call("STORE", "a", "work"))

    @rule(blocks=BLOCKS, fail=st.booleans(), ranges=RANGES)
    def turn(self, blocks: Any, fail: bool, ranges: Any) -> None:
        """Writes, some in savepoints; each is read back at once, and the whole is kept or discarded."""
        model = dict(self.model)

        async def job(actor: Actor) -> None:
            nonlocal model
            storage = actor.ctx.storage
            for kind, writes in blocks:
                before = dict(model)
                if kind == "plain":
                    for write in writes:
                        assert await do(storage, write) == apply(model, write)
                    continue
                try:
                    async with storage.transaction():
                        for write in writes:
                            assert await do(storage, write) == apply(model, write)
                        if kind == "rolled back":
                            raise DiscardError
                except DiscardError:
                    model = before
            assert list((await storage.list(**ranges)).items()) == selected(model, ranges)
            assert [item async for item in storage.scan()] == ordered(model)
            assert await storage.get(["a", "b", "é"]) == {key: model[key] for key in ("a", "b", "é") if key in model}
            if fail:
                raise DiscardError

        if fail:
            Store.job = job
            error = self._run(failure(self.machine.send("STORE", "a", "work")))
            assert getattr(error, "cause", "") == "DiscardError", error.detail
        else:
            self._turn(job)
            self.model = model

    @rule()
    def kill(self) -> None:
        """What was acknowledged survives SIGKILL."""
        self._run(self._crash())

    async def _crash(self) -> None:
        self.machine.crash()

    @rule()
    def restart(self) -> None:
        self._run(self.machine.restart())

    @rule()
    def evict(self) -> None:
        instance = self.machine.engine.find_instance("STORE", b"a")
        if instance is not None:
            self.machine.engine.housekeeping.evict(instance)

    @rule(key=KEYS)
    @precondition(lambda self: self.model)
    def read(self, key: str) -> None:
        async def job(actor: Actor) -> None:
            assert await actor.ctx.storage.get(key, "absent") == self.model.get(key, "absent")

        self._turn(job)

    @invariant()
    def holds_what_was_committed(self) -> None:
        async def job(actor: Actor) -> None:
            assert list((await actor.ctx.storage.list()).items()) == ordered(self.model)

        self._turn(job)

    def teardown(self) -> None:
        self._run(self.machine.stop())
        asyncio.set_event_loop(None)
        self.machine.loop.close()
        self.folder.cleanup()


StorageMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=15)
TestStorageProperties = StorageMachine.TestCase
