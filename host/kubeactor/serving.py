"""The HTTP side of a worker: its ports, from the first moment to the last."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from starlette.routing import Route as HttpRoute

from kubeactor.application import Application, UserCodeError
from kubeactor.behind import Behind, registry
from kubeactor.call import Dispatcher
from kubeactor.env import Env
from kubeactor.ingress.app import IngressApp, make_app
from kubeactor.ingress.internal import ingress_routes
from kubeactor.ingress.protocol import Listener
from kubeactor.ingress.server import serve
from kubeactor.ingress.state import Ingress, Route
from kubeactor.pod.peers import Peers
from kubeactor.pod.probe import Prober
from kubeactor.pod.report import known
from kubeactor.ports import API, DRAIN_S, FRONT, INTERNAL, PUBLIC
from kubeactor.site import Site
from kubeactor.worker import WorkerContext, WorkerFatalError

__all__ = ["GRACE_S", "entered", "serve_http", "unless"]

LIFESPAN_S: Final = 30.0
GRACE_S: Final = 1.0
TELL_S: Final = 0.25

T = TypeVar("T")


@contextlib.asynccontextmanager
async def entered(application: Application, dispatcher: Callable[[], Dispatcher]) -> AsyncIterator[Env]:
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


async def unless(stop: asyncio.Event, main: Coroutine[Any, Any, T]) -> T | None:
    """What the coroutine returns; None when the process is to stop before it does."""
    task = asyncio.ensure_future(main)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        stopping.cancel()
        task.cancel()


async def serve_http(
    context: WorkerContext,
    application: Application,
    behind: Behind,
    stop: asyncio.Event,
    *,
    options: dict[str, Any],
    begin: Callable[[Env], Awaitable[Route]],
    ports: Sequence[str] = (PUBLIC,),
    site: Site | None = None,
) -> None:
    """Serve at once; calls wait until `begin` has made what answers them.

    Args:
        context: has the sockets.
        application: the user's code.
        behind: what stands behind.
        stop: set when the process is to end.
        options: `grace_s`, how long running requests may go on then; `detail`.
        begin: makes what answers calls.
        ports: what each socket is for; the public one comes first.
        site: the surroundings, where they matter: in a pod connections are drained first.
    """
    standby = behind.standby
    async with entered(application, lambda: standby) as env:
        ingress = Ingress(standby, application.bindings, dev=bool(options.get("detail")))
        apps = _apps(context, application, behind, ingress, env, ports, site)
        serving = _Serving(context, ports, apps, ingress, float(options.get("grace_s", GRACE_S)))
        drain_s = DRAIN_S if site is not None and site.pod is not None else 0.0

        async def start() -> None:
            ingress.dispatcher = await begin(env)
            standby.serve(ingress.dispatcher)
            context.opened()

        async def starting() -> None:
            try:
                await unless(stop, start())
            except BaseException:
                serving.ending.set()
                raise

        others = [asyncio.create_task(serving.port(number)) for number in range(1, len(ports))]
        tasks = [asyncio.create_task(starting()), asyncio.create_task(serving.end(stop, behind, drain_s))]
        try:
            await serving.port(0)
        finally:
            stop.set()
            serving.finish()
            await asyncio.gather(*tasks, *others)


class _Serving:
    """The ports of a process from their start to their end.

    Attributes:
        ending: set when no new connections are to be accepted.
    """

    def __init__(
        self, context: WorkerContext, ports: Sequence[str], apps: Sequence[IngressApp], ingress: Ingress, grace_s: float
    ) -> None:
        self.ending = asyncio.Event()
        self._left = asyncio.Event()
        self._ended = asyncio.Event()
        self._context = context
        self._ports = ports
        self._apps = apps
        self._ingress = ingress
        self._grace_s = grace_s
        self._listeners: list[Listener] = []

    async def port(self, number: int) -> None:
        """Serve one of them; the first is the public one, and the internal one is the last to go."""
        public, kind = number == 0, self._ports[number]
        await serve(
            [self._context.sockets[number]],
            self._apps[number],
            self._ingress,
            stop=self._ended if kind == INTERNAL else self.ending,
            fast=kind in (PUBLIC, API),
            started=self._context.ready if public else lambda: None,
            stopping=self._left.set if public else lambda: None,
            on_listener=lambda listener: None if kind == INTERNAL else self._listeners.append(listener),
            grace_s=self._grace_s + TELL_S,  # what ends in the last moment of its grace still has to be told
        )

    async def end(self, stop: asyncio.Event, behind: Behind, drain_s: float) -> None:
        """When it is time: be not ready, drain the connections, accept no more, let what stands behind end."""
        await stop.wait()
        behind.leaving = True
        if drain_s and not self.ending.is_set():
            for listener in self._listeners:
                listener.drain()
            await asyncio.sleep(drain_s)
        self.ending.set()
        await self._left.wait()
        await behind.drain(self._grace_s)

    def finish(self) -> None:
        """End whatever still serves."""
        for event in (self.ending, self._left, self._ended):
            event.set()


def _apps(
    context: WorkerContext,
    application: Application,
    behind: Behind,
    ingress: Ingress,
    env: Env,
    ports: Sequence[str],
    site: Site | None,
) -> list[IngressApp]:
    metrics = registry(context, behind, ingress)

    def app(port: str) -> IngressApp:
        internal = None
        if port == INTERNAL:
            internal = _internal(behind, ingress, site, site.peers) if site and site.peers else []
        return make_app(
            ingress,
            front_door=application.front_door if port in (PUBLIC, FRONT) else None,
            env=env,
            serve_api=port in (PUBLIC, API),
            ready=behind.trouble,
            note=behind.notes,
            keepers=behind.keepers,
            metrics=None if port != INTERNAL and INTERNAL in ports else metrics,
            internal=internal,
        )

    return [app(port) for port in ports]


def _internal(behind: Behind, ingress: Ingress, site: Site, peers: Peers) -> list[HttpRoute]:
    probe = Prober(lambda: behind.router, lambda: behind.standby.reason).probe
    return ingress_routes(ingress, lambda: site.accepted, probe, lambda: known(behind, peers))
