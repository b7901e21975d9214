"""The plan in a simulated sim: from an apply to a table that serves, and what it does about what changes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
from tests.operator.simulation import STOCK, Cluster

from kubeactor_operator import names
from kubeactor_operator.actions import Apply, Create, Delete, Grant, Patch, Replace, Tell
from kubeactor_operator.children import pods
from kubeactor_operator.children.pods import template_hash
from kubeactor_operator.children.sources import peer_credentials
from kubeactor_operator.live import timestamp, when
from kubeactor_operator.observed import Probe

HOSTS = [f"host-{n}" for n in range(3)]
WORKLOADS = [("StatefulSet", "bank-host"), ("Deployment", "bank-ingress")]


@pytest.fixture
def sim() -> Cluster:
    made = Cluster()
    made.settle()
    return made


def message(sim: Cluster, type: str) -> str:
    return str(next(one for one in sim.status["conditions"] if one["type"] == type)["message"])


def kinds(sim: Cluster) -> set[tuple[str, str]]:
    return {key for key in sim.objects if key[0] not in (names.KIND, "Pod", "PersistentVolumeClaim")}


def test_a_namespace_is_ready_only_once_its_service_leads_to_an_ingress() -> None:
    """Else a caller who waited for Ready is refused: probes go to the pods' addresses, calls to the Service."""
    sim = Cluster()
    sim.unrouted = True
    sim.settle()
    assert sim.condition("Ready") == ("False", "Starting")
    assert message(sim, "Ready") == "no ingress is available to the Service yet"
    sim.unrouted = False
    sim.settle()
    assert sim.condition("Ready") == ("True", "Serving")
    sim.unrouted = True
    sim.settle()
    assert sim.condition("Ready") == ("True", "Serving"), "once it was, probes decide"


def test_an_applied_namespace_gets_its_children_a_table_and_is_ready(sim: Cluster) -> None:
    assert sim.condition("Ready") == ("True", "Serving")
    assert sim.condition("Progressing") == ("False", "UpToDate")
    assert sim.condition("Degraded") == ("False", "AsExpected")
    assert sim.condition("Stalled")[0] == sim.condition("Reconciling")[0] == "False"
    assert kinds(sim) == {
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
    table = sim.table
    assert table
    assert sorted(len(table.shards_of(f"host-{n}")) for n in range(3)) == [2, 3, 3]
    assert sim.status["shards"] == 8
    assert sim.status["readyHosts"] == 3
    assert sim.status["image"] == STOCK


def test_volumes_are_recorded_before_any_shard_is_granted() -> None:
    sim = Cluster()
    while not any(isinstance(action, Grant) for action in sim.decide().actions):
        sim.step()
    table = sim.table
    assert table
    assert set(table.volumes) == {"host-0", "host-1", "host-2"}
    assert all(table.owner(shard) is None for shard in range(8))


def test_every_child_belongs_to_the_namespace_and_has_no_finalizer(sim: Cluster) -> None:
    for key in kinds(sim):
        metadata = sim.objects[key]["metadata"]
        assert metadata["ownerReferences"][0]["uid"] == sim.namespace["metadata"]["uid"], key
        assert "finalizers" not in metadata


def test_nothing_is_written_in_quiet_time(sim: Cluster) -> None:
    before = sim.writes
    for _ in range(10):
        sim.tick(20)
        assert sim.decide().actions == ()
        sim.step()
    assert sim.writes == before


def test_the_plan_is_a_function_of_what_it_sees(sim: Cluster) -> None:
    sim.apply_spec({"image": "bank:2"})
    observed = sim.observe()
    assert sim.decide(observed) == sim.decide(observed)


@pytest.mark.parametrize(
    "key",
    [
        *(("Service", name) for name in ("bank", "bank-host")),
        *((kind, "bank-host") for kind in ("ServiceAccount", "Role", "RoleBinding", "NetworkPolicy")),
        *(("PodDisruptionBudget", name) for name in ("bank-host", "bank-ingress")),
        ("Deployment", "bank-ingress"),
    ],
)
def test_a_child_that_was_deleted_or_changed_by_hand_is_repaired(sim: Cluster, key: tuple[str, str]) -> None:
    def made() -> dict[str, object]:
        child = sim.objects[key]
        return {name: child[name] for name in child.keys() - {"metadata", "status"}} | {
            "labels": child["metadata"]["labels"]
        }

    good = deepcopy(made())
    sim.remove(key)
    sim.settle()
    assert made() == good
    child = sim.objects[key]
    child["metadata"]["labels"] = {}
    for part in child.keys() & {"spec", "rules", "subjects"}:
        child[part] = {**child[part], "replicas": 7} if key[0] == "Deployment" else {}
    sim.settle()
    assert made() == good


def test_what_the_spec_no_longer_wants_is_deleted(sim: Cluster) -> None:
    sim.apply_spec({"hosts": {"replicas": 3, "networkPolicy": False}, "ingress": {"replicas": 1}})
    sim.settle()
    assert ("NetworkPolicy", "bank-host") not in sim.objects
    assert ("PodDisruptionBudget", "bank-ingress") not in sim.objects


def test_an_autoscaler_may_own_the_number_of_ingresses(sim: Cluster) -> None:
    sim.apply_spec({"ingress": {"replicas": None}})
    sim.settle()
    assert "replicas" not in sim.objects[("Deployment", "bank-ingress")]["spec"]


def test_a_paused_namespace_is_left_alone_and_says_so(sim: Cluster) -> None:
    sim.annotate(paused="true")
    sim.apply_spec({"image": "bank:2"})
    sim.remove(("Service", "bank"))
    sim.settle()
    assert sim.condition("Paused") == ("True", "PausedByAnnotation")
    assert sim.condition("Ready") == ("True", "Serving")
    assert ("Service", "bank") not in sim.objects
    sim.annotate(paused=None)
    sim.settle()
    assert sim.condition("Paused") == ("False", "NotPaused")
    assert ("Service", "bank") in sim.objects


def test_a_namespace_that_is_being_deleted_is_left_alone(sim: Cluster) -> None:
    sim.namespace["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    sim.remove(("Service", "bank"))
    assert not [action for action in sim.decide().actions if not isinstance(action, Tell)]


def test_hosts_replicas_of_0_hibernates_and_keeps_volumes_and_table(sim: Cluster) -> None:
    table, volumes = sim.table, dict(sim.volumes)
    sim.apply_spec({"hosts": {"replicas": 0}})
    sim.settle()
    assert sim.condition("Ready") == ("False", "Hibernated")
    assert sim.status["hosts"] == 0
    assert sim.table == table
    sim.apply_spec({"hosts": {"replicas": 3}})
    sim.settle()
    assert sim.condition("Ready") == ("True", "Serving")
    assert sim.table == table
    assert sim.volumes == volumes


@pytest.mark.parametrize("replicas", [2, 5])
def test_a_change_that_needs_moves_waits_and_says_so(sim: Cluster, replicas: int) -> None:
    table = sim.table
    sim.apply_spec({"hosts": {"replicas": replicas}})
    sim.settle()
    assert sim.condition("Progressing") == ("True", "WaitingForMoves")
    assert sim.condition("Reconciling")[0] == "True"
    assert sim.condition("Ready") == ("True", "Serving")
    assert sim.table == table
    assert sim.status["readyHosts"] == max(3, replicas)


def test_one_host_needs_no_budget_and_restarts_alone() -> None:
    sim = Cluster({"hosts": {"replicas": 1}})
    sim.settle()
    assert ("PodDisruptionBudget", "bank-host") not in sim.objects
    sim.apply_spec({"image": "bank:2"})
    sim.settle()
    assert sim.condition("Ready") == ("True", "Serving")


def test_reclaim_is_an_owner_reference_that_can_be_changed_later(sim: Cluster) -> None:
    assert "ownerReferences" not in sim.claim("host-0")["metadata"]
    sim.apply_spec({"hosts": {"replicas": 3, "storage": {"reclaim": "Delete"}}})
    sim.settle()
    (reference,) = sim.claim("host-0")["metadata"]["ownerReferences"]
    assert reference["uid"] == sim.namespace["metadata"]["uid"]
    assert "controller" not in reference
    sim.apply_spec({"hosts": {"replicas": 3, "storage": {"reclaim": "Retain"}}})
    sim.settle()
    assert sim.claim("host-0")["metadata"]["ownerReferences"] == []


@pytest.mark.parametrize("reclaim", ["Delete", "Retain"])
def test_the_volume_of_a_host_scaled_in_is_deleted_only_when_it_is_empty_and_the_user_said_so(reclaim: str) -> None:
    sim = Cluster({"hosts": {"replicas": 2, "storage": {"reclaim": reclaim}}})
    sim.settle()
    sim.apply_spec({"hosts": {"replicas": 3, "storage": {"reclaim": reclaim}}})
    sim.settle()
    assert ("PersistentVolumeClaim", "data-bank-host-2") in sim.objects
    sim.apply_spec({"hosts": {"replicas": 2, "storage": {"reclaim": reclaim}}})
    sim.settle()
    assert (("PersistentVolumeClaim", "data-bank-host-2") in sim.objects) is (reclaim == "Retain")
    sim.apply_spec({"hosts": {"replicas": 1, "storage": {"reclaim": reclaim}}})
    sim.settle()
    assert ("PersistentVolumeClaim", "data-bank-host-1") in sim.objects  # it owns shards


def test_growth_patches_the_claims_and_replaces_the_stateful_set_around_running_pods(sim: Cluster) -> None:
    before = sim.objects[("StatefulSet", "bank-host")]["metadata"]["uid"]
    pods = {f"host-{n}": sim.pod(f"host-{n}")["metadata"]["uid"] for n in range(3)}
    sim.apply_spec({"hosts": {"replicas": 3, "storage": {"size": "2Gi"}}})
    for _ in range(5):
        sim.step()
    assert sim.condition("Progressing") == ("True", "GrowingVolumes")
    assert sim.objects[("StatefulSet", "bank-host")]["metadata"]["uid"] == before
    for n in range(3):
        claim = sim.claim(f"host-{n}")
        assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"
        claim["status"]["capacity"]["storage"] = "2Gi"
    sim.settle()
    made = sim.objects[("StatefulSet", "bank-host")]
    assert made["metadata"]["uid"] != before
    assert made["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "2Gi"
    assert pods == {f"host-{n}": sim.pod(f"host-{n}")["metadata"]["uid"] for n in range(3)}
    assert sim.condition("Progressing") == ("False", "UpToDate")


def test_a_code_config_map_is_copied_and_code_changes_only_by_a_rollout() -> None:
    sim = Cluster({"code": {"configMap": "bank-code"}})
    sim.put({"kind": "ConfigMap", "metadata": {"name": "bank-code"}, "data": {"bank.py": "1"}})
    sim.settle()
    for content in "2345":
        hashes = sim.status["codeHash"]
        sim.objects[("ConfigMap", "bank-code")]["data"] = {"bank.py": content}
        sim.settle()
        assert sim.status["codeHash"] != hashes
    copies = [one for (kind, name), one in sim.objects.items() if kind == "ConfigMap" and name != "bank-code"]
    assert len(copies) == 3
    assert all(copy["immutable"] for copy in copies)
    assert {copy["data"]["bank.py"] for copy in copies} >= {"5"}
    mounted = {volume["configMap"]["name"] for volume in sim.pod("host-0")["spec"]["volumes"] if "configMap" in volume}
    assert mounted == {f"bank-code-{sim.status['codeHash']}"}


def test_an_operator_upgrade_restarts_nothing_and_spec_version_does(sim: Cluster) -> None:
    observed = sim.observe()
    assert sim.decide(replace(observed, stock_image="kubeactor/host:0.2.0")).actions == ()
    sim.apply_spec({"version": "0.2.0"})
    sim.settle()
    assert sim.status["image"] == "kubeactor/host:0.2.0"
    sim.apply_spec({"version": None, "image": "registry:5000/mine:1"})
    sim.settle()
    sim.apply_spec({"image": None})
    sim.settle()
    assert sim.status["image"] == STOCK


def test_templates_that_another_release_makes_of_the_same_spec_wait_for_the_next_change(
    sim: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {pod: live["metadata"]["uid"] for (kind, pod), live in sim.objects.items() if kind == "Pod"}
    templates = [deepcopy(sim.objects[key]["spec"]["template"]) for key in WORKLOADS]
    monkeypatch.setattr(pods, "TMP_LIMIT", "2Gi")  # as a later release might
    sim.settle()
    assert {pod: live["metadata"]["uid"] for (kind, pod), live in sim.objects.items() if kind == "Pod"} == before
    assert [sim.objects[key]["spec"]["template"] for key in WORKLOADS] == templates
    sim.objects[WORKLOADS[0]]["spec"]["template"]["spec"]["containers"][0]["image"] = "drift"
    sim.settle()
    assert [sim.objects[key]["spec"]["template"] for key in WORKLOADS] == templates
    sim.apply_spec({"env": [{"name": "X", "value": "1"}]})
    sim.settle()
    assert all("2Gi" in str(sim.objects[key]["spec"]["template"]) for key in WORKLOADS)
    assert sim.condition("Progressing") == ("False", "UpToDate")


def test_a_new_template_is_tried_then_hosts_restart_one_at_a_time_and_the_ingresses_follow(sim: Cluster) -> None:
    old = template_hash(sim.pod("host-0"))
    sim.apply_spec({"image": "bank:2"})
    steps = []
    for _ in range(30):
        decided = sim.step()
        steps += [(type(a).__name__, a.live["kind"]) for a in decided.actions if isinstance(a, Delete | Apply)]
    deleted = [step for step in steps if step == ("Delete", "Pod")]
    assert len(deleted) == 4  # the preflight pod and three hosts
    assert steps[-2:] == [("Apply", "StatefulSet"), ("Apply", "Deployment")]  # the last good template, the ingresses
    assert {template_hash(sim.pod(f"host-{n}")) for n in range(3)}.isdisjoint({old})
    assert sim.objects[("Deployment", "bank-ingress")]["spec"]["template"]["spec"]["containers"][0]["image"] == "bank:2"
    assert sim.condition("Progressing") == ("False", "UpToDate")
    sim.settle()


@pytest.mark.parametrize("missed", ["host-0", "host-2"])
def test_a_rollout_takes_no_host_down_while_the_last_probe_of_another_missed_though_all_are_ready(
    sim: Cluster, missed: str
) -> None:
    others = [f"host-{n}" for n in range(3) if f"host-{n}" != missed]
    before = {host: sim.pod(host)["metadata"]["uid"] for host in others}
    sim.cut.add(missed)
    sim.tick(10)
    sim.apply_spec({"image": "bank:2"})
    for _ in range(40):
        sim.step()
    assert sim.pod(missed)["status"]["serves"]
    assert {host: sim.pod(host)["metadata"]["uid"] for host in others} == before
    assert sim.condition("Progressing") == ("True", "RollingOut")
    sim.cut.clear()
    sim.settle()
    assert sim.condition("Progressing") == ("False", "UpToDate")
    assert not set(before.values()) & {sim.pod(host)["metadata"]["uid"] for host in others}


def test_a_probe_that_missed_long_ago_holds_no_rollout_up(sim: Cluster) -> None:
    """No ingress was reached since, so readiness has to do."""

    def taken_down(probes: dict[str, Probe]) -> list[str]:
        deleted = [one.live for one in sim.decide(replace(sim.observe(), probes=probes)).actions if type(one) is Delete]
        return [live["metadata"]["name"] for live in deleted if "-host-" in live["metadata"]["name"]]

    sim.apply_spec({"image": "bank:2"})
    while not taken_down({}):
        sim.step()
    for age_s, expected in ((1.0, []), (59.0, []), (61.0, ["bank-host-2"])):
        missed = Probe(misses=1, missed_at=sim.now - age_s)
        assert taken_down({"host-0": missed, "host-1": missed}) == expected


def test_a_rollout_is_progressing_until_the_last_host_is_back(sim: Cluster) -> None:
    sim.apply_spec({"image": "bank:2"})
    while (
        template_hash(sim.pod("host-0")) == template_hash(sim.pod("host-1"))
        or sim.condition("Progressing")[0] == "False"
    ):
        sim.step()
    old = template_hash(sim.pod("host-0"))
    while sim.objects.get(("Pod", "bank-host-0")) and template_hash(sim.pod("host-0")) == old:
        sim.step()
    sim.hung.add("host-0")  # it takes its time
    for _ in range(5):
        sim.tick()
        sim.step()
        assert sim.condition("Progressing") == ("True", "RollingOut")
    sim.hung.clear()
    while "bank:2" not in str(sim.objects[("Deployment", "bank-ingress")]["spec"]):
        sim.step()
        assert sim.condition("Progressing") == ("True", "RollingOut")  # the ingresses follow
    sim.settle()
    assert sim.condition("Progressing") == ("False", "UpToDate")


def test_a_template_that_fails_its_preflight_changes_nothing_that_runs(sim: Cluster) -> None:
    pods = {f"host-{n}": sim.pod(f"host-{n}")["metadata"]["uid"] for n in range(3)}
    good = deepcopy(sim.objects[("StatefulSet", "bank-host")]["spec"]["template"])
    sim.bad_images.add("bank:bad")
    sim.apply_spec({"image": "bank:bad"})
    sim.settle()
    assert sim.condition("Degraded") == ("True", "PreflightFailed")
    assert sim.condition("Stalled") == ("True", "PreflightFailed")
    assert sim.condition("Progressing") == ("False", "Stopped")
    assert sim.condition("Ready") == ("True", "Serving")
    assert "can't be imported" in sim.status["conditions"][2]["message"]
    assert sim.objects[("StatefulSet", "bank-host")]["spec"]["template"] == good
    assert pods == {f"host-{n}": sim.pod(f"host-{n}")["metadata"]["uid"] for n in range(3)}
    sim.objects[("StatefulSet", "bank-host")]["spec"]["template"]["spec"]["containers"][0]["image"] = "x"
    sim.settle()  # drift is repaired to the last good template, not to the bad one
    assert sim.objects[("StatefulSet", "bank-host")]["spec"]["template"] == good
    sim.apply_spec({"image": "bank:2"})
    sim.settle()
    assert sim.condition("Degraded") == ("False", "AsExpected")
    assert sim.status["image"] == "bank:2"


def test_a_rollout_stops_at_the_first_host_that_does_not_come_back_and_puts_it_back(sim: Cluster) -> None:
    good = sim.objects[("StatefulSet", "bank-host")]["spec"]["template"]
    others = {f"host-{n}": sim.pod(f"host-{n}")["metadata"]["uid"] for n in range(2)}
    sim.crashing.add("bank:crash")
    sim.apply_spec({"image": "bank:crash"})
    sim.settle()
    assert sim.condition("Degraded") == ("True", "RolloutStopped")
    assert "boom" in sim.status["conditions"][2]["message"]
    assert sim.condition("Ready") == ("True", "Serving")
    assert sim.objects[("StatefulSet", "bank-host")]["spec"]["template"] == good
    assert others == {f"host-{n}": sim.pod(f"host-{n}")["metadata"]["uid"] for n in range(2)}
    assert template_hash(sim.pod("host-2")) == template_hash(sim.pod("host-0"))
    sim.apply_spec({"image": "bank:2"})
    sim.settle()
    assert sim.condition("Degraded") == ("False", "AsExpected")
    assert names.FAILED not in sim.objects[("StatefulSet", "bank-host")]["metadata"]["annotations"]
    assert {sim.pod(f"host-{n}")["spec"]["containers"][0]["image"] for n in range(3)} == {"bank:2"}


def test_hosts_that_never_served_are_replaced_when_the_spec_is_mended() -> None:
    sim = Cluster({"image": "bank:crash"})
    sim.crashing.add("bank:crash")
    for _ in range(30):
        sim.step()
    assert sim.condition("Ready") == ("False", "Starting")
    sim.apply_spec({"image": "bank:2"})
    sim.settle()
    assert sim.condition("Ready") == ("True", "Serving")


def test_credentials_are_made_once_and_rotated_without_anyone_being_refused(sim: Cluster) -> None:
    def secret() -> tuple[str, str]:
        return peer_credentials(sim.objects[("Secret", "bank-peer")])

    assert secret() == ("secret", "")
    sim.annotate(**{"rotate-peer": "now"})
    sim.execute(sim.decide(replace(sim.observe(), credential="new")))
    assert secret() == ("secret", "new")
    for _ in range(3):
        sim.step()
    assert sim.condition("Progressing") == ("True", "RotatingCredentials")
    sim.reread("host-0", "host-2")
    sim.settle()
    assert secret() == ("secret", "new")
    sim.reread("host-1")
    sim.settle()
    assert secret() == ("new", "secret")
    assert sim.condition("Progressing") == ("False", "UpToDate")


@pytest.mark.parametrize("slow", ["ingress-1", "host-2"])
def test_a_rotation_waits_until_nobody_presents_what_it_takes_away(sim: Cluster, slow: str) -> None:
    def secret() -> tuple[str, str]:
        return peer_credentials(sim.objects[("Secret", "bank-peer")])

    def rotate(text: str) -> None:
        sim.fresh = text
        sim.annotate(**{"rotate-peer": text})
        for _ in range(3):
            sim.step()

    everyone = [*HOSTS, "ingress-0", "ingress-1"]
    sim.settle()
    rotate("one")
    sim.reread(*HOSTS)
    sim.settle()
    assert secret() == ("one", "secret")
    sim.reread(*(name for name in everyone if name != slow))
    rotate("two")
    assert secret() == ("one", "secret")  # which the slow one presents
    assert sim.condition("Progressing") == ("True", "RotatingCredentials")
    assert f"{slow} present the current credential" in message(sim, "Progressing")
    sim.reread(slow)
    rotate("two")
    assert secret() == ("one", "two")
    sim.reread(*HOSTS)
    sim.settle()
    assert secret() == ("two", "one")
    assert sim.condition("Progressing") == ("False", "UpToDate")


def ingress_pod(sim: Cluster, name: str, **ready: str) -> None:
    """Its pod, with these conditions since now."""
    sim.objects.pop(("Pod", name), None)
    sim.put({"kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"image": "bank:1"}]}})
    sim.objects[("Pod", name)]["status"] = {
        "conditions": [
            {"type": kind, "status": status, "lastTransitionTime": timestamp(sim.now)} for kind, status in ready.items()
        ]
    }


@pytest.mark.parametrize(
    ("answers", "ready", "goes_on"),
    [
        (False, {"Ready": "False", "ContainersReady": "False"}, True),
        (True, {"Ready": "False", "ContainersReady": "False"}, False),
        (False, {"Ready": "True", "ContainersReady": "True"}, False),  # the operator is what is cut off
        (False, {"Ready": "False", "ContainersReady": "True"}, False),  # its node does not answer: it may serve
        (False, {}, False),
    ],
)
def test_a_rotation_waits_for_an_ingress_that_may_serve_but_not_for_ever_for_one_that_is_down(
    sim: Cluster, answers: bool, ready: dict[str, str], goes_on: bool
) -> None:
    def rotate(text: str) -> tuple[str, str]:
        sim.fresh = text
        sim.annotate(**{"rotate-peer": text})
        for _ in range(3):
            sim.step()
        return peer_credentials(sim.objects[("Secret", "bank-peer")])

    rotate("one")
    sim.reread(*HOSTS)
    sim.settle()
    sim.reread(*HOSTS, "ingress-0")
    if not answers:
        sim.silent.add("ingress-1")
    ingress_pod(sim, "ingress-1", **ready)
    sim.tick(290)
    assert rotate("two") == ("one", "secret")
    told = "ingress-1 present the current credential"
    assert told in message(sim, "Progressing")
    assert ("`kubectl delete pod ingress-1`" in message(sim, "Progressing")) is not answers
    sim.tick(20)
    assert rotate("three") == ("one", "three" if goes_on else "secret")
    assert (told in message(sim, "Progressing")) is not goes_on
    sim.silent.clear()
    sim.reread(*HOSTS, "ingress-0", "ingress-1")
    rotate("three")
    sim.reread(*HOSTS)
    sim.settle()
    assert peer_credentials(sim.objects[("Secret", "bank-peer")]) == ("three", "one")
    assert sim.condition("Progressing") == ("False", "UpToDate")


def test_the_table_is_written_whole_never_applied(sim: Cluster) -> None:
    sim.objects[(names.PLACEMENT_KIND, "bank")]["spec"]["epochs"] = (
        ""  # it contradicts itself: rebuilt from the volumes
    )
    sim.published.clear()
    written: list[type] = []
    for _ in range(8):
        for one in sim.step().actions:
            thing = getattr(one, "manifest", {})
            written += [type(one)] if thing.get("kind") == names.PLACEMENT_KIND else []
    assert written == [Replace]


def test_every_write_carries_what_it_was_decided_on(sim: Cluster) -> None:
    sim.apply_spec({"image": "bank:2", "hosts": {"replicas": 3, "storage": {"size": "2Gi"}}})
    for _ in range(12):
        for action in sim.step().actions:
            if isinstance(action, Apply | Replace | Patch | Delete):
                assert action.live["metadata"]["resourceVersion"]
                assert action.live["metadata"]["uid"]
            elif isinstance(action, Create):
                assert "resourceVersion" not in action.manifest["metadata"]


def test_times_of_conditions_change_only_with_their_status(sim: Cluster) -> None:
    since = {one["type"]: one["lastTransitionTime"] for one in sim.status["conditions"]}
    sim.tick(100)
    sim.apply_spec({"ingress": {"replicas": 3}})
    sim.settle()
    assert (
        since["Ready"] == next(one for one in sim.status["conditions"] if one["type"] == "Ready")["lastTransitionTime"]
    )
    assert when(since["Ready"]) < sim.now
