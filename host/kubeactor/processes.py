"""What the worker processes run: an embedded worker (ingress and engine in one loop), a host, an ingress.

Each is a worker's main for the supervisor: it gets its context, builds its parts on a loop of its own, tells that it
is ready, and serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from starlette.routing import Route as HttpRoute

from kubeactor.application import Application, UserCodeError
from kubeactor.behind import Behind, HostEngine, opened, registry
from kubeactor.connection import ConnectionLost
from kubeactor.engine.claims import Claims
from kubeactor.engine.engine import Engine
from kubeactor.engine.loop import new_event_loop
from kubeactor.engine.store import Store, StoreError
from kubeactor.engine.volume import Volume, VolumeMismatchError
from kubeactor.engine.watched import WatchedEngine
from kubeactor.env import Env
from kubeactor.host import HostServer, place
from kubeactor.ingress.app import make_app
from kubeactor.ingress.internal import host_routes
from kubeactor.ingress.server import serve
from kubeactor.ingress.state import Ingress
from kubeactor.limits import METHOD_TIMEOUT_S
from kubeactor.namespace import Namespace
from kubeactor.placement import PlacementError, Table, adopted, plan
from kubeactor.placement_file import Placement, load, save
from kubeactor.pod.report import HostReport
from kubeactor.ports import PUBLIC
from kubeactor.router import Router
from kubeactor.serving import GRACE_S, entered, serve_http, unless
from kubeactor.site import Site
from kubeactor.terminal import standard_lines
from kubeactor.wire import HOST
from kubeactor.worker import WorkerContext, WorkerFatalError

__all__ = ["application_of", "embedded_main", "host_main", "ingress_main"]

TICK_S: Final = 0.5
SWITCH_S: Final = 0.0005
REOPEN_S: Final = 0.25
DATABASE: Final = "db"

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
        behind = Behind(context, Site(namespace))

        async def begin(env: Env) -> Engine:
            engine = await opened(
                behind, lambda: _open_engine(context, application, Site(namespace), "host-0", options)
            )
            _own_all(engine, namespace)
            behind.stand(engine, None)
            engine.start(env)
            engine.gate.lay_out_wals()
            return engine

        try:
            await serve_http(context, application, behind, stop, begin=begin, options=options)
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
    kubernetes: bool = False,
) -> int:
    """An engine that listens for frames; its actors call other hosts by the placement table.

    A second socket, if there is one, serves `/healthz`, `/readyz` and `/metrics`, and in a pod `/_internal`.
    """
    application = _load(actors, front_door)
    site = Site.of(folder, kubernetes=kubernetes, host=True)

    async def run(stop: asyncio.Event) -> None:
        behind = Behind(context, site)
        frames, *health = context.sockets
        telling = asyncio.create_task(_serve_health(context, behind, site, health, stop))
        try:
            await _serve_frames(context, application, site, behind, frames, stop, host=host, options=options)
        finally:
            stop.set()
            await telling

    return _run(context, run)


async def _serve_frames(
    context: WorkerContext,
    application: Application,
    site: Site,
    behind: Behind,
    frames: socket.socket,
    stop: asyncio.Event,
    *,
    host: str,
    options: dict[str, Any],
) -> None:
    opening = opened(behind, lambda: _open_engine(context, application, site, host, options))
    engine = await unless(stop, opening)
    if engine is None:
        return
    last = site.last()
    table, addresses = last or site.empty()
    router = Router(table, addresses, local=engine, local_host=host, role=HOST, credentials=site.credentials)
    engine.dispatcher = router
    engine.send_probe = lambda shard, probe: router.probe(shard, probe.encode(), lambda answer: None)
    behind.stand(engine, router)
    if site.pod is not None:
        behind.claims = Claims(engine, behind.begin_anew)
        behind.claims.apply(table)
    server = HostServer(HostEngine(engine), [frames], site.accepted)
    try:
        async with entered(application, lambda: router) as env:
            engine.start(env, background=False)
            engine.gate.lay_out_wals()
            await server.start()
            behind.follow(last, server)
            context.ready()
            context.opened()
            await unless(stop, behind.placed())
            engine.run_background()
            await stop.wait()
    finally:
        await behind.close(float(options.get("grace_s", GRACE_S)))
        await server.close()


async def _serve_health(
    context: WorkerContext, behind: Behind, site: Site, sockets: Sequence[socket.socket], stop: asyncio.Event
) -> None:
    if not sockets:
        return
    ingress = Ingress(behind.standby, bindings=())
    internal: Sequence[HttpRoute] = ()
    if site.peers is not None:
        report = HostReport(behind, site.peers, context.quarantine, site.namespace.folder)
        internal = host_routes(ingress, lambda: site.accepted, report)
    metrics = registry(context, behind)
    app = make_app(ingress, ready=behind.trouble, note=behind.notes, metrics=metrics, internal=internal)
    await serve(sockets, app, ingress, stop=stop)


def ingress_main(
    context: WorkerContext,
    *,
    folder: str,
    actors: list[str],
    front_door: str | None,
    hosts: dict[str, str] | None,
    options: dict[str, Any],
    ports: Sequence[str] = (PUBLIC,),
    kubernetes: bool = False,
) -> int:
    """An ingress by the placement table of a file, or in a pod of Kubernetes'.

    Args:
        context: has a socket for each of `ports`.
        folder: of the data.
        actors, front_door: the user's code.
        hosts: host id -> address, to place the shards on first.
        options: see `serve_http`.
        ports: what each socket is for.
        kubernetes: whether it runs in a pod.
    """
    application = _load(actors, front_door)
    site = Site.of(folder, kubernetes=kubernetes, host=False)

    async def run(stop: asyncio.Event) -> None:
        behind = Behind(context, site)

        async def begin(env: Env) -> Router:
            if site.pod is None:
                last: Placement | None = await _placed(behind, site.namespace, hosts or {})
            else:
                last = site.last()
            router = Router(*(last or site.empty()), credentials=site.credentials)
            behind.stand(None, router)
            behind.follow(last)
            return router

        try:
            await serve_http(context, application, behind, stop, begin=begin, options=options, ports=ports, site=site)
        finally:
            await behind.close(0.0)

    return _run(context, run)


async def _placed(behind: Behind, namespace: Namespace, hosts: Mapping[str, str]) -> Placement:
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
    context: WorkerContext, application: Application, site: Site, host: str, options: dict[str, Any]
) -> Engine:
    """Open a host's volume and the engine on it.

    Raises:
        StoreError: when it can't be opened, or in a pod is someone else's: the operator hears of it.
        WorkerFatalError: when the volume is not the one that the table knows, or is someone else's.
    """
    store, volume = (_pod_volume if site.pod else _volume)(site, host)
    if options.get("declared_only") and not context.restarts:
        _refuse_undeclared(application, volume, site.namespace.folder)
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
        method_timeout_s=site.pod.method_timeout_s if site.pod else METHOD_TIMEOUT_S,
        alarm_timeout_s=site.pod.alarm_timeout_s if site.pod else METHOD_TIMEOUT_S,
    )
    if isinstance(engine, WatchedEngine):
        engine.watcher = standard_lines(loop.call_later, options["calls"]["colours"])
    return engine


def _pod_volume(site: Site, host: str) -> tuple[Store, Volume]:
    namespace, pod = site.namespace, site.pod
    assert pod is not None
    store = Store(namespace.data(host) / DATABASE)
    try:
        volume = Volume(store, namespace=namespace.uid, host=host, shards=namespace.shards, adopt=pod.adopt)
    except StoreError:
        store.close()
        raise
    return store, volume


def _volume(site: Site, host: str) -> tuple[Store, Volume]:
    namespace = site.namespace
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
    return store, volume


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
