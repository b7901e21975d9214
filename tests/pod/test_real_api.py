"""Following a real API server, with no more rights than the operator gives to a pod."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.api import ApiServer
from tests.cluster.kube import until as until_true
from tests.harness.dev import until
from tests.harness.fake_api import placement, slice_of
from tests.harness.program import COMMAND, START_S

from kubeactor.ids import identity_of_name, shard_of
from kubeactor.placement_file import load
from kubeactor.pod import api as api_module
from kubeactor.pod.api import ApiProblem, api_client, request
from kubeactor.pod.follow import PodFollower
from kubeactor.pod.identity import Pod
from kubeactor_operator import names
from kubeactor_operator.children import access
from kubeactor_operator.spec import ActorNamespace

ROOT = Path(__file__).resolve().parents[2]
UID = "uid-1"
OWNERS: list[str | None] = ["host-0", "host-1"]
VOLUMES = {"host-0": "vol-0", "host-1": "vol-1"}


class Place:
    """A Kubernetes namespace with the rights of the ingresses of `bank`, and what is published in it."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server = server
        self.name = f"follow-{uuid.uuid4().hex[:8]}"
        self.pod = Pod("bank", UID, 2, "bank-ingress-x", self.name, None, folder, 30.0, 30.0, False)
        kube = server.kube
        kube.apply(*(ROOT / "crds").glob("*.yaml"))
        kube.kubectl("wait", "--for=condition=Established", "crd/actorplacements.kubeactor.io")
        kube.kubectl("create", "namespace", self.name)
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": "bank", "namespace": self.name, "uid": str(uuid.uuid4())},
            "spec": {"actors": [{"binding": "ACCOUNT", "class": "bank:Account"}]},
        }
        bank = ActorNamespace.of(manifest)
        made = [f(bank, names.INGRESS) for f in (access.service_account, access.role, access.role_binding)]
        for child in made:
            assert child is not None
            child["metadata"].pop("ownerReferences", None)  # there is no such owner here
            kube.apply(child)
        token = kube.kubectl("create", "token", "bank-ingress", "-n", self.name).strip()
        config = json.loads(server.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(config))

    def publish(self, epoch: int, name: str = "bank") -> None:
        meta = {"name": name, "namespace": self.name}
        spec = placement(UID, OWNERS, VOLUMES, epoch)
        self.server.kube.apply(
            {"apiVersion": names.API_VERSION, "kind": names.PLACEMENT_KIND, "metadata": meta, "spec": spec}
        )

    def locate(self, last: int) -> None:
        fields = slice_of("bank-host", {f"bank-host-{n}": (f"10.1.0.{last + n}", 7000) for n in (0, 1)})
        meta = {"name": "bank-host-x", "namespace": self.name, **fields.pop("metadata")}
        self.server.kube.apply(
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, **fields}
        )

    def program(self) -> subprocess.Popen[bytes]:
        return self.server._processes[-1]

    def restart(self) -> None:
        """Kill the API server and start it again, as an upgrade of a control plane does."""
        process = self.server._processes.pop()
        process.kill()
        process.wait()
        with (self.server.folder / "kube-apiserver.log").open("ab") as log:
            again = subprocess.Popen(process.args, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.server._processes.append(again)
        until_true(self.server._ready, "the API server again", 120)


@pytest.fixture
def place(apiserver: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = Place(apiserver, tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(place.kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    yield place
    with suppress(ProcessLookupError):
        place.program().send_signal(signal.SIGCONT)


def at(follower: PodFollower, epoch: int, last: int) -> bool:
    found = follower.current
    wanted = {"host-0": f"10.1.0.{last}:7000", "host-1": f"10.1.0.{last + 1}:7000"}
    return found is not None and found.table.epoch(0) == epoch and found.addresses == wanted


@pytest.mark.timeout(300)
def test_a_pod_follows_a_real_api_server_through_a_pause_and_a_restart(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "SILENT_S", 5.0)

    async def main() -> None:
        follower = PodFollower(place.pod, tmp_path / "placement.json", None, lambda found: None)
        task = asyncio.create_task(follower.run())
        await until(lambda: follower.trouble == "there is no ActorPlacement bank yet", 60, "an empty list")

        async def step(epoch: int, last: int) -> None:
            await asyncio.to_thread(place.publish, epoch)
            await asyncio.to_thread(place.locate, last)
            await until(lambda: at(follower, epoch, last), 60, f"epoch {epoch}: {follower.trouble}")

        await step(1, 1)
        place.program().send_signal(signal.SIGSTOP)
        await until(lambda: "can't be asked" in follower.trouble, 60, "a server that says nothing")
        assert at(follower, 1, 1)
        place.program().send_signal(signal.SIGCONT)
        await step(2, 11)
        place.restart()  # on this thread: the server is killed with the one that started it
        await step(3, 21)
        await until(lambda: follower.trouble == "", 60, f"no trouble: {follower.trouble}")
        await asyncio.to_thread(place.publish, 9, "other")  # not this pod's, and not to be seen by it
        await step(4, 31)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert load(tmp_path / "placement.json").table.epoch(1) in (3, 4)


@pytest.mark.timeout(300)
def test_a_pod_may_read_its_own_table_and_where_hosts_are_and_nothing_else(place: Place) -> None:
    path = f"/apis/kubeactor.io/v1alpha1/namespaces/{place.name}"

    async def refused(method: str, path: str, query: dict[str, str], body: Any = None) -> bool:
        async with api_client() as api:
            try:
                await request(api, method, path, query, body=body)
            except ApiProblem as error:
                if error.status != 403:
                    raise
                return True
        return False

    async def main() -> None:
        own = {"fieldSelector": "metadata.name=bank"}
        assert not await refused("GET", f"{path}/actorplacements", own)
        assert not await refused("GET", f"/apis/discovery.k8s.io/v1/namespaces/{place.name}/endpointslices", {})
        assert await refused("GET", f"{path}/actorplacements", {})
        assert await refused("GET", f"{path}/actorplacements", {"fieldSelector": "metadata.name=other"})
        assert await refused("GET", f"{path}/actornamespaces", {})
        assert await refused("GET", f"/api/v1/namespaces/{place.name}/secrets", {})
        spec = placement(UID, OWNERS, VOLUMES)
        table = {"apiVersion": names.API_VERSION, "kind": names.PLACEMENT_KIND, "spec": spec}
        assert await refused("POST", f"{path}/actorplacements", {}, {**table, "metadata": {"name": "bank"}})
        assert await refused("PUT", f"{path}/actorplacements/bank", {}, {**table, "metadata": {"name": "bank"}})
        assert await refused("DELETE", f"{path}/actorplacements/bank", {})

    asyncio.run(main())


def test_who_may_read_the_table_is_told_where_an_instance_lives(place: Place) -> None:
    place.publish(5)
    host = OWNERS[shard := shard_of(identity_of_name("alice"), len(OWNERS))]
    command = [*COMMAND, "where", "bank", "alice", "-n", place.name]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=START_S).stdout
    assert [line.split() for line in told.splitlines()] == [
        ["instance", "alice"],
        ["shard", str(shard)],
        ["host", host],
        ["pod", f"bank-{host}"],
        ["epoch", "5"],
    ]
