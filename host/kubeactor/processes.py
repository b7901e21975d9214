"""What the worker processes run: an embedded worker (ingress and engine in one loop), a host, an ingress.

Each is a worker's main for the supervisor: it gets its context, builds its parts on a loop of its own, tells that it
is ready, and serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry

from kubeactor.application import Application, UserCodeError
from kubeactor.call import Dispatcher
from kubeactor.connection import ConnectionLost
from kubeactor.engine.cycles import Probe
from kubeactor.engine.engine import Engine
from kubeactor.engine.loop import new_event_loop
from kubeactor.engine.store import Store, StoreError
from kubeactor.engine.volume import Volume, VolumeMismatchError
from kubeactor.engine.watched import WatchedEngine
from kubeactor.env import Env
from kubeactor.host import HostServer, place
from kubeactor.ingress.app import make_app
from kubeactor.ingress.server import serve
from kubeactor.ingress.state import Ingress, Route
from kubeactor.metrics import make_registry
from kubeactor.namespace import Namespace
from kubeactor.parked import Item, Keeper, Keepers, Retry
from kubeactor.placement import PlacementError, Table, adopted, plan
from kubeactor.placement_file import Placement, PlacementWatcher, load, save
from kubeactor.router import Router
from kubeactor.standby import Standby
from kubeactor.terminal import standard_lines
from kubeactor.wire import HOST
from kubeactor.worker import WorkerContext, WorkerFatalError

__all__ = ["application_of", "embedded_main", "host_main", "ingress_main"]

TICK_S: Final = 0.5
SWITCH_S: Final = 0.0005
REOPEN_S: Final = 0.25
LIFESPAN_S: Final = 30.0
GRACE_S: Final = 1.0
TELL_S: Final = 0.25
DATABASE: Final = "db"

T = TypeVar("T")

log = logging.getLogger("kubeactor.process")


def embedded_main(
    context: WorkerContext,
    *,
    folder: str,
    actors: list[str],
    front_door: str | None,
    options: dict[str, Any],
) -> int:
    """Ingress and engine in one loop: a call goes from the HTTP protocol to the turn without a socket in between."""
    application = _load(actors, front_door)
    namespace = Namespace(Path(folder))

    async def run(stop: asyncio.Event) -> None:
        behind = _Behind(namespace.shards)

        async def begin(env: Env) -> Engine:
            engine = await _opened(behind, lambda: _open_engine(context, application, namespace, "host-0", options))
            _own_all(engine, namespace)
            behind.stand(engine, None)
            engine.start(env)
            return engine

        try:
            await _serve_http(context, application, behind, stop, begin=begin, options=options)
        finally:
            await behind.close(0.0)

    return _run(context, run)


def host_main(
    context: WorkerContext,
    *,
    folder: str,
    host: str,
    actors: list[str],
    front_door: str | None,
    options: dict[str, Any],
) -> int:
    """An engine that listens for frames; its actors call other hosts by the placement table.

    A second socket, if there is one, serves `/healthz`, `/readyz` and `/metrics`.
    """
    application = _load(actors, front_door)
    namespace = Namespace(Path(folder))

    async def run(stop: asyncio.Event) -> None:
        behind = _Behind(namespace.shards)
        frames, *health = context.sockets
        telling = asyncio.create_task(_serve_health(context, behind, health, stop))
        try:
            await _serve_frames(context, application, namespace, behind, frames, stop, host=host, options=options)
        finally:
            stop.set()
            await telling

    return _run(context, run)


async def _serve_frames(
    context: WorkerContext,
    application: Application,
    namespace: Namespace,
    behind: _Behind,
    frames: socket.socket,
    stop: asyncio.Event,
    *,
    host: str,
    options: dict[str, Any],
) -> None:
    opening = _opened(behind, lambda: _open_engine(context, application, namespace, host, options))
    engine = await _unless(stop, opening)
    if engine is None:
        return
    stored = load(namespace.placement) if namespace.placement.exists() else None
    router = Router(
        *(stored or (Table.empty(namespace.uid, namespace.shards), {})), local=engine, local_host=host, role=HOST
    )
    engine.dispatcher = router
    engine.send_probe = lambda shard, probe: router.probe(shard, probe.encode(), lambda answer: None)
    behind.stand(engine, router)
    server = HostServer(_HostEngine(engine), [frames])
    try:
        async with _entered(application, lambda: router) as env:
            engine.start(env)
            await server.start()
            behind.watch(namespace)
            context.ready()
            await stop.wait()
    finally:
        await behind.close(float(options.get("grace_s", GRACE_S)))
        await server.close()


async def _serve_health(
    context: WorkerContext, behind: _Behind, sockets: Sequence[socket.socket], stop: asyncio.Event
) -> None:
    if sockets:
        ingress = Ingress(behind.standby, bindings=())
        app = make_app(ingress, ready=behind.trouble, note=lambda: _note(context), metrics=_registry(context, behind))
        await serve(sockets, app, ingress, stop=stop)


def ingress_main(
    context: WorkerContext,
    *,
    folder: str,
    actors: list[str],
    front_door: str | None,
    hosts: dict[str, str] | None,
    options: dict[str, Any],
) -> int:
    """An ingress by the placement table of a file; with `hosts` it first places the shards on them."""
    application = _load(actors, front_door)
    namespace = Namespace(Path(folder))

    async def run(stop: asyncio.Event) -> None:
        behind = _Behind(namespace.shards)

        async def begin(env: Env) -> Router:
            router = Router(*await _placed(behind, namespace, hosts or {}))
            behind.stand(None, router)
            behind.watch(namespace)
            return router

        try:
            await _serve_http(context, application, behind, stop, begin=begin, options=options)
        finally:
            await behind.close(0.0)

    return _run(context, run)


class _Behind:
    """What stands behind the HTTP side of a process: nobody at first, then an engine, a router, or a host's both."""

    def __init__(self, shards: int) -> None:
        self.standby = Standby(asyncio.get_running_loop(), shards)
        self.engine: Engine | None = None
        self.router: Router | None = None
        self._watching: asyncio.Task[None] | None = None
        self._drained = False

    def stand(self, engine: Engine | None, router: Router | None) -> None:
        """They are there."""
        self.engine, self.router = engine, router

    def watch(self, namespace: Namespace) -> None:
        """Let the router follow the placement file."""
        router = self.router
        assert router is not None
        watcher = PlacementWatcher(namespace.placement, lambda found: router.update(*found))
        self._watching = asyncio.create_task(watcher.run())

    def trouble(self) -> str | None:
        """Why the process can't serve, or None.

        Hosts that a router can't reach are no reason: their calls are parked, and those of all others go on.
        """
        if self.engine is not None:
            return self.engine.ready()
        return self.standby.reason if self.router is None else None

    def keepers(self) -> Keepers | None:
        """Who knows what is parked."""
        if self.router is not None:
            return self.router
        return None if self.engine is None else _Embedded(self.engine)

    def unreachable(self) -> str:
        """A line for each host that can't be reached."""
        found = self.router.trouble() if self.router is not None else {}
        return "".join(f"{host} can't be reached: {why}\n" for host, why in found.items())

    async def drain(self, grace_s: float) -> None:
        """Let running turns end within the grace, close the engine."""
        if self.engine is not None and not self._drained:
            self._drained = True
            await self.engine.close(grace_s)

    async def close(self, grace_s: float) -> None:
        """Close all; turns may end within the grace."""
        if self._watching is not None:
            self._watching.cancel()
        await self.drain(grace_s)
        if self.router is not None:
            await self.router.close()


async def _opened(behind: _Behind, open_engine: Callable[[], Engine]) -> Engine:
    """The engine, as soon as the volume can be opened; a failing disk may heal, a dying process lets go of the lock."""
    while True:
        try:
            return open_engine()
        except StoreError as error:
            if str(error) != behind.standby.reason:
                log.error("%s; trying again", error)
            behind.standby.reason = str(error)
            await asyncio.sleep(REOPEN_S)


async def _placed(behind: _Behind, namespace: Namespace, hosts: Mapping[str, str]) -> Placement:
    """The placement, once there is one: made here if there are hosts to ask, else by somebody else.

    Raises:
        WorkerFatalError: when the hosts contradict the table that there is.
    """
    while True:
        try:
            if hosts:
                behind.standby.reason = f"waiting for {', '.join(hosts)} to tell what they hold"
                await place(hosts, namespace.placement, namespace.shards, namespace.uid)
            elif not namespace.placement.exists():
                behind.standby.reason = f"there is no placement table in {namespace.folder} yet"
                await asyncio.sleep(REOPEN_S)
                continue
            return load(namespace.placement)
        except (TimeoutError, ConnectionLost) as error:
            log.warning("the shards are not placed yet: %s", str(error) or "not all hosts answer; trying again")
        except PlacementError as error:
            raise WorkerFatalError(str(error)) from error


class _Embedded:
    """What is parked here, where there is only this host."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_parked(self) -> list[Item]:
        return self._engine.parked.items()

    async def retry_parked(self, retry: Retry) -> bool:
        return self._engine.parked.retry(retry)


class _HostEngine:
    """The engine as a host server sees it: probes are frames of bytes there."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.submit = engine.submit
        self.inventory = engine.inventory
        self.shards = engine.shards
        self.namespace_uid = engine.namespace_uid
        self.host_id = engine.host_id
        self.volume_id = engine.volume_id
        self.parked: Keeper = engine.parked

    def grant(self, shards: Sequence[tuple[int, int]]) -> None:
        self._engine.grant(list(shards))

    def probe(self, shard: int, body: bytes, reply: Callable[[bytes | Any], None]) -> None:
        self._engine.cycles.receive(Probe.decode(body))
        reply(b"")


# --- parts


@functools.cache
def application_of(actors: tuple[str, ...], front_door: str | None) -> Application:
    """The user's code, loaded once: a supervisor loads it before it forks, so that a restart need not.

    Raises:
        UserCodeError: when it can't be served.
    """
    return Application.load(actors, front_door)


def _load(actors: list[str], front_door: str | None) -> Application:
    try:
        return application_of(tuple(actors), front_door)
    except UserCodeError as error:
        raise WorkerFatalError(str(error)) from error


def _open_engine(
    context: WorkerContext, application: Application, namespace: Namespace, host: str, options: dict[str, Any]
) -> Engine:
    """Open a host's volume and the engine on it.

    Raises:
        WorkerFatalError: when the volume is not the one that the table knows, or is someone else's.
    """
    path = namespace.data(host) / DATABASE
    recorded = (namespace.table() or Table.empty(namespace.uid, namespace.shards)).volumes.get(host)
    if recorded and not (path / "CURRENT").exists():
        raise WorkerFatalError(
            f"VolumeLost: {path} is empty, but the placement table says that {host} holds shards there;"
            " restore the folder from a backup, or start with another data folder"
        )
    try:
        store = Store(path)
        volume = Volume(store, namespace=namespace.uid, host=host, shards=namespace.shards)
    except VolumeMismatchError as error:
        raise WorkerFatalError(str(error)) from error
    if recorded and volume.row.volume != recorded:
        raise WorkerFatalError(f"VolumeLost: {path} is volume {volume.row.volume}, the table says {recorded}")
    if options.get("declared_only") and not context.restarts:
        _refuse_undeclared(application, volume, namespace.folder)
    loop = asyncio.get_running_loop()
    engine = (WatchedEngine if "calls" in options else Engine)(
        application,
        store,
        volume,
        loop,  # type: ignore[arg-type]
        page=context.page,
        failed=context.fail,
        quarantined=context.quarantine.is_quarantined,
        detail=bool(options.get("detail")),
        idle_s=float(options.get("idle_s", 60.0)),
        method_timeout_s=float(options.get("method_timeout_s", 30.0)),
        alarm_timeout_s=float(options.get("alarm_timeout_s", 30.0)),
    )
    if isinstance(engine, WatchedEngine):
        engine.watcher = standard_lines(loop.call_later, options["calls"]["colours"])
    return engine


def _refuse_undeclared(application: Application, volume: Volume, folder: Path) -> None:
    stored = volume.bindings()
    if left := sorted(stored - application.bindings.keys()):
        raise WorkerFatalError(
            f"the data in {folder} has instances of {', '.join(left)}, which nothing is bound as any more:"
            f" name a class for it ({left[0]}=module:Class), or start with another --data"
        )


def _own_all(engine: Engine, namespace: Namespace) -> None:
    """With one host there is one owner: bring the table up to the volume, grant what nobody ever owned."""
    try:
        stored = load(namespace.placement) if namespace.placement.exists() else None
        volumes = {engine.host_id: engine.volume_id}
        known = stored.table if stored else Table.empty(namespace.uid, namespace.shards)
        known = adopted(known, volumes, {engine.host_id: engine.inventory()}, recorded=stored is not None)
        if stored != (known, {}):  # a restart changes nothing, and need not wait for the disk
            save(namespace.placement, known, {})
        granted = plan(known, volumes).grants.get(engine.host_id, ())
        engine.grant(list(granted))
        if granted:
            save(namespace.placement, known.assigned((shard, engine.host_id, epoch) for shard, epoch in granted), {})
    except (PlacementError, OSError, ValueError) as error:
        raise WorkerFatalError(str(error)) from error


@contextlib.asynccontextmanager
async def _entered(application: Application, dispatcher: Callable[[], Dispatcher]) -> AsyncIterator[Env]:
    """The Env, its lifespan entered."""
    try:
        env = application.make_env(dispatcher)
    except UserCodeError as error:
        raise WorkerFatalError(str(error)) from error
    name = type(env).__qualname__
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(LIFESPAN_S) as limit:
                await stack.enter_async_context(env.lifespan())
        except Exception as error:
            if limit.expired():
                raise WorkerFatalError(f"{name}.lifespan did not get to its yield within {LIFESPAN_S:.0f} s") from error
            raise RuntimeError(f"{name}.lifespan failed: {type(error).__name__}: {error}") from error
        yield env


async def _serve_http(
    context: WorkerContext,
    application: Application,
    behind: _Behind,
    stop: asyncio.Event,
    *,
    options: dict[str, Any],
    begin: Callable[[Env], Awaitable[Route]],
) -> None:
    """Serve at once; calls wait until `begin` has made what answers them."""
    standby = behind.standby
    async with _entered(application, lambda: standby) as env:
        ingress = Ingress(standby, application.bindings, dev=bool(options.get("detail")))
        app = make_app(
            ingress,
            front_door=application.front_door,
            env=env,
            ready=behind.trouble,
            note=lambda: _note(context) + behind.unreachable(),
            keepers=behind.keepers,
            metrics=_registry(context, behind, ingress),
        )

        async def start() -> None:
            ingress.dispatcher = await begin(env)
            standby.serve(ingress.dispatcher)

        async def starting() -> None:
            try:
                await _unless(stop, start())
            except BaseException:
                stop.set()
                raise

        left = asyncio.Event()

        async def ending() -> None:
            await left.wait()
            await behind.drain(grace_s)

        grace_s = float(options.get("grace_s", GRACE_S))
        tasks = [asyncio.create_task(starting()), asyncio.create_task(ending())]
        try:
            await serve(
                context.sockets,
                app,
                ingress,
                stop=stop,
                started=context.ready,
                stopping=left.set,
                grace_s=grace_s + TELL_S,  # what ends in the last moment of its grace still has to be told
            )
        finally:
            stop.set()
            left.set()
            await asyncio.gather(*tasks)


async def _unless(stop: asyncio.Event, main: Coroutine[Any, Any, T]) -> T | None:
    """What the coroutine returns; None when the process is to stop before it does."""
    task = asyncio.ensure_future(main)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        stopping.cancel()
        task.cancel()


def _note(context: WorkerContext) -> str:
    return f"worker restarted {context.restarts} times, last: {context.last_death}\n" if context.restarts else ""


def _registry(context: WorkerContext, behind: _Behind, ingress: Ingress | None = None) -> CollectorRegistry:
    return make_registry(
        engine=[_Later(lambda: behind.engine and behind.engine.stats)],
        router=[_Later(lambda: behind.router and behind.router.stats), _Later(lambda: behind.router)],
        worker=[_Restarts(context)],
        ingress=ingress.stats if ingress else None,
    )


class _Later:
    """The counters of a part, once it is there."""

    def __init__(self, part: Callable[[], object]) -> None:
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part(), name, None)


class _Restarts:
    """What the supervisor knows of this worker and those before it."""

    def __init__(self, context: WorkerContext) -> None:
        self._quarantine = context.quarantine
        self.restarts = context.restarts
        self.last_death = {context.last_death: 1} if context.last_death else {}

    @property
    def quarantined(self) -> int:
        """Instances that killed their worker three times."""
        return len(self._quarantine.entries())


# --- the process


def _run(context: WorkerContext, main: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(context.supervisor_gone, context.leave_orphaned)
    _collect_seldom()
    # The sync thread needs the GIL back after each sync: do not let it wait for Python's 5 ms.
    sys.setswitchinterval(SWITCH_S)

    def tick() -> None:
        context.page.tick()
        context.quarantine.refresh()
        loop.call_later(TICK_S, tick)

    def uncaught(loop: asyncio.AbstractEventLoop, details: dict[str, Any]) -> None:
        if isinstance(error := details.get("exception"), StoreError):
            context.fail(str(error))  # a disk that can't be read, met where nobody could go on
        loop.default_exception_handler(details)

    tick()
    loop.set_exception_handler(uncaught)
    try:
        loop.run_until_complete(main(stop))
    except (StoreError, OSError) as error:
        log.error("the worker ends: %s", error)
        context.fail(str(error))
    finally:
        loop.close()
    return 0


def _collect_seldom() -> None:
    """Few cycles arise on the path of a call: collect the young generation less often than Python's 700."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
