"""Hosts and ingresses as they run in pods, as real processes on loopback with a small API server in front."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.harness.dev import free_port
from tests.harness.fake_api import NAMESPACE, PLACEMENTS, SLICES, FakeApi, placement, slice_of
from tests.harness.program import Program, running

__all__ = ["NAME", "SHARDS", "TOKEN", "UID", "Pods", "eventually"]

NAME = "bank"
UID = "0f3c1f6e-7c1d-4f3e-9d53-0a8f5f0b8a11"
SHARDS = 8
TOKEN = "token-1"
LIMIT_S = 30.0


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until it holds."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"waited {LIMIT_S} s for {what}"
        time.sleep(0.01)


class Pods:
    """The pods of one ActorNamespace. Each host has its own volume, frame port and internal port."""

    def __init__(self, folder: Path, api: FakeApi) -> None:
        self.folder = folder
        self.api = api
        self.peers = folder / "peers"
        self.peers.mkdir()
        (self.peers / "current").write_text(TOKEN + "\n")
        self.frames: dict[str, int] = {}

    def environment(self, pod: str, **more: str) -> dict[str, str]:
        return {
            "KUBEACTOR_NAME": NAME,
            "KUBEACTOR_UID": UID,
            "KUBEACTOR_SHARDS": str(SHARDS),
            "KUBEACTOR_PEER_DIR": str(self.peers),
            "POD_NAME": pod,
            "POD_NAMESPACE": NAMESPACE,
            "KUBECONFIG": str(self.api.kubeconfig(self.folder / "kubeconfig")),
            **more,
        }

    @contextmanager
    def host(self, number: int, *, volume: str | None = None, **environment: str) -> Iterator[Program]:
        """A host at a new frame port, which is published. Its HTTP is the internal port."""
        pod = f"{NAME}-host-{number}"
        port = free_port()
        self.api.put(SLICES, pod, **slice_of(f"{NAME}-host", {pod: ("127.0.0.1", port)}))
        with self.host_at(number, port, volume=volume, **environment) as program:
            yield program

    @contextmanager
    def host_at(self, number: int, port: int, *, volume: str | None = None, **environment: str) -> Iterator[Program]:
        """A host at that frame port, which nobody publishes."""
        host = f"host-{number}"
        pod = f"{NAME}-{host}"
        self.frames[host] = port
        arguments = ["host", "--kubernetes", "--data", str(self.folder / (volume or pod)), "--address", "127.0.0.1"]
        arguments += ["--port", str(port), "--metrics-port", "{port}", "lab:Lab"]
        log = self.folder / f"{pod}.log"
        with running(log, *arguments, environment=self.environment(pod, **environment)) as program:
            yield program

    @contextmanager
    def ingress(self, *options: str, name: str = "a", **environment: str) -> Iterator[Pod]:
        pod = f"{NAME}-ingress-{name}"
        internal = free_port()
        arguments = ["ingress", "--kubernetes", "--data", str(self.folder / pod), "--address", "127.0.0.1"]
        arguments += ["--port", "{port}", "--metrics-port", str(internal), *options, "lab:Lab"]
        log = self.folder / f"{pod}.log"
        with running(log, *arguments, environment=self.environment(pod, **environment)) as program:
            running_pod = Pod(program, internal)
            try:
                eventually(lambda: listens(running_pod), "an ingress that listens")
                yield running_pod
            finally:
                running_pod.internal.close()

    @contextmanager
    def placed(self, hosts: int = 2) -> Iterator[tuple[Pod, list[Program]]]:
        """An ingress and hosts, all shards granted and published, as the operator does it."""
        with ExitStack() as stack:
            programs = [stack.enter_context(self.host(number)) for number in range(hosts)]
            ingress = stack.enter_context(self.ingress())
            self.grant(programs)
            eventually(lambda: get(ingress, "/readyz").status_code == 200, "an ingress that has a table")
            yield ingress, programs

    def grant(self, programs: list[Program]) -> None:
        """What the operator does at the first start."""
        volumes = {f"host-{n}": inventory(program)["volume"] for n, program in enumerate(programs)}
        self.publish([None] * SHARDS, volumes)
        owners = [f"host-{shard % len(programs)}" for shard in range(SHARDS)]
        for number, program in enumerate(programs):
            grants = [[shard, 1] for shard, owner in enumerate(owners) if owner == f"host-{number}"]
            asked = {"volume": volumes[f"host-{number}"], "grants": grants}
            answer = program.http.post("/_internal/grant", json=asked, headers=bearer())
            assert (answer.status_code, answer.json()) == (200, {})
        self.publish(owners, volumes)  # type: ignore[arg-type]

    def publish(self, owners: list[str | None], volumes: dict[str, str], epoch: int = 1, uid: str = UID) -> None:
        """Write the table."""
        self.api.put(PLACEMENTS, NAME, spec=placement(uid, owners, volumes, epoch))

    def kept(self, pod: str) -> dict[str, Any]:
        """The table that a pod keeps in its file."""
        found: dict[str, Any] = json.loads((self.folder / pod / "placement.json").read_text())
        return found


class Pod:
    """An ingress: its public side, and its internal port."""

    def __init__(self, program: Program, internal: int) -> None:
        self.program = program
        self.public = program.http
        self.internal = httpx.Client(base_url=f"http://127.0.0.1:{internal}", timeout=30.0)


def listens(pod: Pod) -> bool:
    """Whether the public port is open, whatever it answers."""
    try:
        pod.public.get("/healthz")
    except httpx.TransportError:
        assert pod.program.process.poll() is None, pod.program.output[-3000:]
        return False
    return True


def get(pod: Pod, path: str) -> httpx.Response:
    """A GET at the internal port, which may not listen yet."""
    try:
        return pod.internal.get(path, headers=bearer())
    except httpx.TransportError:
        assert pod.program.process.poll() is None, pod.program.output[-3000:]
        return httpx.Response(0)


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def inventory(program: Program) -> dict[str, Any]:
    """Wait until the volume is open, and ask for it."""
    program.ready()
    answer = program.http.get("/_internal/inventory", headers=bearer())
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
