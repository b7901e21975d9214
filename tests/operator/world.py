"""Around a real API server and its controller manager: a kubelet, hosts and ingresses that only pretend.

Pods are never scheduled, so the API server deletes them at once. Their addresses are in 127.0.0.0/8, where one server
answers for all of them, by the address that it was asked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import kopf
import yaml
from aiohttp import web
from tests.cluster.api import ApiServer
from tests.harness.dev import free_port

from kubeactor_operator import names
from kubeactor_operator.api import Api, ApiError
from kubeactor_operator.children.sources import peer_credentials
from kubeactor_operator.live import condition, timestamp
from kubeactor_operator.observed import Object

STOCK = "kubeactor/host:0.1.0"
CRDS = Path(__file__).parents[2] / "crds"
CONTROLLERS = "statefulset-controller,deployment-controller,replicaset-controller,garbage-collector-controller"


def connection(server: ApiServer) -> kopf.ConnectionInfo:
    config = yaml.safe_load(server.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    token = config["users"][0]["user"]["token"]
    return kopf.ConnectionInfo(server=cluster["server"], ca_path=cluster["certificate-authority"], token=token)


class Controllers:
    """The controller manager as a process."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def __enter__(self) -> Controllers:
        command = [
            "setpriv", "--pdeathsig", "KILL", str(self._server.programs / "kube-controller-manager"),
            f"--kubeconfig={self._server.kubeconfig}", f"--controllers={CONTROLLERS}", "--leader-elect=false",
            f"--secure-port={free_port()}", "--bind-address=127.0.0.1", f"--cert-dir={self._server.folder}",
            "--concurrent-gc-syncs=20",
        ]  # fmt: skip
        with (self._server.folder / "controllers.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


class World:
    """The pods of one Kubernetes namespace. `async with` it."""

    def __init__(self, api: Api, space: str, number: int) -> None:
        self.api = api
        self.space = space
        self.port = 0
        self._number = number  # of the namespace, so that two of them do not share addresses
        self._next = 1
        self.at: dict[str, str] = {}  # address -> pod
        self.volumes: dict[str, tuple[str, dict[int, int]]] = {}  # claim uid -> volume id, shard -> epoch
        self.bad_images: set[str] = set()
        self.grants = 0
        self._hosts: dict[str, tuple[str, str, str]] = {}  # address -> host id, claim uid, namespace uid
        self._tokens: dict[str, str] = {}
        self.serving = True

    async def apply(self, name: str = "bank", **spec: Any) -> Object:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "namespace": self.space},
            "spec": {
                "actors": [{"binding": "ACCOUNT", "class": "bank:Account"}],
                "image": "bank:1",
                "shards": 8,
                **spec,
            },
        }
        return await self.api.create(body)

    async def change(self, name: str = "bank", **spec: Any) -> None:
        live = await self.api.get(names.KIND, self.space, name)
        assert live
        await self.api.replace({**live, "spec": {**live["spec"], **spec}})

    async def bank(self, name: str = "bank") -> Object:
        live = await self.api.get(names.KIND, self.space, name)
        assert live
        return live

    async def is_(self, type: str, status: str, reason: str, name: str = "bank") -> bool:
        found = condition(await self.bank(name), type)
        return (found.get("status"), found.get("reason")) == (status, reason)

    # The kubelet ---------------------------------------------------------------------------------------------------

    async def kubelet(self) -> None:
        """Give pods that have no status one, for ever."""
        while True:
            for pod in await self.api.list("Pod", self.space):
                if not pod.get("status", {}).get("podIP"):
                    with contextlib.suppress(ApiError):
                        await self._run(pod)
            await asyncio.sleep(0.05)

    async def _run(self, pod: Object) -> None:
        name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
        namespace = labels[names.NAMESPACE_LABEL]
        address = f"127.{1 + self._number}.{self._next // 250}.{1 + self._next % 250}"
        self._next += 1
        await web.TCPSite(self._runner, address, self.port).start()
        status: Object = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        status["conditions"] = [{"type": "Ready", "status": "True", "lastTransitionTime": timestamp(time.time())}]
        if labels["app.kubernetes.io/component"] == names.PREFLIGHT:
            status = {"phase": "Succeeded", "podIP": address, "podIPs": [{"ip": address}]}
            if pod["spec"]["containers"][0]["image"] in self.bad_images:
                ended = {"exitCode": 2, "reason": "Error", "message": "bank:Account can't be imported"}
                entry = {"name": "preflight", "state": {"terminated": ended}, "ready": False, "restartCount": 0}
                status |= {"phase": "Failed", "containerStatuses": [{**entry, "image": "x", "imageID": ""}]}
        host = names.host_id(namespace, name)
        secret = await self.api.get("Secret", self.space, names.peer_secret(namespace))
        assert secret
        self._tokens[address] = peer_credentials(secret)[0]
        if host:
            claim = await self.api.get("PersistentVolumeClaim", self.space, names.claim(namespace, host))
            assert claim
            uid = claim["metadata"]["uid"]
            self.volumes.setdefault(uid, (uid.replace("-", ""), {}))
            environment = {one["name"]: one.get("value", "") for one in pod["spec"]["containers"][0]["env"]}
            self._hosts[address] = (host, uid, environment["KUBEACTOR_UID"])
        await self.api.patch({**pod, "status": status}, "status")
        self.at[address] = name

    # Hosts and ingresses -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> World:
        app = web.Application()
        app.add_routes(
            [
                web.get("/_internal/inventory", self._inventory),
                web.post("/_internal/grant", self._grant),
                web.get("/_internal/known", self._known),
                web.get("/_internal/probe/{host}", self._probe),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        self.port = free_port()
        self._kubelet = asyncio.create_task(self.kubelet())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._kubelet.cancel()
        await asyncio.gather(self._kubelet, return_exceptions=True)
        await self._runner.cleanup()

    def _asked(self, request: web.Request) -> str:
        assert request.transport
        address: str = request.transport.get_extra_info("sockname")[0]
        if request.headers.get("Authorization") != f"Bearer {self._tokens[address]}":
            raise web.HTTPUnauthorized
        return address

    async def _inventory(self, request: web.Request) -> web.Response:
        host, claim, uid = self._hosts[self._asked(request)]
        volume, states = self.volumes[claim]
        return web.json_response(
            {
                "namespace": uid, "host": host, "volume": volume, "shards": 8, "version": "0.1.0", "protocol": 1,
                "format": 1, "states": [[shard, epoch, "owned"] for shard, epoch in sorted(states.items())],
                "parked": 0, "quarantined": 0, "disk": {"used_bytes": 1, "free_bytes": 2, "full": False},
                "credentials": [], "trouble": None,
            }
        )  # fmt: skip

    async def _grant(self, request: web.Request) -> web.Response:
        _, claim, _ = self._hosts[self._asked(request)]
        volume, states = self.volumes[claim]
        asked = await request.json()
        if asked["volume"] != volume:
            return web.json_response({"detail": "another volume"}, status=409)
        for shard, epoch in asked["grants"]:
            if states.setdefault(shard, epoch) != epoch:
                return web.json_response({"detail": f"shard {shard} is known at another epoch"}, status=409)
            self.grants += 1
        return web.json_response({})

    async def _known(self, request: web.Request) -> web.Response:
        self._asked(request)
        return web.json_response({"credentials": [], "table": None})

    async def _probe(self, request: web.Request) -> web.Response:
        self._asked(request)
        if not self.serving:
            return web.json_response({"detail": "no connection to the host"}, status=503)
        return web.json_response({"host": request.match_info["host"], "shard": 0, "epoch": 1, "ms": 1.0})


async def until(condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 60.0) -> None:
    """Poll; the bound is for a machine that is busy with something else."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {timeout_s} s"
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def running(coroutine: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """A task for the length of a block."""
    task = asyncio.create_task(coroutine)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
