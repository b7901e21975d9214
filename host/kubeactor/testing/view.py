"""A test's own look into the storage of an instance: each use is a turn of it, by the engine's ordinary way."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from kubeactor.engine.instance import Instance
from kubeactor.engine.system import SystemCall
from kubeactor.engine.turn import Turn
from kubeactor.errors import ActorError
from kubeactor.key import Key
from kubeactor.storage import Storage

if TYPE_CHECKING:
    from kubeactor.engine.engine import Engine

__all__ = ["StorageView"]

T = TypeVar("T")
D = TypeVar("D")
BUDGET_S: Final = 30.0


class _Look(SystemCall):
    """The turn of one use."""

    __slots__ = ("_engine", "future")

    def __init__(self, engine: Engine, instance: Instance) -> None:
        deadline = engine.clock.monotonic() + BUDGET_S
        super().__init__(instance, "storage", number=0, deadline=deadline, timeout_s=BUDGET_S)
        self.id = None  # nobody repeats it
        self.target = instance
        self._engine = engine
        self.future: asyncio.Future[None] = engine.loop.create_future()

    def committed(self, turn: Turn) -> None:
        """What was written is on disk before the test goes on; the object is made anew, as its fields may be stale."""
        if turn.wrote:
            turn.instance.actor = None
        self._engine.gate.after(turn.instance.batch, lambda: self.future.set_result(None))

    def failed(self, error: ActorError) -> None:
        """It was refused."""
        self.future.set_exception(error)


class StorageView:
    """Reads and writes the storage of one instance from a test, typed as `self.ctx.storage`.

    It waits until no turn of the instance runs. A write is on disk when it returns, and drops the actor's object, so
    that `activate` runs again before the next call; reading does not bring the instance to life.
    """

    def __init__(self, find: Callable[[], Awaitable[tuple[Engine, Instance]]]) -> None:
        self._find = find

    async def _turn(self, use: Callable[[Storage], Awaitable[T]]) -> T:
        engine, instance = await self._find()
        storage = Storage(instance)
        found: builtins.list[T] = []

        async def run() -> None:
            found.append(await use(storage))

        look = _Look(engine, instance)
        engine.run(instance, Turn(engine, instance, look, None, look.deadline), run())
        await look.future
        return found[0]

    @overload
    async def get(self, key: Key[T], /) -> T: ...
    @overload
    async def get(self, key: str, default: None = None, /) -> Any: ...
    @overload
    async def get(self, key: str, default: D, /) -> D: ...
    @overload
    async def get(self, keys: builtins.list[str], /) -> dict[str, Any]: ...
    async def get(self, key: Any, default: Any = None, /) -> Any:
        """As `Storage.get`."""
        return await self._turn(lambda storage: storage.get(key, default))

    async def list(self, **range: Any) -> dict[str, Any]:
        """As `Storage.list`, with the same arguments."""
        return await self._turn(lambda storage: storage.list(**range))

    @overload
    async def put(self, key: Key[T], value: T, /) -> None: ...
    @overload
    async def put(self, key: str, value: object, /) -> None: ...
    @overload
    async def put(self, values: Mapping[str, object], /) -> None: ...
    async def put(self, *arguments: Any) -> None:
        """As `Storage.put`."""
        await self._turn(lambda storage: storage.put(*arguments))

    @overload
    async def delete(self, key: str | Key[Any], /) -> bool: ...
    @overload
    async def delete(self, keys: builtins.list[str], /) -> int: ...
    async def delete(self, key: Any, /) -> Any:
        """As `Storage.delete`."""
        return await self._turn(lambda storage: storage.delete(key))

    async def delete_all(self, *, keep_alarm: bool = False) -> None:
        """As `Storage.delete_all`."""
        await self._turn(lambda storage: storage.delete_all(keep_alarm=keep_alarm))

    async def get_alarm(self) -> datetime | None:
        """When the alarm runs next, in UTC; None if there is none."""
        return await self._turn(lambda storage: storage.get_alarm())

    async def set_alarm(self, when: datetime | timedelta, /) -> None:
        """As `Storage.set_alarm`."""
        await self._turn(lambda storage: storage.set_alarm(when))

    async def delete_alarm(self) -> None:
        """As `Storage.delete_alarm`."""
        await self._turn(lambda storage: storage.delete_alarm())
