"""The operator's program.

A replica first takes the Lease, then starts kopf, which only watches: `@kopf.on.event` handlers put no finalizer on
anything, so `kubectl delete` works while no operator runs. Timers, daemons and delete handlers of kopf would each add
one. When the Lease is lost the process ends; kubelet starts it as a standby.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, cast

import kopf

from kubeactor_operator import names
from kubeactor_operator.api import Api
from kubeactor_operator.controller import Controller
from kubeactor_operator.lease import Lease
from kubeactor_operator.pods import Pods
from kubeactor_operator.server import State, serve

__all__ = ["Options", "main", "operate", "options"]

FAILED: Final = 1
LOST_LEASE: Final = 3
ENDS_S: Final = 5.0
_OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What the command line says; `namespaces` empty: the whole cluster."""

    namespaces: tuple[str, ...]
    lease_namespace: str
    lease_name: str
    host_image: str
    port: int
    identity: str
    pod_port: int = names.INTERNAL


def options(arguments: Sequence[str], environ: dict[str, str]) -> Options:
    """Read flags, each of which may also be a variable: --host-image is KUBEACTOR_OPERATOR_HOST_IMAGE."""

    def default(flag: str, otherwise: str) -> str:
        return environ.get(f"KUBEACTOR_OPERATOR_{flag}") or otherwise

    own = environ.get("POD_NAMESPACE") or (_OWN_NAMESPACE.read_text() if _OWN_NAMESPACE.exists() else "default")
    parser = argparse.ArgumentParser("kubeactor-operator", description="Runs ActorNamespaces on Kubernetes.")
    parser.add_argument("--namespace", action="append", metavar="NS", help="look after this one only; repeatable")
    parser.add_argument("--lease-namespace", default=default("LEASE_NAMESPACE", own), metavar="NS")
    parser.add_argument("--lease-name", default=default("LEASE_NAME", "kubeactor-operator"), metavar="NAME")
    parser.add_argument(
        "--host-image",
        default=default("HOST_IMAGE", f"kubeactor/host:{version('kubeactor')}"),
        metavar="IMAGE",
        help="runs namespaces that name no image of their own (%(default)s)",
    )
    parser.add_argument("--port", type=int, default=int(default("PORT", "8080")), help="/metrics, /healthz, /readyz")
    read = parser.parse_args(arguments)
    listed = read.namespace or [one for one in default("NAMESPACE", "").split(",") if one]
    return Options(
        namespaces=tuple(listed),
        lease_namespace=read.lease_namespace,
        lease_name=read.lease_name,
        host_image=read.host_image,
        port=read.port,
        identity=environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
    )


def _settings(namespaced: bool) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = namespaced
    # Else it would decode every pod of a shared cluster.
    settings.watching.label_selectors["pods"] = "app.kubernetes.io/managed-by=kubeactor"
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.networking.request_timeout = 30
    return settings


def _handlers(controller: Controller) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return connection(kwargs["settings"])

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    def namespace(namespace: str | None, name: str | None, **_: Any) -> None:
        controller.wake(str(namespace), str(name))

    @kopf.on.event("", "v1", "pods", registry=registry, labels={names.NAMESPACE_LABEL: kopf.PRESENT})
    def pod(namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
        controller.wake(str(namespace), labels[names.NAMESPACE_LABEL])

    return registry


def connection(settings: kopf.OperatorSettings) -> kopf.ConnectionInfo | None:
    """The service account in a pod, else the kubeconfig."""
    return kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)


async def operate(chosen: Options, stop: asyncio.Event) -> int:
    """Run until `stop` or until the Lease is lost; the exit code."""
    settings = _settings(bool(chosen.namespaces))
    login = connection(settings)
    if login is None:
        raise SystemExit("kubeactor-operator: neither a service account nor a kubeconfig was found; set KUBECONFIG")
    state = State()
    runner = await serve(state, chosen.port)
    try:
        async with Api(login) as api, Pods(chosen.pod_port) as pods:
            lease = Lease(api, chosen.lease_namespace, chosen.lease_name, chosen.identity)
            state.tried_s = lambda: lease.tried_s
            if not await _either(stop, lease.acquire()):
                return 0
            try:
                return await _lead(chosen, settings, api, pods, lease, state, stop)
            finally:
                await lease.release()
    finally:
        await runner.cleanup()


async def _either(stop: asyncio.Event, other: Coroutine[Any, Any, object]) -> bool:
    """Wait for the one or the other; whether it was the other."""
    tasks = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[1].done():
            tasks[1].result()
        return tasks[1].done()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _lead(
    chosen: Options,
    settings: kopf.OperatorSettings,
    api: Api,
    pods: Pods,
    lease: Lease,
    state: State,
    stop: asyncio.Event,
) -> int:
    controller = Controller(
        api, pods, may_write=lambda: lease.held, stock_image=chosen.host_image, namespaces=chosen.namespaces
    )
    state.age_s, state.waited_s = lambda: controller.oldest_success_s, lambda: controller.oldest_look_s
    watching = kopf.operator(
        registry=_handlers(controller),
        settings=settings,
        standalone=True,
        identity=cast("Any", chosen.identity),  # else it asks for the name of its user, which a container's may lack
        clusterwide=not chosen.namespaces,
        namespaces=chosen.namespaces,
    )
    kept = asyncio.create_task(lease.keep())
    tasks = [kept, asyncio.create_task(controller.run()), asyncio.create_task(watching)]
    try:
        await _either(stop, asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error
        # kopf takes SIGTERM over from `main`: when it ends by itself, it was told to.
        _log.info("stopping: %s", "the lease is lost" if kept.done() else "a signal came")
        return LOST_LEASE if kept.done() else 0
    finally:
        state.age_s = state.waited_s = None
        await _end(tasks)


async def _end(tasks: Collection[asyncio.Task[Any]]) -> bool:
    """Cancel them and let them end; whether all did. One that hangs must not keep this replica from coming back."""
    for task in tasks:
        task.cancel()
    gathered = asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait([gathered], timeout=ENDS_S)
    hung = [task for task in tasks if not task.done()]
    for task in hung:
        _log.error("it does not end within %s s and is left alone: %s", ENDS_S, task)
    return not hung


def main() -> None:
    """The console script."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    chosen = options(sys.argv[1:], dict(os.environ))

    async def run() -> int:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop.set)
        try:
            code = await operate(chosen, stop)
        except Exception:
            _log.exception("this replica ends")
            code = FAILED
        if not await _end(asyncio.all_tasks() - {asyncio.current_task()}):
            os._exit(code)  # `asyncio.run` would wait for it for ever
        return code

    with contextlib.suppress(KeyboardInterrupt):
        raise SystemExit(asyncio.run(run()))
