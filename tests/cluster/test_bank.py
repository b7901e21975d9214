"""The whole path on a real cluster: the bank's own manifest, real hosts on real volumes, the operator a process here.

It runs beside the engine of the nodes, where pods can be reached, so that its coverage counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.kube import Kube, KubeError, Space
from tests.cluster.nodes import Cluster, Images
from tests.harness.dev import free_port

ROOT = Path(__file__).parents[2]
HOSTS = [f"bank-host-{n}" for n in range(3)]


@contextmanager
def operator(kube: Kube, space: Space, images: Images, log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "kubeactor_operator", "--namespace", space.name, "--lease-namespace", space.name]
    command += ["--host-image", images.host, "--port", str(free_port())]
    with log.open("ab") as out:
        process = subprocess.Popen(command, env={**os.environ, **kube.environment}, stdout=out, stderr=out)
        try:
            yield
            assert process.poll() is None, log.read_text()[-3000:]
        finally:
            process.terminate()
            assert process.wait(60) == 0, log.read_text()[-3000:]


class Bank:
    """Someone who uses it and someone who runs it."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def apply(self) -> None:
        config, bank = yaml.safe_load_all((ROOT / "examples/01-bank/namespace.yaml").read_text())
        del bank["spec"]["ingress"]["service"]  # the node port may be in use by another namespace
        self.space.apply(config, bank)

    def patch(self, **spec: Any) -> None:
        self.space.kubectl("patch", "actorns", "bank", "--type=merge", "-p", json.dumps({"spec": spec}))

    def is_(self, type: str, status: str, reason: str) -> None:
        def look() -> bool:
            found = self.space.get("actorns", "bank")
            conditions = {one["type"]: one for one in found.get("status", {}).get("conditions", [])}
            current = found["metadata"]["generation"] == found.get("status", {}).get("observedGeneration")
            one = conditions.get(type, {})
            return current and (one.get("status"), one.get("reason")) == (status, reason)

        self.space.until(look, f"{type}={status} {reason}", 240)

    def serves(self) -> None:
        self.is_("Ready", "True", "Serving")
        self.is_("Progressing", "False", "UpToDate")
        self.is_("Degraded", "False", "AsExpected")

    def call(self, path: str, **body: Any) -> dict[str, Any]:
        """Over the address of an ingress; until it answers, as a client would."""
        data = json.dumps(body).encode() if body else None

        def ask() -> dict[str, Any] | None:
            pods = self.space.get("pods", "-l", "app.kubernetes.io/component=ingress")["items"]
            for pod in pods:
                address = pod["status"].get("podIP")
                if not address or "deletionTimestamp" in pod["metadata"]:
                    continue
                headers = {"Content-Type": "application/json", "Idempotency-Key": f"key-{path}-{body}"}
                request = urllib.request.Request(f"http://{address}:8080{path}", data, headers)
                try:
                    with urllib.request.urlopen(request, timeout=30) as answer:
                        read: dict[str, Any] = json.load(answer)
                        return read
                except (urllib.error.URLError, OSError):
                    continue
            return None

        return self.space.until(ask, f"an answer of {path}", 120)

    def balance(self, account: str) -> object:
        return self.call(f"/accounts/{account}/balance")["balance"]

    def uids(self) -> dict[str, str]:
        return {name: self.space.get("pod", name)["metadata"]["uid"] for name in HOSTS}


@pytest.fixture
def crds(cluster: Cluster) -> Iterator[None]:
    """Those of this checkout, unless a chart brought them: then they stay as they are, and stay."""
    kube, files = cluster.kube, sorted((ROOT / "crds").glob("*.yaml"))
    if "actornamespaces.kubeactor.io" in kube.kubectl("get", "crd", "-o", "name"):
        yield
        return
    kube.apply(*files)
    kube.kubectl("wait", "--for=condition=Established", "crd", "actornamespaces.kubeactor.io", "--timeout=60s")
    yield
    for file in files:
        kube.kubectl("delete", "-f", str(file))


@pytest.mark.kindnodes
@pytest.mark.timeout(900)  # some five minutes on two cores that do nothing else
@pytest.mark.usefixtures("crds")
def test_the_bank_is_applied_changed_hibernated_deleted_and_adopted_with_all_its_money(
    space: Space, images: Images, tmp_path: Path
) -> None:
    kube, bank, log = space.kube, Bank(space), tmp_path / "operator.log"
    with operator(kube, space, images, log):
        bank.apply()
        bank.serves()
        accounts = [f"account-{n}" for n in range(8)]
        for n, account in enumerate(accounts):
            bank.call(f"/accounts/{account}/deposit", amount=100 + n)

        def all_there() -> None:
            assert [bank.balance(account) for account in accounts] == [100 + n for n in range(8)]

        all_there()
        before = bank.uids()
        bank.patch(actors=[{"binding": "ACCOUNT", "class": "bank:Nobody"}])
        bank.is_("Degraded", "True", "PreflightFailed")
        bank.is_("Ready", "True", "Serving")
        assert bank.uids() == before
        all_there()
        bank.patch(actors=[{"binding": "ACCOUNT", "class": "bank:Account"}], env=[{"name": "LEVEL", "value": "2"}])
        space.until(lambda: not set(bank.uids().values()) & set(before.values()), "all hosts restarted", 300)
        bank.serves()
        all_there()
        space.kubectl("delete", "actorpl", "bank")
        space.until(lambda: space.get("actorpl", "bank")["spec"]["epochs"] == "0-63:1", "the table rebuilt")
        all_there()
        bank.patch(hosts={"replicas": 0})
        bank.is_("Ready", "False", "Hibernated")
        space.until(lambda: _none(space, *HOSTS), "hosts gone")
        bank.patch(hosts={"replicas": 3})
        bank.serves()
        all_there()
        listed = space.get("all,actorns,actorpl,configmaps,secrets,roles,rolebindings,pdb,networkpolicies,leases")
        assert [one["metadata"]["name"] for one in listed["items"] if one["metadata"].get("finalizers")] == []
    space.kubectl("delete", "actorns", "bank")  # nobody has to allow it
    space.until(lambda: _none(space, *HOSTS), "garbage collection")
    with operator(kube, space, images, log):
        bank.apply()
        bank.is_("Degraded", "True", "VolumesOfAnotherNamespace")
        assert _none(space, *HOSTS)
        bank.patch(hosts={"storage": {"adopt": True}})
        bank.serves()
        all_there()


def _none(space: Space, *pods: str) -> bool:
    for pod in pods:
        try:
            space.get("pod", pod)
        except KubeError:
            continue
        return False
    return True
