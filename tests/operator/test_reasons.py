"""Every reason of every condition is produced by something that happens, in a simulated cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from tests.operator.simulation import Cluster

from kubeactor.placement import FORMAT
from kubeactor_operator import names
from kubeactor_operator.actions import Action, Create, Delete, Patch, Tell
from kubeactor_operator.api import ApiError
from kubeactor_operator.conditions import REASONS
from kubeactor_operator.controller import _invalid
from kubeactor_operator.observed import Inventory, Object, Probe, Silent
from kubeactor_operator.spec import ActorNamespace, SpecError

Scenario = Callable[[], Cluster]
SCENARIOS: dict[str, Scenario] = {}


def scenario(reason: str) -> Callable[[Scenario], Scenario]:
    def note(made: Scenario) -> Scenario:
        SCENARIOS[reason] = made
        return made

    return note


def settled(**spec: object) -> Cluster:
    cluster = Cluster(spec)
    cluster.settle()
    return cluster


def steps(cluster: Cluster, count: int = 5) -> Cluster:
    for _ in range(count):
        cluster.step()
    return cluster


@scenario("Serving")
@scenario("UpToDate")
@scenario("AsExpected")
@scenario("NotPaused")
def serving() -> Cluster:
    return settled()


@scenario("Starting")
@scenario("TryingTemplate")
def starting() -> Cluster:
    return steps(Cluster(), 1)


@scenario("Creating")
def creating() -> Cluster:
    return steps(Cluster(), 2)


@scenario("HostsNotServing")
def hosts_not_serving() -> Cluster:
    cluster = settled()
    cluster.missing_nodes.add("host-1")
    cluster.remove(("Pod", "bank-host-1"))
    for _ in range(3):
        assert cluster.condition("Ready")[0] == "True", "false only after three misses, 10 s apart"
        cluster.tick(10)
        cluster.step()
    return cluster


@scenario("ShardsWithoutOwner")
@scenario("PlacementIncomplete")
def shards_without_owner() -> Cluster:
    cluster = settled()
    one, other = cluster.volume("host-0"), cluster.volume("host-1")
    shard = next(iter(one.states))
    other.states[shard] = one.states[shard]  # a disk that was copied
    cluster.tick(2)
    cluster.settle()
    table = cluster.table
    assert table
    assert table.owner(shard) is None
    return cluster


@scenario("Hibernated")
def hibernated() -> Cluster:
    cluster = settled()
    cluster.apply_spec({"hosts": {"replicas": 0}})
    cluster.settle()
    return cluster


@scenario("IngressUnreachable")
def ingress_unreachable() -> Cluster:
    cluster = settled()
    cluster.ingress_down = True
    return steps(cluster, 1)


@scenario("RollingOut")
def rolling_out() -> Cluster:
    cluster = settled()
    cluster.apply_spec({"image": "bank:2"})
    return steps(cluster, 3)


@scenario("Scaling")
def scaling() -> Cluster:
    cluster = settled()
    cluster.objects[("Deployment", "bank-ingress")]["status"]["replicas"] = 3
    cluster.step()
    return cluster


@scenario("WaitingForMoves")
def waiting_for_moves() -> Cluster:
    cluster = settled()
    cluster.apply_spec({"hosts": {"replicas": 2}})
    cluster.settle()
    return cluster


@scenario("GrowingVolumes")
def growing_volumes() -> Cluster:
    cluster = settled()
    cluster.apply_spec({"hosts": {"storage": {"size": "2Gi"}}})
    return steps(cluster)


@scenario("RebuildingPlacement")
def rebuilding_placement() -> Cluster:
    cluster = settled()
    cluster.remove((names.PLACEMENT_KIND, "bank"))
    cluster.silent.add("host-1")
    cluster.remove(("Pod", "bank-host-1"))
    cluster.tick()
    return steps(cluster)


@scenario("RotatingCredentials")
def rotating_credentials() -> Cluster:
    cluster = settled()
    cluster.fresh = "new"
    cluster.annotate(**{"rotate-peer": "today"})
    return steps(cluster)


@scenario("Stopped")
@scenario("PreflightFailed")
def preflight_failed() -> Cluster:
    cluster = settled()
    cluster.bad_images.add("bank:bad")
    cluster.apply_spec({"image": "bank:bad"})
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Serving")
    return cluster


@scenario("InvalidSpec")
def invalid_spec() -> Cluster:
    cluster = settled()
    body = {**cluster.namespace, "spec": {"actors": "none"}}
    with pytest.raises(SpecError) as error:
        ActorNamespace.of(body)
    cluster.write_status(_invalid(body, str(error.value)))
    return cluster


@scenario("NameConflict")
def name_conflict() -> Cluster:
    cluster = Cluster()
    cluster.put({"kind": "Service", "metadata": {"name": "bank-host"}, "spec": {}})
    cluster.settle()
    assert cluster.objects[("Service", "bank-host")]["spec"] == {}
    assert ("StatefulSet", "bank-host") not in cluster.objects
    return cluster


def refusing(cluster: Cluster, kind: str, status: int, message: str) -> Cluster:
    def refuse(action: Action) -> tuple[int, str] | None:
        thing = action.manifest if isinstance(action, Create) else getattr(action, "live", None)
        return (status, message) if thing and thing["kind"] == kind else None

    cluster.refuse = refuse
    return cluster


@scenario("InvalidPodSettings")
def invalid_pod_settings() -> Cluster:
    cluster = settled()
    refusing(cluster, "Pod", 422, "spec.tolerations[0].operator: Unsupported value")
    cluster.apply_spec({"hosts": {"tolerations": [{"operator": "Nonsense"}]}})
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Serving")
    cluster.apply_spec({"hosts": {}})
    cluster.settle()
    assert cluster.condition("Degraded") == ("False", "AsExpected")
    cluster.apply_spec({"hosts": {"tolerations": [{"operator": "Nonsense"}]}})
    cluster.settle()
    return cluster


@scenario("RefusedByCluster")
def refused_by_cluster() -> Cluster:
    return steps(refusing(Cluster(), "Service", 403, "exceeded quota: services=2"))


@scenario("CodeMissing")
def code_missing() -> Cluster:
    cluster = Cluster({"code": {"configMap": "bank-code"}})
    cluster.put({"kind": "ConfigMap", "metadata": {"name": "bank-code"}, "data": {"bank.py": "1"}})
    cluster.settle()
    cluster.remove(("ConfigMap", "bank-code"))
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Serving")
    return cluster


@scenario("ImagePullFailed")
def image_pull_failed() -> Cluster:
    cluster = settled()
    cluster.unpullable.add("bank:none")
    cluster.apply_spec({"image": "bank:none"})
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Serving")
    assert "bank:none can't be pulled: not found" in cluster.status["conditions"][2]["message"]
    return cluster


@scenario("UnsupportedVersion")
def unsupported_version() -> Cluster:
    cluster = settled()
    observed = cluster.observe()
    new = {
        h: msgspec.structs.replace(i, protocol=9) for h, i in observed.inventories.items() if isinstance(i, Inventory)
    }
    cluster.write_status(cluster.decide(replace(observed, inventories=new)).status)
    assert cluster.condition("Ready") == ("True", "Serving")
    return cluster


@scenario("RolloutStopped")
def rollout_stopped() -> Cluster:
    cluster = settled()
    cluster.crashing.add("bank:crash")
    cluster.apply_spec({"image": "bank:crash"})
    cluster.settle()
    return cluster


@scenario("VolumesOfAnotherNamespace")
def volumes_of_another_namespace() -> Cluster:
    cluster = settled()
    cluster.recreate()
    cluster.settle()
    assert ("StatefulSet", "bank-host") not in cluster.objects
    return cluster


@scenario("PlacementTooNew")
def placement_too_new() -> Cluster:
    cluster = settled()
    live = cluster.objects[(names.PLACEMENT_KIND, "bank")]
    live["spec"]["format"] = FORMAT + 1
    cluster.remove(("Service", "bank"))
    cluster.settle()
    assert ("Service", "bank") not in cluster.objects, "it changes nothing"
    return cluster


@scenario("VolumeLost")
def volume_lost() -> Cluster:
    cluster = settled()
    cluster.wipe("host-1")
    cluster.settle()
    assert [cluster.volume("host-1").states, len(cluster.volume("host-0").states)] == [{}, 3]
    return cluster


@scenario("VolumeUnreachable")
def volume_unreachable() -> Cluster:
    cluster = settled()
    cluster.missing_nodes.add("host-1")
    cluster.remove(("Pod", "bank-host-1"))
    cluster.tick(30)
    cluster.tick(30)
    cluster.settle()
    message = cluster.status["conditions"][2]["message"]
    assert "kubectl delete pvc data-bank-host-1" in message
    assert "kubeactor forget bank host-1 --accept-data-loss" in message
    return cluster


@scenario("ExpansionUnsupported")
def expansion_unsupported() -> Cluster:
    cluster = settled()
    refusing(cluster, "PersistentVolumeClaim", 403, "only dynamically provisioned pvc can be resized")
    cluster.apply_spec({"hosts": {"storage": {"size": "2Gi"}}})
    steps(cluster)
    assert cluster.condition("Ready") == ("True", "Serving")
    assert cluster.condition("Progressing") == ("False", "Stopped")
    return cluster


@scenario("DiskFull")
def disk_full() -> Cluster:
    cluster = settled()
    cluster.full.add("host-1")
    before = cluster.pod("host-1")["metadata"]["uid"]
    cluster.settle()
    assert cluster.pod("host-1")["metadata"]["uid"] == before, "a full disk is not healed by a new pod"
    message = cluster.status["conditions"][2]["message"]
    assert "host-1 is 100 % full, about 1024 MiB used and 0 MiB free: raise hosts.storage.size" in message
    return cluster


@scenario("HostCrashLooping")
def host_crash_looping() -> Cluster:
    cluster = settled()
    cluster.looping.add("host-1")
    deletions = 0
    for _ in range(150):
        deletions += sum(isinstance(one, Delete) and one.live["kind"] == "Pod" for one in cluster.step().actions)
    assert deletions == 3
    assert "exit code 1 (Error): boom" in cluster.status["conditions"][2]["message"]
    return cluster


@scenario("HostUnschedulable")
def host_unschedulable() -> Cluster:
    cluster = settled()
    cluster.missing_nodes.add("host-1")
    cluster.unschedulable = "0/3 nodes are available: 3 Insufficient memory."
    cluster.remove(("Pod", "bank-host-1"))
    cluster.tick(30)
    cluster.tick(30)
    cluster.settle()
    return cluster


@scenario("OperatorCannotReachHosts")
def operator_cannot_reach_hosts() -> Cluster:
    cluster = settled()
    cluster.tick(130)
    cluster.hung |= {"host-0", "host-1"}
    pods = [cluster.pod(f"host-{n}")["metadata"]["uid"] for n in range(3)]
    for _ in range(8):
        cluster.tick(10)
        cluster.step()
    assert pods == [cluster.pod(f"host-{n}")["metadata"]["uid"] for n in range(3)]
    return cluster


@scenario("HostDown")
def host_down() -> Cluster:
    cluster = settled()
    cluster.hung.add("host-1")
    cluster.tick(30)
    return steps(cluster, 1)


@scenario("PausedByAnnotation")
def paused() -> Cluster:
    cluster = settled()
    cluster.annotate(paused="true")
    cluster.settle()
    return cluster


@pytest.mark.parametrize("name", REASONS)
def test_every_reason_is_told_when_its_cause_is_there(name: str) -> None:
    cluster, reason = SCENARIOS[name](), REASONS[name]
    assert cluster.condition(reason.type) == (reason.status, name)


def test_a_volume_that_is_too_full_to_be_opened_is_told_as_full_and_its_pod_left_alone() -> None:
    cluster = settled()
    cluster.tick(130)
    before = cluster.pod("host-1")["metadata"]["uid"]
    cluster.shut.add("host-1")
    for _ in range(8):
        cluster.tick(10)
        cluster.step()
    assert cluster.condition("Degraded") == ("True", "DiskFull")
    assert "host-1 is 100 % full, about 1024 MiB used and 0 MiB free" in cluster.status["conditions"][2]["message"]
    assert cluster.condition("Ready") == ("False", "HostsNotServing")
    assert cluster.pod("host-1")["metadata"]["uid"] == before
    cluster.shut.clear()
    cluster.settle()
    assert cluster.condition("Degraded") == ("False", "AsExpected")


@pytest.mark.parametrize("percent", [95.0, 95.49, 95.5, 95.51, 96.0])
def test_a_full_disk_whose_figures_move_a_little_causes_no_write(percent: float) -> None:
    cluster = settled()
    cluster.full.add("host-1")
    total = 2**30
    cluster.used_bytes = int(total * percent / 100)
    cluster.settle()
    before = cluster.writes
    for moved in (1, -3, 4, 2, -4, 0):
        cluster.used_bytes = int(total * (percent + moved / 10) / 100)
        cluster.step()
    assert cluster.writes == before
    cluster.used_bytes = int(total * (percent + 1.5) / 100)
    cluster.settle()
    assert cluster.writes == before + 1, "what is told is at most one per cent off"


def test_a_hanging_supervisor_is_replaced_only_when_an_ingress_says_the_same() -> None:
    cluster = settled()
    cluster.silent.add("host-1")  # the operator does not reach it, ingresses do
    before = cluster.pod("host-1")["metadata"]["uid"]
    for _ in range(10):
        cluster.tick(10)
        cluster.step()
    assert cluster.pod("host-1")["metadata"]["uid"] == before
    assert cluster.condition("Ready") == ("True", "Serving")
    cluster.hung.add("host-1")
    told: list[Tell] = []
    for _ in range(6):
        cluster.tick(10)
        decided = cluster.step()
        told += [one for one in decided.actions if isinstance(one, Tell) and one.reason == "HealingHost"]
        if cluster.pod("host-1")["metadata"]["uid"] != before:
            cluster.hung.clear()
            cluster.silent.clear()
            break
    assert len(told) == 1
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Serving")


def assert_left_alone(cluster: Cluster) -> None:
    """Probes miss host-1 for as long as a pod is healed after, and it stays."""
    before = cluster.pod("host-1")["metadata"]["uid"]
    cluster.hung.add("host-1")
    for _ in range(10):
        cluster.tick(10)
        cluster.step()
    assert cluster.probes["host-1"].misses > 3
    assert cluster.pod("host-1")["metadata"]["uid"] == before


def test_a_supervisor_that_answers_is_left_to_mend_its_worker_whatever_ingresses_say() -> None:
    """Such as after a failed sync, which a restart of the worker clears, or when its volume can't be opened."""
    cluster = settled()
    cluster.tick(130)
    asked = cluster._inventory

    def answers(host: str, pod: Object) -> Inventory | Silent | None:
        return Silent("a sync failed: Input/output error", True) if host == "host-1" else asked(host, pod)

    cluster._inventory = answers  # type: ignore[method-assign]
    assert_left_alone(cluster)
    assert cluster.condition("Ready") == ("False", "HostsNotServing")


@pytest.mark.parametrize(("age_s", "told"), [(59.0, ("True", "Serving")), (61.0, ("False", "Starting"))])
def test_a_probe_that_passed_more_than_a_minute_ago_earns_nothing(age_s: float, told: tuple[str, str]) -> None:
    cluster = settled()
    observed = cluster.observe()
    probes = {**observed.probes, "host-1": Probe(passed_at=cluster.now - age_s)}
    decided = cluster.decide(replace(observed, probes=probes, status={**observed.status, "conditions": []}))
    ready = next(one for one in decided.status["conditions"] if one["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == told


def test_a_host_whose_node_has_no_power_is_left_to_its_node() -> None:
    cluster = settled()
    cluster.tick(130)
    cluster.dark.add("host-1")
    assert_left_alone(cluster)
    assert cluster.condition("Degraded") == ("True", "HostDown")
    (told,) = [one["message"] for one in cluster.status["conditions"] if one["type"] == "Degraded"]
    assert told == "bank-host-1: its node does not answer. It comes back with its node"


def test_a_host_that_is_slow_to_start_is_not_healed() -> None:
    cluster = settled()
    cluster.tick(130)
    cluster.hung.add("host-1")
    cluster.remove(("Pod", "bank-host-1"))
    cluster.tick()
    before = cluster.pod("host-1")["metadata"]["uid"]
    for _ in range(10):
        cluster.tick(10)
        cluster.step()
    assert cluster.probes["host-1"].misses > 3
    assert cluster.pod("host-1")["metadata"]["uid"] == before


def test_no_pod_is_healed_while_another_of_the_namespace_is_being_deleted() -> None:
    cluster = settled()
    cluster.looping.add("host-1")
    while not any(isinstance(one, Delete) for one in cluster.decide().actions):
        cluster.step()
    other = cluster.pod("host-0")["metadata"]
    other["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not any(isinstance(one, Delete) for one in cluster.decide().actions)
    del other["deletionTimestamp"]
    assert any(isinstance(one, Delete) for one in cluster.decide().actions)


def test_healing_says_why_and_notes_it_before_it_deletes() -> None:
    cluster = settled()
    cluster.looping.add("host-1")
    decided = cluster.step()
    while not any(isinstance(one, Delete) for one in decided.actions):
        decided = cluster.step()
    done = [one for one in decided.actions if isinstance(one, Tell | Patch | Delete)]
    assert [type(one) for one in done[:3]] == [Tell, Patch, Delete]
    assert cluster.condition("Degraded")[1] == "HostDown"
    for text in (done[0].message if isinstance(done[0], Tell) else "", cluster.status["conditions"][2]["message"]):
        assert "bank-host-1 is in back-off: exit code 1 (Error): boom" in text


def test_healing_waits_2_20_and_60_seconds_and_stops_after_three_in_ten_minutes() -> None:
    cluster = settled()
    cluster.looping.add("host-1")
    deleted: list[float] = []
    started = cluster.now
    while cluster.now - started < 590:
        now = cluster.now
        if any(isinstance(one, Delete) for one in cluster.step().actions):
            deleted.append(now)
    first, second, third = deleted
    assert first - started >= 2
    assert 20 <= second - first < 25
    assert 60 <= third - second < 65
    cluster.looping.clear()
    cluster.tick()
    cluster.settle()
    assert cluster.condition("Degraded") == ("False", "AsExpected")


def test_an_event_tells_of_each_change_of_a_condition_once() -> None:
    cluster = preflight_failed()
    told = [one for one in cluster.events if one.reason == "PreflightFailed"]
    assert len(told) == 1
    assert told[0].warning
    assert "can't be imported" in told[0].message


def test_an_api_error_knows_whether_it_is_stale_or_final() -> None:
    assert ApiError(409, "").stale
    assert ApiError(422, "").refused
    assert not ApiError(0, "").stale
    assert not ApiError(503, "").refused
    assert Probe().passed_at is None
