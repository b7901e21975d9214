"""The newcomer's path on a real cluster, and what the bank survives there.

One bank for all of them (conftest.py): the chart is installed, examples/01-bank/namespace.yaml is applied
as it stands into a namespace that admits only restricted pods. Each test leaves it as well as it was.
"""

from __future__ import annotations

import json
import time

import pytest
from tests.cluster.conftest import HOME, under_load
from tests.cluster.faults import control_plane, host_pod, ingress_pods, kill, processes, quietly, replaced
from tests.cluster.kube import Space, until
from tests.cluster.leader import Leader
from tests.cluster.load import Depositors, get, post, ready
from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.kindnodes

API_AWAY_S = 60.0


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


def test_no_client_notices_that_an_ingress_pod_is_deleted(bank: Space, load: Depositors) -> None:
    pod, *_ = ingress_pods(bank)
    bank.kubectl("delete", "pod", pod["metadata"]["name"])


def test_a_killed_ingress_breaks_connections_and_no_call(cluster: Cluster, bank: Space) -> None:
    with under_load(bank, may_break=True) as load:
        pod, *_ = ingress_pods(bank)
        running = processes(cluster, pod)
        kill(cluster, pod, running)
        replaced(cluster, lambda: bank.get("pod", pod["metadata"]["name"]), running)
        bank.until_ready(pod["metadata"]["name"])
    assert load.books.broken, "its clients were connected to it"


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


def test_no_client_notices_that_the_operator_is_killed_in_the_middle_of_an_update(
    cluster: Cluster, bank: Space, load: Depositors
) -> None:
    """Some hosts are on the new template, others on the old one; test_operator_faults.py checks what it writes."""
    leader, before = Leader(cluster), [host_pod(bank, number)["metadata"]["uid"] for number in range(3)]

    def still() -> int:
        """How many hosts are on the old template; between two pods of a name there is none for a moment."""
        pods = bank.get("pods", "-l", "app.kubernetes.io/component=host")["items"]
        return len({pod["metadata"]["uid"] for pod in pods} & set(before))

    spec = {"env": [{"name": "LEVEL", "value": "1"}]}
    bank.kubectl("patch", "actorns", "bank", "--type=merge", "-p", json.dumps({"spec": spec}))
    bank.until(lambda: still() < len(before), "the first host is restarted", 120)
    leader.signal("KILL")
    assert still(), "it was in the middle"
    bank.until(lambda: not still(), "the other replica restarts the rest", 240)
    ready(bank)


def test_calls_go_on_while_the_api_server_stands_still_and_a_worker_is_killed(
    cluster: Cluster, bank: Space, load: Depositors
) -> None:
    """Static stability: nothing on the path of a call asks the API server, nor does the restart of a worker."""
    node, pod = control_plane(cluster), host_pod(bank)

    def signal(name: str) -> None:
        cluster.on_node(node, "sh", "-c", f"kill -{name} $(pidof kube-apiserver)")

    signal("STOP")
    try:
        back = time.monotonic() + API_AWAY_S
        load.all_past(10)
        kill(cluster, pod, processes(cluster, pod)[1:])
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


def made_again(bank: Space, kind: str, name: str) -> None:
    """Delete an object and wait for the operator's next one."""
    uid = bank.get(kind, name)["metadata"]["uid"]
    bank.kubectl("delete", kind, name, "--wait=false")
    bank.until(lambda: bank.get(kind, name)["metadata"]["uid"] != uid, f"a new {kind} {name}")


def test_what_somebody_deletes_is_made_again_and_no_balance_changes(bank: Space, load: Depositors) -> None:
    placement = bank.get("actorplacement", "bank")
    made_again(bank, "actorplacement", "bank")
    made_again(bank, "service", "bank-host")
    after = bank.get("actorplacement", "bank")["spec"]
    assert after["hosts"] == placement["spec"]["hosts"], "the same shards on the same volumes"


def test_all_ingresses_that_somebody_deletes_are_made_again(bank: Space) -> None:
    with under_load(bank, may_break=True):  # for a moment there is none
        made_again(bank, "deployment", "bank-ingress")
        bank.kubectl("rollout", "status", "deployment", "bank-ingress", "--timeout=60s")
