"""The newcomer's path on a real cluster, and what the bank survives there.

One bank for all tests of this file: the chart is installed, examples/01-bank/namespace.yaml is applied as it stands
into a namespace that admits only restricted pods. Each test leaves it as well as it was.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.kube import KubeError, Space, until
from tests.cluster.machine import ROOT
from tests.cluster.nodes import Cluster, Images

pytestmark = pytest.mark.kindnodes

URL = "http://127.0.0.1:30080"  # kind-config.yaml and namespace.yaml
HOME = "kubeactor-system"
DEADLINE_S = 60.0
API_AWAY_S = 60.0


def post(path: str, amount: int, key: str) -> dict[str, Any]:
    """A call as a client makes it: after a connection error again, on a new connection, under the same key."""
    body = json.dumps({"amount": amount}).encode()
    headers = {"content-type": "application/json", "idempotency-key": key}
    return send(urllib.request.Request(URL + path, body, headers))


def get(path: str) -> dict[str, Any]:
    return send(urllib.request.Request(URL + path))


def send(request: urllib.request.Request) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
                result: dict[str, Any] = json.load(answer)
                return result
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{error.code}: {error.read().decode()}") from error
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Depositors:
    """Threads that each deposit 1 into accounts of their own, call after call, and count what was acknowledged."""

    def __init__(self, count: int = 8) -> None:
        self.prefix = uuid.uuid4().hex[:8]
        self.acknowledged = [0] * count
        self.errors: list[BaseException] = []
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._deposit, args=(index,)) for index in range(count)]

    def __enter__(self) -> Depositors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def account(self, index: int) -> str:
        return f"{self.prefix}-{index}"

    def _deposit(self, index: int) -> None:
        try:
            while not self._stop.is_set():
                started = time.monotonic()
                answer = post(f"/accounts/{self.account(index)}/deposit", 1, uuid.uuid4().hex)
                self.longest_s = max(self.longest_s, time.monotonic() - started)
                self.acknowledged[index] += 1
                assert answer["balance"] == self.acknowledged[index], "a deposit was lost or applied twice"
        except BaseException as error:
            self.errors.append(error)

    def all_past(self, more: int) -> None:
        """Wait until every thread had so many acknowledgements more: all of their shards serve."""
        wanted = [count + more for count in self.acknowledged]

        def past() -> bool:
            assert not self.errors, self.errors
            return all(have >= want for have, want in zip(self.acknowledged, wanted, strict=True))

        until(past, f"{more} more deposits in every account", DEADLINE_S * 2)

    def settle(self) -> None:
        """Nothing failed, and every balance is what was acknowledged."""
        assert not self.errors, self.errors
        for index, count in enumerate(self.acknowledged):
            assert get(f"/accounts/{self.account(index)}/balance")["balance"] == count


@pytest.fixture(scope="module")
def operator(cluster: Cluster, images: Images) -> Iterator[None]:
    """The chart as the README installs it."""
    chart = str(ROOT / "charts/kubeactor")
    command = ["helm", "upgrade", "--install", "kubeactor", chart, "--namespace", HOME, "--create-namespace"]
    cluster.run(*command, "--take-ownership", "--force-conflicts", "--wait", "--timeout", "5m", timeout_s=400)
    yield
    cluster.run("helm", "uninstall", "kubeactor", "--namespace", HOME, "--wait", timeout_s=400)


@pytest.fixture(scope="module")
def bank(cluster: Cluster, operator: None) -> Iterator[Space]:
    """The example as it stands, served."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    name = f"bank-{uuid.uuid4().hex[:6]}"
    cluster.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    space = Space(cluster.kube, name)
    space.kubectl("apply", "-f", str(ROOT / "examples/01-bank/namespace.yaml"))
    try:
        ready(space)
        yield space
    finally:
        space.kubectl("delete", "actornamespaces", "--all", "--wait=false")
        cluster.kube.kubectl("delete", "namespace", name, "--wait=false")


def ready(bank: Space) -> None:
    """The condition that is earned: every host answered a probe through an ingress."""

    def look() -> bool:
        conditions = bank.get("actornamespace", "bank").get("status", {}).get("conditions", [])
        status = {condition["type"]: condition["status"] for condition in conditions}
        return status.get("Ready") == "True" and status.get("Progressing") == "False"

    bank.until(look, "ActorNamespace bank Ready", 300)


@pytest.fixture
def load(bank: Space) -> Iterator[Depositors]:
    """Deposits from before the fault until all accounts take them again, none lost, none applied twice."""
    ready(bank)
    with Depositors() as depositors:
        depositors.all_past(3)
        yield depositors
        depositors.all_past(3)
    print(f"longest call: {depositors.longest_s:.1f} s of {sum(depositors.acknowledged)}")
    depositors.settle()


def test_a_debit_through_the_ingress(bank: Space) -> None:
    assert post("/accounts/alice/deposit", 100, "first")["balance"] == 100
    assert post("/alice", 30, "second") == {"ok": True, "balance": 70}
    assert post("/alice", 1000, "third") == {"ok": False, "balance": 70}
    assert get("/accounts/alice/balance") == {"account": "alice", "balance": 70}


def test_no_object_of_ours_has_a_finalizer(bank: Space) -> None:
    kinds = "actornamespaces,actorplacements,statefulsets,deployments,services,secrets,configmaps,serviceaccounts,roles"
    objects = bank.get(f"{kinds},rolebindings,poddisruptionbudgets,networkpolicies")["items"]
    assert {one["kind"] for one in objects} >= {"ActorNamespace", "ActorPlacement", "StatefulSet", "Deployment"}
    for one in objects:
        assert not one["metadata"].get("finalizers"), f"{one['kind']} {one['metadata']['name']}"


def host_pod(bank: Space) -> dict[str, Any]:
    pod: dict[str, Any] = bank.get("pod", "bank-host-1")
    return pod


def kill(cluster: Cluster, pod: dict[str, Any], processes: list[int]) -> None:
    cluster.on_node(pod["spec"]["nodeName"], "kill", "-9", *map(str, processes))


def container(pod: dict[str, Any]) -> str:
    name: str = pod["spec"]["containers"][0]["name"]
    return name


@pytest.mark.parametrize("killed", ["worker", "supervisor", "all processes at once"])
def test_killed_processes_of_a_host_lose_and_repeat_nothing(
    cluster: Cluster, bank: Space, load: Depositors, killed: str
) -> None:
    pod = host_pod(bank)
    processes = cluster.pids(pod, container(pod))
    assert len(processes) >= 2, "a supervisor and its worker"
    chosen = {"worker": processes[1:], "supervisor": processes[:1]}.get(killed, processes)
    kill(cluster, pod, chosen)

    def replaced() -> bool:
        return not set(chosen) & set(cluster.pids(host_pod(bank), container(pod)))

    until(lambda: quietly(replaced), "other processes run", DEADLINE_S)


def quietly(look: Any) -> Any:
    """A look that may find no container between two."""
    try:
        return look()
    except (AssertionError, ValueError, KeyError, KubeError):
        return None


@pytest.mark.parametrize("how", [["--wait=false"], ["--force", "--grace-period=0"]], ids=["gracefully", "by force"])
def test_a_deleted_host_pod_loses_and_repeats_nothing(bank: Space, load: Depositors, how: list[str]) -> None:
    old = host_pod(bank)
    bank.kubectl("delete", "pod", "bank-host-1", *how)
    bank.until_ready("bank-host-1", but_uid=old["metadata"]["uid"])


def test_a_deleted_ingress_pod_loses_and_repeats_nothing(bank: Space, load: Depositors) -> None:
    pods = bank.get("pods", "-l", "app.kubernetes.io/component=ingress")["items"]
    bank.kubectl("delete", "pod", pods[0]["metadata"]["name"])


def test_a_host_comes_back_while_no_operator_runs(bank: Space, load: Depositors) -> None:
    bank.kube.kubectl("-n", HOME, "scale", "deployment", "kubeactor", "--replicas=0")
    try:
        bank.kube.kubectl("-n", HOME, "wait", "pod", "--all", "--for=delete", "--timeout=100s")
        old = host_pod(bank)
        bank.kubectl("delete", "pod", "bank-host-1", "--wait=false")
        bank.until_ready("bank-host-1", but_uid=old["metadata"]["uid"])
        load.all_past(3)
    finally:
        bank.kube.kubectl("-n", HOME, "scale", "deployment", "kubeactor", "--replicas=2")


def test_calls_go_on_while_the_api_server_stands_still_and_a_worker_is_killed(
    cluster: Cluster, bank: Space, load: Depositors
) -> None:
    """Static stability: nothing on the path of a call asks the API server, nor does the restart of a worker."""
    (node,) = cluster.kube.kubectl("get", "nodes", "-l", "node-role.kubernetes.io/control-plane", "-o", "name").split()
    pod = host_pod(bank)

    def signal(name: str) -> None:
        cluster.on_node(node.removeprefix("node/"), "sh", "-c", f"kill -{name} $(pidof kube-apiserver)")

    signal("STOP")
    try:
        back = time.monotonic() + API_AWAY_S
        load.all_past(10)
        kill(cluster, pod, cluster.pids(pod, container(pod))[1:])
        while time.monotonic() < back:
            load.all_past(10)
    finally:
        signal("CONT")

    def settled() -> bool:
        """Whoever held a lease has lost it meanwhile and started anew: controllers, scheduler, operator."""
        cluster.kube.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=60s")
        cluster.kube.kubectl("-n", "kube-system", "wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s")
        cluster.kube.kubectl("-n", HOME, "rollout", "status", "deployment", "kubeactor", "--timeout=60s")
        return True

    until(lambda: quietly(settled), "the control plane is well again", 300)


def test_what_somebody_deletes_is_made_again_and_no_balance_changes(bank: Space, load: Depositors) -> None:
    placement = bank.get("actorplacement", "bank")
    for kind, name in [("actorplacement", "bank"), ("service", "bank-host"), ("deployment", "bank-ingress")]:
        uid = bank.get(kind, name)["metadata"]["uid"]
        bank.kubectl("delete", kind, name, "--wait=false")

        def made_again(kind: str = kind, name: str = name, uid: str = uid) -> bool:
            return bool(bank.get(kind, name)["metadata"]["uid"] != uid)

        bank.until(made_again, f"a new {kind} {name}")
    after = bank.get("actorplacement", "bank")["spec"]
    assert after["hosts"] == placement["spec"]["hosts"], "the same shards on the same volumes"
