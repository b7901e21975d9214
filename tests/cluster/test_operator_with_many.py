"""Fifty ActorNamespaces of which none can run cost the API server reads only; then five of them run."""

from __future__ import annotations

import time

import pytest
from tests.cluster.beside import metric
from tests.cluster.kube import until
from tests.cluster.leader import Leader
from tests.cluster.many import Many
from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.kindnodes

QUIET_S = 120.0
COUNTED_S = 30.0  # of these, with no other namespace that changes: each of the fifty is looked at three times
LOOKS = "kubeactor_operator_reconcile_seconds"


def test_fifty_namespaces_that_no_node_takes_are_written_to_never_in_two_minutes(cluster: Cluster, many: Many) -> None:
    """Other tests ran meanwhile: they are part of the two minutes."""

    def alone() -> bool:
        found = cluster.kube.get("actorns", "-A")["items"]
        return {one["metadata"]["namespace"].partition("-")[0] for one in found} <= {"many", "bank"}

    until(alone, "the namespaces of other tests are gone", 120)
    leader = Leader(cluster, since=time.time())
    before = leader.metrics()
    time.sleep(max(COUNTED_S, many.since + QUIET_S - time.time()))  # nothing is waited for: it is how long is counted
    after = leader.metrics()

    def counted(name: str) -> float:
        return metric(after, name) - metric(before, name)

    assert many.versions() == many.objects
    looks = counted(f"{LOOKS}_count")
    assert looks >= len(many.banks)
    assert counted("kubeactor_operator_actions_total") == 0
    took_ms = counted(f"{LOOKS}_sum") / looks * 1000
    print(
        f"{len(many.banks)} idle namespaces: {looks:.0f} looks of {took_ms:.0f} ms, nothing written for "
        f"{time.time() - many.since:.0f} s, {leader.memory_mib():.0f} MiB"
    )


def test_five_of_them_run_once_a_node_takes_them_and_are_debited(many: Many) -> None:
    running, others = many.banks[:5], {bank.name for bank in many.banks[5:]}
    for bank in running:
        bank.patch(hosts={"nodeSelector": None}, ingress={"nodeSelector": None})
    for bank in running:
        bank.serves()
        assert bank.deposit("alice", 10) == 10
        assert bank.call("alice/debit", amount=3) == {"ok": True, "balance": 7}
    now = many.versions()
    still = [key for key in many.objects if key.startswith("ActorNamespace/") and key.partition("/")[2] in others]
    assert len(still) == len(others)
    assert {key: now[key] for key in still} == {key: many.objects[key] for key in still}
