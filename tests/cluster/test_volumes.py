"""Small volumes on a real cluster: whose they are, what happens when they are full, how they grow.

One bank for all of it: two hosts on static `local` volumes of 64 MiB, each a file system of its own on a node, which
this test mounts; and it plays the resizer, the one part of growth that kind lacks. Each test leaves the bank well.
"""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml
from tests.cluster.kube import Space
from tests.cluster.load import ready
from tests.cluster.machine import ROOT
from tests.cluster.nodes import Cluster, Images
from tests.cluster.payers import Payers, call
from tests.cluster.volumes import local_volume

from kubeactor.ids import shard_of
from kubeactor.placement import Document, Table

pytestmark = pytest.mark.kindnodes

SIZE_MIB, GROWN_MIB = 64, 192  # twice what there can be on the small one: half of a volume is kept free
USER = 65532
VAULT = '''
import os

from kubeactor import Actor


class Vault(Actor):
    """Takes room on its volume, a MiB a call, which no compression makes smaller."""

    async def fill(self) -> int:
        held = await self.ctx.storage.get("held", 0)
        await self.ctx.storage.put({"held": held + 1, str(held): os.urandom(1024 * 1024)})
        return held + 1

    async def held(self) -> int:
        stored = range(await self.ctx.storage.get("held", 0))
        return sum([len(await self.ctx.storage.get(str(n), b"")) == 1024 * 1024 for n in stored])

    async def empty(self) -> None:
        await self.ctx.storage.delete_all()

    async def large(self) -> str:
        return "x" * 1024 * 1024
'''


class Small:
    """The bank on small volumes."""

    def __init__(self, cluster: Cluster, space: Space) -> None:
        self.cluster = cluster
        self.space = space
        self.storage_class = f"small-{space.name}"
        names = cluster.kube.kubectl("get", "nodes", "-l", "!node-role.kubernetes.io/control-plane", "-o", "name")
        self.folders = {name.removeprefix("node/"): f"/mnt/{self.storage_class}" for name in names.split()[:2]}
        self._pokes = itertools.count()

    def provide(self) -> None:
        """A class without provisioner, and on each of two nodes a volume that root has just made."""
        storage_class = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "allowVolumeExpansion": False}
        storage_class |= {"metadata": {"name": self.storage_class}, "provisioner": "kubernetes.io/no-provisioner"}
        self.cluster.kube.apply(storage_class | {"volumeBindingMode": "WaitForFirstConsumer"})
        for node, folder in self.folders.items():
            mount = f"mkdir -p {folder} && mount -t tmpfs -o size={SIZE_MIB}m,mode=0755 tmpfs {folder}"
            self.cluster.on_node(node, "sh", "-c", mount)
            size, storage_class = f"{SIZE_MIB}Mi", self.storage_class
            self.cluster.kube.apply(local_volume(self.volume(node), node, folder, size, storage_class))

    def remove(self) -> None:
        self.space.kubectl("delete", "actornamespaces", "--all", "--wait=false")
        self.space.kubectl("delete", "pods", "--all", "--wait", "--timeout=100s")
        self.cluster.kube.kubectl("delete", "namespace", self.space.name, "--wait=false")
        for node, folder in self.folders.items():
            self.cluster.kube.kubectl("delete", "pv", self.volume(node), "--wait=false")
            self.cluster.on_node(node, "umount", "--lazy", folder)
        self.cluster.kube.kubectl("delete", "storageclass", self.storage_class)

    def volume(self, node: str) -> str:
        return f"{self.storage_class}-{node}"

    def apply(self) -> None:
        config, bank = yaml.safe_load_all((ROOT / "examples/01-bank/namespace.yaml").read_text())
        config["data"]["vault.py"] = VAULT
        del bank["spec"]["ingress"]["service"]  # the node port is another bank's
        bank["spec"]["actors"].append({"binding": "VAULT", "class": "vault:Vault"})
        bank["spec"]["shards"] = 8
        bank["spec"]["ingress"]["replicas"] = 1
        storage = {"size": f"{SIZE_MIB}Mi", "storageClassName": self.storage_class}
        bank["spec"]["hosts"] |= {"replicas": 2, "storage": storage}
        self.space.apply(config, bank)

    # What there is

    def pod(self, host: str) -> dict[str, Any]:
        found: dict[str, Any] = self.space.get("pod", f"bank-{host}")
        return found

    def uids(self) -> list[str]:
        return [self.pod(host)["metadata"]["uid"] for host in ("host-0", "host-1")]

    def node(self, host: str) -> str:
        name: str = self.pod(host)["spec"]["nodeName"]
        return name

    def on_volume(self, host: str, command: str) -> str:
        """Run a line of shell on the volume of a host, as root of its node."""
        node = self.node(host)
        return self.cluster.on_node(node, "sh", "-c", f"cd {self.folders[node]} && {command}")

    def names(self, host: str, count: int) -> list[str]:
        """Names of instances that live on that host."""
        table = Table.of(msgspec.convert(self.space.get("actorplacement", "bank")["spec"], Document))
        found = (name for name in (uuid.uuid4().hex[:8] for _ in itertools.count()))
        there = (name for name in found if (table.owner(shard_of(name.encode(), 8)) or ("",))[0] == host)
        return list(itertools.islice(there, count))

    def address(self, port: int) -> str:
        (pod,) = self.space.get("pods", "-l", "app.kubernetes.io/component=ingress")["items"]
        return f"http://{pod['status']['podIP']}:{port}"

    def vault(self, name: str, method: str, **headers: str) -> tuple[int, Any]:
        return call(f"{self.address(8081)}/v1/actors/VAULT/{name}/{method}", {}, **headers)

    def says(self, host: str) -> str:
        """What the worker of a host says of itself, ready or not; nothing between two workers."""
        try:
            return str(call(f"http://{self.pod(host)['status']['podIP']}:9090/readyz")[1])
        except OSError:
            return ""

    # What somebody does

    def patch(self, kind: str, name: str, fields: dict[str, Any], *arguments: str) -> None:
        text = msgspec.json.encode(fields).decode()
        self.space.kubectl("patch", kind, name, "--type=merge", "-p", text, *arguments)

    def poke(self) -> None:
        """Let the operator look at once; else it does so every 20 s."""
        self.space.kubectl("annotate", "--overwrite", "actornamespace", "bank", f"test/poke={next(self._pokes)}")

    def told(self, type: str, reason: str, message: str = "") -> bool:
        conditions = self.space.get("actornamespace", "bank")["status"]["conditions"]
        found = {one["type"]: one for one in conditions}[type]
        return found["reason"] == reason and bool(re.search(message, found["message"]))

    def tells(self, type: str, reason: str, message: str = "") -> None:
        """Wait for a condition; what the operator asks of the API server may be refused at its first looks."""
        looks = itertools.count()

        def look() -> bool:
            if next(looks) % 8 == 0:
                self.poke()
            return self.told(type, reason, message)

        self.space.until(look, f"{type} {reason} {message}")

    def grow(self, host: str) -> None:
        """What an external resizer does: the disk, then the volume, then the claim's status."""
        node, size = self.node(host), {"storage": f"{GROWN_MIB}Mi"}
        self.cluster.on_node(node, "mount", "-o", f"remount,size={GROWN_MIB}m", self.folders[node])
        self.patch("pv", self.volume(node), {"spec": {"capacity": size}})
        self.patch("pvc", f"data-bank-{host}", {"status": {"capacity": size}}, "--subresource=status")

    def claims_ask(self) -> list[str]:
        claims = [self.space.get("pvc", f"data-bank-{host}") for host in ("host-0", "host-1")]
        return [claim["spec"]["resources"]["requests"]["storage"] for claim in claims]


@pytest.fixture(scope="module")
def small(cluster: Cluster, operator: None, images: Images) -> Iterator[Small]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    name = f"small-{uuid.uuid4().hex[:6]}"
    cluster.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    found = Small(cluster, Space(cluster.kube, name))
    try:
        found.provide()
        found.apply()
        ready(found.space)
        yield found
    finally:
        found.remove()


@pytest.fixture
def payers(small: Small) -> Iterator[Payers]:
    """Deposits into accounts of both hosts; in the end all are served again, and every balance is what was told."""
    ready(small.space)
    accounts = small.names("host-0", 3) + small.names("host-1", 3)
    with Payers(small.address(8080), accounts) as found:
        found.all_past(3)
        yield found
        found.all_past(3)
    print(f"longest call {found.longest_s:.1f} s, {sum(found.acknowledged.values())} deposits")
    found.settle()


def test_a_volume_made_by_root_belongs_to_the_group_of_the_pod(small: Small, payers: Payers) -> None:
    for host in ("host-0", "host-1"):
        assert small.on_volume(host, "stat -c '%u:%g %a' .").strip() == f"0:{USER} 2775"
        assert small.on_volume(host, f"stat -c '%u:%g' {host}/db/CURRENT").strip() == f"{USER}:{USER}"


def test_a_disk_that_others_fill_refuses_growth_then_stands_still_and_loses_nothing(
    small: Small, payers: Payers
) -> None:
    before, mine = small.uids(), payers.accounts[:3]
    (vault,) = small.names("host-0", 1)
    small.on_volume("host-0", "head -c $(($(stat -f -c '%a * %S' .) - 20 * 1024 * 1024)) /dev/zero > theirs")
    payers.all_refused(mine)
    assert [payers.balance(account) for account in mine] == [payers.acknowledged[account] for account in mine]
    assert small.vault(vault, "empty")[0] == 200, "deletes go on"
    figures = r"host-0 is \d\d % full, about \d+ MiB used and \d+ MiB free: raise hosts.storage.size or delete data"
    small.tells("Degraded", "DiskFull", figures)
    small.tells("Ready", "Serving")

    def worker_replaced() -> bool:
        """The WAL meets the end of the disk: the answer to a read is recorded under its key."""
        small.on_volume("host-0", "cat /dev/zero >> theirs || true")
        small.vault(vault, "large", **{"Idempotency-Key": uuid.uuid4().hex, "Kubeactor-Timeout": "1"})
        return "can't be opened" in small.says("host-0")

    small.space.until(worker_replaced, "no room for the next worker")
    small.tells("Degraded", "DiskFull", "host-0 is 100 % full")
    small.on_volume("host-0", "rm theirs")
    payers.all_past(3)
    small.tells("Degraded", "AsExpected")
    small.space.until(lambda: "No space left on device" in small.says("host-0"), "why the worker before ended")
    assert small.uids() == before
    assert {payers.refused[account] for account in payers.accounts[3:]} == {0}, "the other host noticed nothing"


def test_a_disk_that_actors_fill_serves_again_when_it_has_grown_around_running_pods(
    small: Small, payers: Payers
) -> None:
    before, stateful_set, theirs = small.uids(), small.space.get("sts", "bank-host"), payers.accounts[3:]
    (vault,) = small.names("host-1", 1)
    small.patch("actornamespace", "bank", {"spec": {"hosts": {"storage": {"size": f"{GROWN_MIB}Mi"}}}})
    small.tells("Degraded", "ExpansionUnsupported", "the storage class can't expand data-bank-host-[01]: ")
    small.tells("Progressing", "Stopped")
    small.tells("Ready", "Serving")
    payers.all_past(3)
    stored = 0

    def full() -> bool:
        """RocksDB gives some room back after the first refusals."""
        nonlocal stored
        while (answer := small.vault(vault, "fill"))[0] == 200:
            stored += 1
            assert answer[1] == stored
        assert (answer[0], answer[1]["name"]) == (507, "StorageLimitError")
        small.poke()
        return small.told("Degraded", "DiskFull", "host-1 is")

    small.space.until(full, "DiskFull for what actors have stored")
    assert stored > 10, "there is room in 64 MiB"
    payers.all_refused(theirs)
    assert small.vault(vault, "held") == (200, stored)
    small.patch("storageclass", small.storage_class, {"allowVolumeExpansion": True})
    small.tells("Progressing", "GrowingVolumes")
    small.space.until(lambda: small.claims_ask() == [f"{GROWN_MIB}Mi"] * 2, "claims ask for the new size")
    small.grow("host-1")
    payers.all_past(3)
    small.tells("Progressing", "GrowingVolumes", f"^data-bank-host-0 grow to {GROWN_MIB}Mi$")
    small.tells("Degraded", "AsExpected")
    assert small.space.get("sts", "bank-host")["metadata"]["uid"] == stateful_set["metadata"]["uid"]
    small.grow("host-0")
    small.tells("Progressing", "UpToDate")
    grown = small.space.get("sts", "bank-host")
    assert grown["metadata"]["uid"] != stateful_set["metadata"]["uid"]
    assert grown["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == f"{GROWN_MIB}Mi"
    assert small.uids() == before
    assert small.vault(vault, "held") == (200, stored)
    assert {payers.refused[account] for account in payers.accounts[:3]} == {0}, "the other host noticed nothing"
