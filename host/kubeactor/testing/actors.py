"""`Actors`: what a test has in its hands."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, cast

from kubeactor.application import Application, UserCodeError
from kubeactor.env import Env
from kubeactor.ingress.app import make_app
from kubeactor.ingress.state import Ingress
from kubeactor.storage import from_us
from kubeactor.stub import id_of
from kubeactor.testing.background import Watch
from kubeactor.testing.clock import VirtualClock
from kubeactor.testing.gateway import Gateway
from kubeactor.testing.history import History
from kubeactor.testing.lifespan import entered
from kubeactor.testing.loop import stepping_loop
from kubeactor.testing.machine import SHARDS, Machine
from kubeactor.testing.served import application_with
from kubeactor.testing.view import StorageView

if TYPE_CHECKING:
    import httpx

__all__ = ["Actors", "run"]

E = TypeVar("E", bound=Env)
LIFESPAN_S: Final = 30.0
LONGEST: Final = timedelta(days=366 * 100)


def run(env: type[E], *, front_door: Any = None, **values: Any) -> Actors[E]:
    """Serve what an Env declares on a fresh RocksDB: `async with testing.run(Bank, FEE=2) as actors:`.

    Args:
        env: the class with the bindings.
        front_door: an ASGI app, or an `async def fetch(request, env)`.
        values: in the place of what the Env declares: an actor class for a binding, a value for a configuration, any
            object for a client that `lifespan` opens.

    Raises:
        UserCodeError: when that can't be served; one sentence that says what to change.
    """
    return Actors(application_with(env, front_door, values))


class Actors(Generic[E]):
    """One host and its ingress for one test: the real engine on a RocksDB of its own, on a clock that stands still.

    As an async context manager it serves from the block's begin to its end, where it raises `BackgroundError` when
    something failed that no caller heard of.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._clock = VirtualClock()
        self._gateway = Gateway(SHARDS, self._clock)
        self._env = cast("E", application.make_env(lambda: self._gateway))
        self._watch = Watch()
        self._machine: Machine | None = None
        self._http: httpx.AsyncClient | None = None
        self._app: Any = None
        self._state: dict[str, Any] = {}
        self._stack = AsyncExitStack()

    # --- what it serves

    @property
    def env(self) -> E:
        """The Env that actors and front door have: `actors.env.ACCOUNT.id_from_name("alice")`."""
        return self._env

    @property
    def http(self) -> httpx.AsyncClient:
        """A client of the front door and of `/v1`, in this process."""
        self._serving()
        if self._http is None:
            self._http = self._client()
        return self._http

    def _client(self) -> httpx.AsyncClient:
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("actors.http needs httpx: pip install 'kubeactor[test]'") from error

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self._app({**scope, "state": dict(self._state)}, receive, send)

        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://actors")

    @property
    def history(self) -> History:
        """The calls so far and what came back; `history.check(stub, Model)` looks for one order that explains them."""
        return self._serving().history

    @property
    def errors(self) -> list[str]:
        """What failed in the background; a test that wants it to fail clears the list."""
        return self._watch.errors

    @property
    def crashes(self) -> int:
        """How often the host lost power."""
        return self._serving().crashes

    def storage(self, stub: object) -> StorageView:
        """The storage of an instance, to read and to write."""
        wanted = id_of(stub)
        return StorageView(lambda: self._serving().idle(wanted))

    # --- time

    def now(self) -> datetime:
        """The virtual time, aware UTC: what `ctx.now()` gives in a turn that begins now."""
        return from_us(self._clock.now_us())

    async def advance(
        self, by: timedelta = timedelta(0), *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Let time pass: each alarm that is due runs at its time, those that it sets too. Then idle instances go.

        Raises:
            TypeError: for a number without its unit.
            ValueError: when time would go backwards, or on by more than a hundred years.
            BackgroundError: when more than 10,000 alarms are due, or one takes a minute of real time.
        """
        if not isinstance(by, timedelta):
            raise TypeError(f"advance takes a timedelta or named units: write advance(seconds={by!r})")
        by += timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if not timedelta(0) <= by <= LONGEST:
            raise ValueError(f"time goes forward, by a hundred years at most: advance(minutes=5), not {by}")
        await self._serving().advance(by // timedelta(microseconds=1))

    async def settle(self) -> None:
        """Wait until all messages have arrived; time goes on as long as one waits for its next try.

        Raises:
            BackgroundError: when one is parked.
        """
        await self._serving().settle()

    # --- failures

    async def crash(self) -> None:
        """Lose power and start again on what was synced. Calls under way wait, and are applied once."""
        self._serving().crash()

    def crash_after(self, *, writes: int) -> None:
        """Lose power right after so many more batches, before the last of them is synced; then as `crash`.

        Raises:
            ValueError: when it is not at least one.
        """
        if writes < 1:
            raise ValueError(f"crash_after(writes=1) is the next batch, {writes} is none")
        self._serving().crash_after(writes)

    async def restart(self) -> None:
        """Stop the host as an upgrade does, and start it again."""
        await self._serving().restart()

    async def evict(self, stub: object) -> None:
        """Drop an instance from memory, once none of its turns runs; the next call activates it anew."""
        engine, instance = await self._serving().idle(id_of(stub))
        engine.housekeeping.evict(instance)

    # --- life

    def _serving(self) -> Machine:
        if self._machine is None:
            raise RuntimeError(
                "actors serve inside of the test; an async fixture opens its own:"
                " `async with testing.run(Bank) as actors:`"
            )
        return self._machine

    async def __aenter__(self) -> Self:
        if self._machine is not None:
            raise RuntimeError("these actors are serving already: enter testing.run(...) once")
        async with self._stack as stack:
            await self._open(stack)
            self._stack = stack.pop_all()
        return self

    async def _open(self, stack: AsyncExitStack) -> None:
        loop = stack.enter_context(stepping_loop())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kubeactor-", ignore_cleanup_errors=True)))
        stack.enter_context(self._watch.watching(loop))
        machine = Machine(self._application, folder, loop, self._clock, self._gateway)
        try:
            async with asyncio.timeout(LIFESPAN_S):
                await stack.enter_async_context(self._env.lifespan())
        except TimeoutError as error:
            name = type(self._env).__qualname__
            raise UserCodeError(f"{name}.lifespan did not get to its yield within {LIFESPAN_S:.0f} s") from error
        machine.start(self._env)
        stack.push_async_callback(self._close, machine)
        ingress = Ingress(self._gateway, self._application.bindings, dev=True)
        door = self._application.front_door
        self._app = make_app(ingress, front_door=door, env=self._env, ready=lambda: machine.engine.ready())
        self._machine = machine
        if door is not None:
            self._state = await stack.enter_async_context(entered(self._app))

    async def _close(self, machine: Machine) -> None:
        if self._http is not None:
            await self._http.aclose()
        self._machine = None
        await machine.stop()
        self._gateway.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)
        self._watch.tell(error)
