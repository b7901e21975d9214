"""The plan in a simulated cluster: from an apply to a table that serves, and what it does about what changes."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import replace

import msgspec
import pytest
from tests.control.simulation import STOCK, Cluster, hash_of

from kubeactor_operator import names
from kubeactor_operator.actions import Apply, Create, Delete, Grant, Patch, Replace, Tell
from kubeactor_operator.children.sources import peer_credentials
from kubeactor_operator.live import when
from kubeactor_operator.observed import Inventory


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.settle()
    return made


def kinds(cluster: Cluster) -> set[tuple[str, str]]:
    return {key for key in cluster.objects if key[0] not in (names.KIND, "Pod", "PersistentVolumeClaim")}


def test_an_applied_namespace_gets_its_children_a_table_and_is_ready(cluster: Cluster) -> None:
    assert cluster.condition("Ready") == ("True", "Serving")
    assert cluster.condition("Progressing") == ("False", "UpToDate")
    assert cluster.condition("Degraded") == ("False", "AsExpected")
    assert cluster.condition("Stalled")[0] == cluster.condition("Reconciling")[0] == "False"
    assert kinds(cluster) == {
        ("StatefulSet", "bank-host"),
        ("Deployment", "bank-ingress"),
        ("Service", "bank"),
        ("Service", "bank-host"),
        ("Secret", "bank-peer"),
        (names.PLACEMENT_KIND, "bank"),
        ("NetworkPolicy", "bank-host"),
        *(
            (kind, name)
            for kind in ("ServiceAccount", "Role", "RoleBinding", "PodDisruptionBudget")
            for name in ("bank-host", "bank-ingress")
        ),
    }
    table = cluster.table
    assert table
    assert sorted(len(table.shards_of(f"host-{n}")) for n in range(3)) == [2, 3, 3]
    assert cluster.status["shards"] == 8
    assert cluster.status["readyHosts"] == 3
    assert cluster.status["image"] == STOCK


def test_volumes_are_recorded_before_any_shard_is_granted() -> None:
    cluster = Cluster()
    while not any(isinstance(action, Grant) for action in cluster.decide().actions):
        cluster.step()
    table = cluster.table
    assert table
    assert set(table.volumes) == {"host-0", "host-1", "host-2"}
    assert all(table.owner(shard) is None for shard in range(8))


def test_every_child_belongs_to_the_namespace_and_has_no_finalizer(cluster: Cluster) -> None:
    for key in kinds(cluster):
        metadata = cluster.objects[key]["metadata"]
        assert metadata["ownerReferences"][0]["uid"] == cluster.namespace["metadata"]["uid"], key
        assert "finalizers" not in metadata


def test_nothing_is_written_in_quiet_time(cluster: Cluster) -> None:
    before = cluster.writes
    for _ in range(10):
        cluster.tick(20)
        assert cluster.decide().actions == ()
        cluster.step()
    assert cluster.writes == before


def test_the_plan_is_a_function_of_what_it_sees(cluster: Cluster) -> None:
    cluster.apply_spec({"image": "bank:2"})
    observed = cluster.observe()
    assert cluster.decide(observed) == cluster.decide(observed)


@pytest.mark.parametrize(
    "key",
    [("Service", "bank"), ("Role", "bank-host"), ("NetworkPolicy", "bank-host"), ("Deployment", "bank-ingress")],
)
def test_a_child_that_was_deleted_or_changed_by_hand_is_repaired(cluster: Cluster, key: tuple[str, str]) -> None:
    good = cluster.objects[key]["spec" if "spec" in cluster.objects[key] else "rules"]
    cluster.remove(key)
    cluster.settle()
    cluster.objects[key]["spec" if "spec" in cluster.objects[key] else "rules"] = {"ports": []}
    if key[0] == "Deployment":
        cluster.objects[key]["spec"] = {**good, "replicas": 7}
    cluster.settle()
    assert cluster.objects[key]["spec" if "spec" in cluster.objects[key] else "rules"] == good


def test_what_the_spec_no_longer_wants_is_deleted(cluster: Cluster) -> None:
    cluster.apply_spec({"hosts": {"replicas": 3, "networkPolicy": False}, "ingress": {"replicas": 1}})
    cluster.settle()
    assert ("NetworkPolicy", "bank-host") not in cluster.objects
    assert ("PodDisruptionBudget", "bank-ingress") not in cluster.objects


def test_an_autoscaler_may_own_the_number_of_ingresses(cluster: Cluster) -> None:
    cluster.apply_spec({"ingress": {"replicas": None}})
    cluster.settle()
    assert "replicas" not in cluster.objects[("Deployment", "bank-ingress")]["spec"]


def test_a_paused_namespace_is_left_alone_and_says_so(cluster: Cluster) -> None:
    cluster.annotate(paused="true")
    cluster.apply_spec({"image": "bank:2"})
    cluster.remove(("Service", "bank"))
    cluster.settle()
    assert cluster.condition("Paused") == ("True", "PausedByAnnotation")
    assert cluster.condition("Ready") == ("True", "Serving")
    assert ("Service", "bank") not in cluster.objects
    cluster.annotate(paused=None)
    cluster.settle()
    assert cluster.condition("Paused") == ("False", "NotPaused")
    assert ("Service", "bank") in cluster.objects


def test_a_namespace_that_is_being_deleted_is_left_alone(cluster: Cluster) -> None:
    cluster.namespace["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cluster.remove(("Service", "bank"))
    assert not [action for action in cluster.decide().actions if not isinstance(action, Tell)]


def test_hosts_replicas_of_0_hibernates_and_keeps_volumes_and_table(cluster: Cluster) -> None:
    table, volumes = cluster.table, dict(cluster.volumes)
    cluster.apply_spec({"hosts": {"replicas": 0}})
    cluster.settle()
    assert cluster.condition("Ready") == ("False", "Hibernated")
    assert cluster.status["hosts"] == 0
    assert cluster.table == table
    cluster.apply_spec({"hosts": {"replicas": 3}})
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Serving")
    assert cluster.table == table
    assert cluster.volumes == volumes


@pytest.mark.parametrize("replicas", [2, 5])
def test_a_change_that_needs_moves_waits_and_says_so(cluster: Cluster, replicas: int) -> None:
    table = cluster.table
    cluster.apply_spec({"hosts": {"replicas": replicas}})
    cluster.settle()
    assert cluster.condition("Progressing") == ("True", "WaitingForMoves")
    assert cluster.condition("Reconciling")[0] == "True"
    assert cluster.condition("Ready") == ("True", "Serving")
    assert cluster.table == table
    assert cluster.status["readyHosts"] == max(3, replicas)


def test_one_host_needs_no_budget_and_restarts_alone() -> None:
    cluster = Cluster({"hosts": {"replicas": 1}})
    cluster.settle()
    assert ("PodDisruptionBudget", "bank-host") not in cluster.objects
    cluster.apply_spec({"image": "bank:2"})
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Serving")


def test_reclaim_is_an_owner_reference_that_can_be_changed_later(cluster: Cluster) -> None:
    assert "ownerReferences" not in cluster.claim("host-0")["metadata"]
    cluster.apply_spec({"hosts": {"replicas": 3, "storage": {"reclaim": "Delete"}}})
    cluster.settle()
    (reference,) = cluster.claim("host-0")["metadata"]["ownerReferences"]
    assert reference["uid"] == cluster.namespace["metadata"]["uid"]
    assert "controller" not in reference
    cluster.apply_spec({"hosts": {"replicas": 3, "storage": {"reclaim": "Retain"}}})
    cluster.settle()
    assert cluster.claim("host-0")["metadata"]["ownerReferences"] == []


@pytest.mark.parametrize("reclaim", ["Delete", "Retain"])
def test_the_volume_of_a_host_scaled_in_is_deleted_only_when_it_is_empty_and_the_user_said_so(reclaim: str) -> None:
    cluster = Cluster({"hosts": {"replicas": 2, "storage": {"reclaim": reclaim}}})
    cluster.settle()
    cluster.apply_spec({"hosts": {"replicas": 3, "storage": {"reclaim": reclaim}}})
    cluster.settle()
    assert ("PersistentVolumeClaim", "data-bank-host-2") in cluster.objects
    cluster.apply_spec({"hosts": {"replicas": 2, "storage": {"reclaim": reclaim}}})
    cluster.settle()
    assert (("PersistentVolumeClaim", "data-bank-host-2") in cluster.objects) is (reclaim == "Retain")
    cluster.apply_spec({"hosts": {"replicas": 1, "storage": {"reclaim": reclaim}}})
    cluster.settle()
    assert ("PersistentVolumeClaim", "data-bank-host-1") in cluster.objects  # it owns shards


def test_growth_patches_the_claims_and_replaces_the_stateful_set_around_running_pods(cluster: Cluster) -> None:
    before = cluster.objects[("StatefulSet", "bank-host")]["metadata"]["uid"]
    pods = {f"host-{n}": cluster.pod(f"host-{n}")["metadata"]["uid"] for n in range(3)}
    cluster.apply_spec({"hosts": {"replicas": 3, "storage": {"size": "2Gi"}}})
    for _ in range(5):
        cluster.step()
    assert cluster.condition("Progressing") == ("True", "GrowingVolumes")
    assert cluster.objects[("StatefulSet", "bank-host")]["metadata"]["uid"] == before
    for n in range(3):
        claim = cluster.claim(f"host-{n}")
        assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"
        claim["status"]["capacity"]["storage"] = "2Gi"
    cluster.settle()
    made = cluster.objects[("StatefulSet", "bank-host")]
    assert made["metadata"]["uid"] != before
    assert made["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "2Gi"
    assert pods == {f"host-{n}": cluster.pod(f"host-{n}")["metadata"]["uid"] for n in range(3)}
    assert cluster.condition("Progressing") == ("False", "UpToDate")


def test_a_code_config_map_is_copied_and_code_changes_only_by_a_rollout() -> None:
    cluster = Cluster({"code": {"configMap": "bank-code"}})
    cluster.put({"kind": "ConfigMap", "metadata": {"name": "bank-code"}, "data": {"bank.py": "1"}})
    cluster.settle()
    for content in "2345":
        hashes = cluster.status["codeHash"]
        cluster.objects[("ConfigMap", "bank-code")]["data"] = {"bank.py": content}
        cluster.settle()
        assert cluster.status["codeHash"] != hashes
    copies = [one for (kind, name), one in cluster.objects.items() if kind == "ConfigMap" and name != "bank-code"]
    assert len(copies) == 3
    assert all(copy["immutable"] for copy in copies)
    assert {copy["data"]["bank.py"] for copy in copies} >= {"5"}
    mounted = {
        volume["configMap"]["name"] for volume in cluster.pod("host-0")["spec"]["volumes"] if "configMap" in volume
    }
    assert mounted == {f"bank-code-{cluster.status['codeHash']}"}


def test_an_operator_upgrade_restarts_nothing_and_spec_version_does(cluster: Cluster) -> None:
    observed = cluster.observe()
    assert cluster.decide(replace(observed, stock_image="kubeactor/host:0.2.0")).actions == ()
    cluster.apply_spec({"version": "0.2.0"})
    cluster.settle()
    assert cluster.status["image"] == "kubeactor/host:0.2.0"
    cluster.apply_spec({"version": None, "image": "registry:5000/mine:1"})
    cluster.settle()
    cluster.apply_spec({"image": None})
    cluster.settle()
    assert cluster.status["image"] == STOCK


def test_a_new_template_is_tried_then_hosts_restart_one_at_a_time_and_the_ingresses_follow(cluster: Cluster) -> None:
    old = hash_of(cluster.pod("host-0"))
    cluster.apply_spec({"image": "bank:2"})
    steps = []
    for _ in range(30):
        decided = cluster.step()
        steps += [(type(a).__name__, a.live["kind"]) for a in decided.actions if isinstance(a, Delete | Apply)]
    deleted = [step for step in steps if step == ("Delete", "Pod")]
    assert len(deleted) == 4  # the preflight pod and three hosts
    assert steps[-2:] == [("Apply", "StatefulSet"), ("Apply", "Deployment")]  # the last good template, the ingresses
    assert {hash_of(cluster.pod(f"host-{n}")) for n in range(3)}.isdisjoint({old})
    assert (
        cluster.objects[("Deployment", "bank-ingress")]["spec"]["template"]["spec"]["containers"][0]["image"]
        == "bank:2"
    )
    assert cluster.condition("Progressing") == ("False", "UpToDate")
    cluster.settle()


def test_a_template_that_fails_its_preflight_changes_nothing_that_runs(cluster: Cluster) -> None:
    pods = {f"host-{n}": cluster.pod(f"host-{n}")["metadata"]["uid"] for n in range(3)}
    good = deepcopy(cluster.objects[("StatefulSet", "bank-host")]["spec"]["template"])
    cluster.bad_images.add("bank:bad")
    cluster.apply_spec({"image": "bank:bad"})
    cluster.settle()
    assert cluster.condition("Degraded") == ("True", "PreflightFailed")
    assert cluster.condition("Stalled") == ("True", "PreflightFailed")
    assert cluster.condition("Progressing") == ("False", "Stopped")
    assert cluster.condition("Ready") == ("True", "Serving")
    assert "can't be imported" in cluster.status["conditions"][2]["message"]
    assert cluster.objects[("StatefulSet", "bank-host")]["spec"]["template"] == good
    assert pods == {f"host-{n}": cluster.pod(f"host-{n}")["metadata"]["uid"] for n in range(3)}
    cluster.objects[("StatefulSet", "bank-host")]["spec"]["template"]["spec"]["containers"][0]["image"] = "x"
    cluster.settle()  # drift is repaired to the last good template, not to the bad one
    assert cluster.objects[("StatefulSet", "bank-host")]["spec"]["template"] == good
    cluster.apply_spec({"image": "bank:2"})
    cluster.settle()
    assert cluster.condition("Degraded") == ("False", "AsExpected")
    assert cluster.status["image"] == "bank:2"


def test_a_rollout_stops_at_the_first_host_that_does_not_come_back_and_puts_it_back(cluster: Cluster) -> None:
    good = cluster.objects[("StatefulSet", "bank-host")]["spec"]["template"]
    others = {f"host-{n}": cluster.pod(f"host-{n}")["metadata"]["uid"] for n in range(2)}
    cluster.crashing.add("bank:crash")
    cluster.apply_spec({"image": "bank:crash"})
    cluster.settle()
    assert cluster.condition("Degraded") == ("True", "RolloutStopped")
    assert "boom" in cluster.status["conditions"][2]["message"]
    assert cluster.condition("Ready") == ("True", "Serving")
    assert cluster.objects[("StatefulSet", "bank-host")]["spec"]["template"] == good
    assert others == {f"host-{n}": cluster.pod(f"host-{n}")["metadata"]["uid"] for n in range(2)}
    assert hash_of(cluster.pod("host-2")) == hash_of(cluster.pod("host-0"))
    cluster.apply_spec({"image": "bank:2"})
    cluster.settle()
    assert cluster.condition("Degraded") == ("False", "AsExpected")
    assert names.FAILED not in cluster.objects[("StatefulSet", "bank-host")]["metadata"]["annotations"]
    assert {cluster.pod(f"host-{n}")["spec"]["containers"][0]["image"] for n in range(3)} == {"bank:2"}


def test_hosts_that_never_served_are_replaced_when_the_spec_is_mended() -> None:
    cluster = Cluster({"image": "bank:crash"})
    cluster.crashing.add("bank:crash")
    for _ in range(30):
        cluster.step()
    assert cluster.condition("Ready") == ("False", "Starting")
    cluster.apply_spec({"image": "bank:2"})
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Serving")


def test_credentials_are_made_once_and_rotated_without_anyone_being_refused(cluster: Cluster) -> None:
    def secret() -> tuple[str, str]:
        return peer_credentials(cluster.objects[("Secret", "bank-peer")])

    assert secret() == ("secret", "")
    cluster.annotate(**{"rotate-peer": "now"})
    cluster.execute(cluster.decide(replace(cluster.observe(), credential="new")))
    assert secret() == ("secret", "new")
    for _ in range(3):
        cluster.step()
    assert cluster.condition("Progressing") == ("True", "RotatingCredentials")
    assert secret() == ("secret", "new")
    observed = cluster.observe()
    accepted = (hashlib.sha256(b"new").hexdigest()[:16],)
    reports = {
        host: msgspec.structs.replace(report, credentials=accepted)
        for host, report in observed.inventories.items()
        if isinstance(report, Inventory)
    }
    cluster.execute(cluster.decide(replace(observed, inventories=reports)))
    assert secret() == ("new", "secret")
    cluster.settle()
    assert cluster.condition("Progressing") == ("False", "UpToDate")


def test_every_write_carries_what_it_was_decided_on(cluster: Cluster) -> None:
    cluster.apply_spec({"image": "bank:2", "hosts": {"replicas": 3, "storage": {"size": "2Gi"}}})
    for _ in range(12):
        for action in cluster.step().actions:
            if isinstance(action, Apply | Replace | Patch | Delete):
                assert action.live["metadata"]["resourceVersion"]
                assert action.live["metadata"]["uid"]
            elif isinstance(action, Create):
                assert "resourceVersion" not in action.manifest["metadata"]


def test_times_of_conditions_change_only_with_their_status(cluster: Cluster) -> None:
    since = {one["type"]: one["lastTransitionTime"] for one in cluster.status["conditions"]}
    cluster.tick(100)
    cluster.apply_spec({"ingress": {"replicas": 3}})
    cluster.settle()
    assert (
        since["Ready"]
        == next(one for one in cluster.status["conditions"] if one["type"] == "Ready")["lastTransitionTime"]
    )
    assert when(since["Ready"]) < cluster.now
