"""What the worker processes run: an embedded worker (ingress and engine in one loop), a host, an ingress.

Each is a worker's main for the supervisor: it gets its context, builds its parts on a loop of its own, tells that it
is ready, and serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from kubeactor.application import Application, UserCodeError
from kubeactor.call import Dispatcher
from kubeactor.engine.cycles import Probe
from kubeactor.engine.engine import Engine
from kubeactor.engine.loop import new_event_loop
from kubeactor.engine.store import Store, StoreBusyError, StoreError
from kubeactor.engine.volume import Volume, VolumeMismatchError
from kubeactor.env import Env
from kubeactor.host import HostServer, place
from kubeactor.ingress.app import make_app
from kubeactor.ingress.server import serve
from kubeactor.ingress.state import Ingress, Route
from kubeactor.metrics import make_registry
from kubeactor.placement import PlacementError, Table, adopted, plan
from kubeactor.placement_file import Placement, PlacementWatcher, load, save
from kubeactor.router import Router
from kubeactor.standby import Standby
from kubeactor.wire import HOST
from kubeactor.worker import WorkerContext, WorkerFatalError

__all__ = ["Namespace", "embedded_main", "host_main", "ingress_main"]

TICK_S: Final = 0.5
SWITCH_S: Final = 0.0005
REOPEN_S: Final = 0.25
LIFESPAN_S: Final = 30.0
DATABASE: Final = "db"
PLACEMENT: Final = "placement.json"
NAMESPACE: Final = "namespace"

log = logging.getLogger("kubeactor.process")


class Namespace:
    """A local namespace: a folder with the placement table and a folder for each host.

    Attributes:
        uid: made once; every volume and every table carries it.
    """

    def __init__(self, folder: Path, shards: int) -> None:
        """Open or create it.

        Raises:
            WorkerFatalError: when the folder can't be used.
        """
        self.folder = folder
        self.placement = folder / PLACEMENT
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.uid, self.shards = self._identity(shards)
        except (OSError, PlacementError, ValueError) as error:
            raise WorkerFatalError(f"the data folder {folder} can't be used: {error}") from error

    def _identity(self, shards: int) -> tuple[str, int]:
        if self.placement.exists():
            table = load(self.placement).table
            return table.namespace, table.shards
        file = self.folder / NAMESPACE
        if not file.exists():
            temporary = self.folder / f".{NAMESPACE}.new"
            temporary.write_text(f"{secrets.token_hex(16)} {shards}\n")
            temporary.replace(file)
        uid, count = file.read_text().split()
        return uid, int(count)

    def data(self, host: str) -> Path:
        """The folder of a host."""
        return self.folder / host

    def table(self) -> Table | None:
        """The stored table, if there is one.

        Raises:
            PlacementError: when it is damaged.
        """
        return load(self.placement).table if self.placement.exists() else None


def embedded_main(
    context: WorkerContext,
    *,
    folder: str,
    actors: list[str],
    front_door: str | None,
    shards: int,
    options: dict[str, Any],
) -> int:
    """Ingress and engine in one loop: a call goes from the HTTP protocol to the turn without a socket in between."""
    application = _load(actors, front_door)
    namespace = Namespace(Path(folder), shards)

    async def run(stop: asyncio.Event) -> None:
        standby = Standby(asyncio.get_running_loop(), namespace.shards)
        opened: list[Engine] = []
        async with _entered(application, lambda: opened[0] if opened else standby) as env:

            async def begin(ingress: Ingress) -> None:
                engine = await _opened(
                    standby, lambda: _open_engine(context, application, namespace, "host-0", options)
                )
                _own_all(engine, namespace)
                opened.append(engine)
                ingress.dispatcher = engine
                engine.start(env)
                standby.serve(engine)

            try:
                await _serve_http(
                    context, application, standby, env, stop, begin=begin, engines=opened, options=options
                )
            finally:
                for engine in opened:
                    await engine.close(options.get("grace_s", 1.0))

    return _run(context, run)


def host_main(
    context: WorkerContext,
    *,
    folder: str,
    host: str,
    actors: list[str],
    front_door: str | None,
    shards: int,
    options: dict[str, Any],
) -> int:
    """An engine that listens for frames; its actors call other hosts by the placement table."""
    application = _load(actors, front_door)
    namespace = Namespace(Path(folder), shards)

    async def run(stop: asyncio.Event) -> None:
        engine = _open_engine(context, application, namespace, host, options)
        stored = load(namespace.placement) if namespace.placement.exists() else None
        table, addresses = stored or Placement(Table.empty(namespace.uid, namespace.shards), {})
        router = Router(table, addresses, local=engine, local_host=host, role=HOST)
        engine.dispatcher = router
        engine.send_probe = lambda shard, probe: router.probe(shard, probe.encode(), lambda answer: None)
        server = HostServer(_HostEngine(engine), context.sockets)
        async with _entered(application, lambda: router) as env:
            engine.start(env)
            await server.start()
            watching = asyncio.create_task(
                PlacementWatcher(namespace.placement, lambda found: router.update(*found)).run()
            )
            context.ready()
            try:
                await stop.wait()
            finally:
                watching.cancel()
                await engine.close(options.get("grace_s", 1.0))
                await server.close()
                await router.close()

    return _run(context, run)


def ingress_main(
    context: WorkerContext,
    *,
    folder: str,
    actors: list[str],
    front_door: str | None,
    shards: int,
    hosts: dict[str, str] | None,
    options: dict[str, Any],
) -> int:
    """An ingress by the placement table of a file; with `hosts` it first places the shards on them."""
    application = _load(actors, front_door)
    namespace = Namespace(Path(folder), shards)

    async def run(stop: asyncio.Event) -> None:
        if hosts:
            try:
                await place(hosts, namespace.placement, namespace.shards, namespace.uid)
            except PlacementError as error:
                raise WorkerFatalError(str(error)) from error
        table, addresses = load(namespace.placement)
        router = Router(table, addresses)
        watching = asyncio.create_task(PlacementWatcher(namespace.placement, lambda found: router.update(*found)).run())
        try:
            async with _entered(application, lambda: router) as env:
                await _serve_http(context, application, router, env, stop, router=router, options=options)
        finally:
            watching.cancel()
            await router.close()

    return _run(context, run)


async def _opened(standby: Standby, open_engine: Callable[[], Engine]) -> Engine:
    """The engine, as soon as the volume can be opened; a failing disk may heal."""
    while True:
        try:
            return open_engine()
        except StoreError as error:
            if str(error) != standby.reason:
                log.error("%s; trying again", error)
            standby.reason = str(error)
            await asyncio.sleep(REOPEN_S)


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

    def grant(self, shards: Sequence[tuple[int, int]]) -> None:
        self._engine.grant(list(shards))

    def probe(self, shard: int, body: bytes, reply: Callable[[bytes | Any], None]) -> None:
        self._engine.cycles.receive(Probe.decode(body))
        reply(b"")


# --- parts


def _load(actors: list[str], front_door: str | None) -> Application:
    try:
        return Application.load(actors, front_door)
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
    except (StoreBusyError, VolumeMismatchError) as error:
        raise WorkerFatalError(str(error)) from error
    if recorded and volume.row.volume != recorded:
        raise WorkerFatalError(f"VolumeLost: {path} is volume {volume.row.volume}, the table says {recorded}")
    loop = asyncio.get_running_loop()
    return Engine(
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


def _own_all(engine: Engine, namespace: Namespace) -> None:
    """With one host there is one owner: bring the table up to the volume, grant what nobody ever owned."""
    try:
        table = namespace.table()
        volumes = {engine.host_id: engine.volume_id}
        known = table or Table.empty(namespace.uid, namespace.shards)
        known = adopted(known, volumes, {engine.host_id: engine.inventory()}, recorded=table is not None)
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
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(LIFESPAN_S):
                await stack.enter_async_context(env.lifespan())
        except TimeoutError as error:
            name = type(env).__qualname__
            raise WorkerFatalError(f"{name}.lifespan did not get to its yield within {LIFESPAN_S:.0f} s") from error
        yield env


async def _serve_http(
    context: WorkerContext,
    application: Application,
    dispatcher: Route,
    env: Env,
    stop: asyncio.Event,
    *,
    options: dict[str, Any],
    begin: Callable[[Ingress], Awaitable[None]] | None = None,
    engines: Sequence[Engine] = (),
    router: Router | None = None,
) -> None:
    ingress = Ingress(dispatcher, application.bindings, dev=bool(options.get("detail")))

    def ready() -> str | None:
        if isinstance(dispatcher, Standby) and not engines:
            return dispatcher.reason
        for engine in engines:
            if (reason := engine.ready()) is not None:
                return reason
        if router is not None and (trouble := router.trouble()):
            return "; ".join(f"{host}: {why}" for host, why in trouble.items())
        return None

    registry = make_registry(
        engine=[_Stats(engines)],
        router=[router.stats, router] if router else [],
        worker=[_Restarts(context)],
        ingress=ingress.stats,
    )
    note = f"worker restarted {context.restarts} times, last: {context.last_death}" if context.restarts else ""
    app = make_app(ingress, front_door=application.front_door, env=env, ready=ready, note=note, metrics=registry)
    beginning = asyncio.create_task(_begin(begin, ingress, stop))
    await serve(context.sockets, app, ingress, stop=stop, started=context.ready)
    await beginning


async def _begin(begin: Callable[[Ingress], Awaitable[None]] | None, ingress: Ingress, stop: asyncio.Event) -> None:
    """Begin to serve calls; what can't be mended ends the process."""
    if begin is None:
        return
    beginning = asyncio.ensure_future(begin(ingress))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({beginning, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not beginning.done():
            beginning.cancel()
        elif (error := beginning.exception()) is not None:
            stop.set()
            raise error


class _Stats:
    """The counters of the engine, once it is open."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engines[0].stats, name, None) if self._engines else None


class _Restarts:
    """What the supervisor told of the workers before this one."""

    def __init__(self, context: WorkerContext) -> None:
        self.restarts = context.restarts
        self.last_death = {context.last_death: 1} if context.last_death else {}


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

    tick()
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
