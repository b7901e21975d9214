"""A real engine on a real RocksDB and the production loop; a test holds the clocks and the syncs in its hands."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from kubeactor import Actor, ActorError, Env, codec
from kubeactor.actor import ActorType
from kubeactor.application import Application, upper_snake
from kubeactor.call import CLIENT, CODEC, JSON, LOCAL, SESSION, Call, CallId
from kubeactor.clock import Clock
from kubeactor.engine.engine import Engine
from kubeactor.engine.loop import EngineLoop, Page, new_event_loop
from kubeactor.engine.store import Store, StoreError, WriteBatch, WriteStallError
from kubeactor.engine.sync_policy import SyncPolicy
from kubeactor.engine.volume import Volume
from kubeactor.ids import identity_of_name, shard_of

NAMESPACE = "uid-1"
LIMIT_S = 60.0
NOON_US = 1_800_014_400_000_000  # a noon in UTC, so that an hour's step stays within the day
T = TypeVar("T")


class VirtualClock(Clock):
    """Wall time stands still until a test moves it; monotonic time runs, and can be moved on."""

    def __init__(self) -> None:
        self.wall_us = NOON_US
        self.skipped_s = 0.0

    def now_us(self) -> int:
        return self.wall_us

    def monotonic(self) -> float:
        return time.monotonic() + self.skipped_s

    def advance(self, seconds: float) -> None:
        """Let both clocks go on."""
        self.wall_us += round(seconds * 1e6)
        self.skipped_s += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock, as an operator does."""
        self.wall_us += round(seconds * 1e6)


class TestStore(Store):
    """A store whose syncs can be held back and whose writes can fail or stall."""

    __test__ = False

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.syncing = threading.Event()
        self.fail_sync = self.fail_write = ""
        self.stalls = 0
        self.writes = self.syncs = 0
        self.durable = 0  # of the writes, so many were made before the last good sync began
        self.image: Path | None = None  # where a copy of what a sync makes durable is kept
        self.imaging = threading.Lock()
        self.closed = False
        self._go = threading.Event()
        self._go.set()

    def close(self) -> None:
        self.closed = True
        super().close()

    def hold(self) -> None:
        """Let no sync end from now on."""
        self.syncing.clear()
        self._go.clear()

    def let_go(self) -> None:
        """Let syncs end again."""
        self._go.set()

    def write(self, batch: WriteBatch) -> None:
        if self.fail_write:
            raise StoreError(self.fail_write)
        if self.stalls:
            self.stalls -= 1
            raise WriteStallError("Result incomplete: Write stall")
        self.writes += 1
        super().write(batch)

    def sync(self) -> None:
        self.syncing.set()
        assert self._go.wait(LIMIT_S), "a sync was held back for too long"
        if self.fail_sync:
            raise StoreError(self.fail_sync)
        written = self.writes
        if self.image is not None:
            with self.imaging:
                _copy(self.path, self.image)
        super().sync()
        self.durable = written
        self.syncs += 1


class Pauses:
    """Where methods under test wait until the test lets them go on."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._arrived: dict[str, asyncio.Event] = {}
        self._go: dict[str, asyncio.Event] = {}
        self.log: list[Any] = []

    def _event(self, events: dict[str, asyncio.Event], name: str) -> asyncio.Event:
        return events.setdefault(name, asyncio.Event())

    async def here(self, name: str) -> None:
        """In a method: tell that it is here, and wait."""
        self._event(self._arrived, name).set()
        await self._event(self._go, name).wait()

    async def arrived(self, name: str) -> None:
        await self._event(self._arrived, name).wait()

    def go(self, name: str) -> None:
        self._event(self._go, name).set()


pauses = Pauses()


class ThreadAlways(SyncPolicy):
    """As on a disk that is always slow."""

    def wants_thread(self) -> bool:
        return True


class Machine:
    """One host: folder, store, engine; it can crash and start again.

    Attributes:
        failures: what the engine told its worker to end for.
        prepare: called with each new engine before it begins to serve.
        background: whether a new engine runs alarms and messages at once.
    """

    engine_class: type[Engine] = Engine

    def __init__(
        self,
        folder: Path,
        *classes: type[Actor],
        shards: int = 16,
        env_class: type[Env] = Env,
        page: Page | None = None,
        owned: Callable[[int], bool] = lambda shard: True,
        host: str = "host-0",
        loop: EngineLoop | None = None,
        **options: Any,
    ) -> None:
        bindings = {upper_snake(cls.__name__): ActorType(upper_snake(cls.__name__), cls) for cls in classes}
        self.application = Application(bindings, env_class)
        self.loop = loop or new_event_loop()
        self.clock = VirtualClock()
        self.failures: list[str] = []
        self.prepare: Callable[[Engine], None] = lambda engine: None
        self.background = True
        self.shards = shards
        self._folder = folder
        self._host = host
        self._page = page
        self._owned = owned
        self._options = {"detail": True, **options}
        self._crashes = 0
        self._ids = 0
        self._dead: list[Store] = []

    # --- life

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Start, run the test's coroutine, close."""

        async def limited() -> T:
            async with asyncio.timeout(LIMIT_S):
                self.start()
                try:
                    return await main
                finally:
                    await self.stop()

        asyncio.set_event_loop(self.loop)
        try:
            return self.loop.run_until_complete(limited())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    def start(self) -> None:
        """Open the folder and serve."""
        self.store = TestStore(self._folder / f"db{self._crashes}")
        self.volume = Volume(self.store, namespace=NAMESPACE, host=self._host, shards=self.shards)
        self.engine = self.engine_class(
            self.application,
            self.store,
            self.volume,
            self.loop,
            clock=self.clock,
            page=self._page,
            failed=self.failures.append,
            **self._options,
        )
        self.engine.grant([(shard, 1) for shard in range(self.shards) if self._owned(shard)])
        self.prepare(self.engine)
        self.env: Any = self.application.make_env(lambda: self.engine.dispatcher, {})
        self.engine.start(self.env, background=self.background)

    async def stop(self) -> None:
        """Close as a worker does at SIGTERM."""
        self.store.let_go()
        if not self.store.closed:
            await self.engine.close(0)
        for store in self._dead:
            store.close()
        self._dead.clear()

    async def restart(self) -> None:
        """Close and open again."""
        await self.stop()
        self.start()

    def crash(self, *, power: bool = False) -> None:
        """What SIGKILL leaves: the files as they are; the process's memory is gone. Then start again.

        Args:
            power: leave what was synced only, as when the machine's power goes; the store must have kept an image.
        """
        left = self.store.image if power else self.store.path
        assert left is not None
        self._crashes += 1
        with self.store.imaging:
            _copy(left, self._folder / f"db{self._crashes}")
        self._kill()
        self.start()

    def _kill(self) -> None:
        engine = self.engine
        if engine.failure is None:
            engine.fail("killed by the test")
            self.failures.remove("killed by the test")
        self.store.let_go()
        for turn in list(engine.suspended):
            assert turn.task is not None
            turn.live = False
            turn.expired = True
            turn.task.cancel()
        self._dead.append(self.store)

    def sync_in_thread(self) -> None:
        """Sync as on a slow disk, so that the loop goes on while a sync is held back."""
        self.engine.gate._policy = ThreadAlways()

    # --- calls

    def make(
        self,
        binding: str,
        name: str,
        method: str,
        *args: Any,
        id: CallId | None = None,
        key: str | None = None,
        format: int = JSON,
        timeout_s: float = LIMIT_S,
        **fields: Any,
    ) -> tuple[Call, asyncio.Future[Any]]:
        """A call and the future of its result."""
        future: asyncio.Future[Any] = self.loop.create_future()
        body = json.dumps(args).encode() if format == JSON else codec.encode((args, fields.pop("kwargs", {})))
        identity = identity_of_name(name)
        self._ids += 1
        fresh = CallId(LOCAL, self._ids.to_bytes(16, "big")) if key is None else CallId(CLIENT, key.encode())
        call = Call(
            binding,
            identity,
            method,
            body,
            shard=shard_of(identity, self.shards),
            deadline=self.clock.monotonic() + timeout_s,
            reply=lambda outcome: _settle(future, outcome, format),
            format=format,
            id=id or fresh,
            **fields,
        )
        if not call.root:
            call.root = call.token()
        return call, future

    def send(self, binding: str, name: str, method: str, *args: Any, **fields: Any) -> asyncio.Future[Any]:
        """Submit a call; the future of its result."""
        call, future = self.make(binding, name, method, *args, **fields)
        self.engine.submit(call)
        return future

    async def call(self, binding: str, name: str, method: str, *args: Any, **fields: Any) -> Any:
        """Submit a call and wait for its result."""
        return await self.send(binding, name, method, *args, **fields)

    async def error(self, binding: str, name: str, method: str, *args: Any, **fields: Any) -> ActorError:
        """Submit a call that must fail; its error."""
        return await failure(self.send(binding, name, method, *args, **fields))

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until it holds, looking at each tick of the loop."""
        while not condition():
            await asyncio.sleep(0.001)

    async def syncing(self) -> None:
        """Wait until a sync is under way."""
        await self.until(self.store.syncing.is_set)


def _copy(folder: Path, copy: Path) -> None:
    """Copy a store's files as of one moment, though compactions go on in the background."""
    while True:
        shutil.rmtree(copy, ignore_errors=True)
        try:
            before = _files(folder)
            shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("LOCK"))
            if _files(folder) == before:
                return
        except (shutil.Error, FileNotFoundError):
            pass  # one of the files went away meanwhile


def _files(folder: Path) -> dict[str, int]:
    with os.scandir(folder) as found:
        return {entry.name: entry.stat().st_size for entry in found if not entry.name.startswith("LOG")}


def _settle(future: asyncio.Future[Any], outcome: bytes | ActorError, format: int) -> None:
    assert not future.done() or future.cancelled(), "a call was replied to twice"
    if future.cancelled():
        return  # the test has failed already
    if isinstance(outcome, ActorError):
        future.set_exception(outcome)
        future.exception()  # a test may look at some of many outcomes only
    elif format == CODEC:
        future.set_result(codec.decode(outcome))
    else:
        future.set_result(json.loads(outcome))


async def failure(future: Awaitable[Any]) -> ActorError:
    """The error of a call that must fail."""
    try:
        result = await future
    except ActorError as error:
        return error
    raise AssertionError(f"it succeeded with {result!r}")


def session_id(slot: int, count: int, session: bytes = b"session1") -> CallId:
    """The id that an ingress gives to a call."""
    return CallId(SESSION, session, slot, count)


def on_engine(*classes: type[Actor], **options: Any) -> Callable[[Callable[[Machine], Any]], Callable[[Path], None]]:
    """Run an async test with a machine that serves the classes."""

    def decorate(test: Callable[[Machine], Any]) -> Callable[[Path], None]:
        assert inspect.iscoroutinefunction(test)

        def run(tmp_path: Path) -> None:
            pauses.reset()
            machine = Machine(tmp_path, *classes, **options)
            machine.run(test(machine))

        run.__name__ = test.__name__
        run.__doc__ = test.__doc__
        run.__module__ = test.__module__
        return run

    return decorate
