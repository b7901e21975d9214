"""What a real API server makes of an ActorNamespace: defaults, bounds, rules by create, update and through /scale."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.harness.rest import Object, Refused, Rest
from tests.operator.user_errors import ALWAYS, BANK, GONE, UPDATES, Mistake, bank

from kubeactor_operator.spec import ActorNamespace, Spec

CRD = Path(__file__).resolve().parents[2] / "crds" / "actornamespaces.yaml"


def numbered(mistakes: list[Mistake]) -> Any:
    return pytest.mark.parametrize("mistake", mistakes, ids=lambda one: one.title)


@numbered(ALWAYS)
def test_what_is_wrong_is_refused_at_creation(rest: Rest, space: str, mistake: Mistake) -> None:
    with pytest.raises(Refused) as refused:
        rest.create(bank(mistake.changes, space=space))
    assert refused.value.status == 422
    assert mistake.says in str(refused.value)


@numbered([one for one in ALWAYS if "metadata.name" not in one.changes and "spec" not in one.changes])
def test_what_is_wrong_is_refused_in_an_update(rest: Rest, space: str, mistake: Mistake) -> None:
    created = rest.create(bank(space=space))
    with pytest.raises(Refused) as refused:
        rest.replace(bank(mistake.changes, base=created))
    assert mistake.says in str(refused.value)
    assert rest.read(created)["spec"] == created["spec"]


@numbered(UPDATES)
def test_what_may_not_change_can_neither_be_changed_nor_removed(rest: Rest, space: str, mistake: Mistake) -> None:
    created = rest.create(bank(mistake.before, space=space))
    with pytest.raises(Refused) as refused:
        rest.replace(bank(mistake.changes, base=created))
    assert refused.value.status == 422
    assert mistake.says in str(refused.value)
    assert rest.read(created)["spec"] == created["spec"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"spec.hosts.storage.size": "1Gi"}, {"spec.hosts.storage.size": "1024Mi"}),
        ({"spec.hosts.storage.size": "1Gi"}, {"spec.hosts.storage.size": "1.5Gi"}),
        ({"spec.hosts.storage.storageClassName": "a"}, {"spec.hosts.storage.reclaim": "Delete"}),
        ({}, {"spec.hosts.storage.adopt": True}),
        ({}, {"spec.hosts.replicas": 64}),
        ({}, {"spec.hosts.replicas": 0}),
        ({}, {"spec.image": GONE, "spec.code": {"configMap": "bank-code"}, "spec.version": "0.1.0-rc.1"}),
        ({}, {"spec.image": GONE, "spec.code": {"configMap": "bank-code"}, "spec.version": "0.2.0rc1"}),
        ({}, {"spec.frontDoor": "bank:app", "spec.ingress.api": "Off"}),
        ({}, {"spec.actors": [{"binding": "SHOP", "class": "shop.main:Shop"}]}),
        ({}, {"spec.ingress.service": {"type": "NodePort", "ports": {"http": {"nodePort": 30080}}}}),
        (
            {"spec.ingress.service": {"type": "LoadBalancer", "loadBalancerClass": "a"}},
            {"spec.ingress.service": {"type": "ClusterIP"}},
        ),
        ({"spec.ingress.service": {"type": "ClusterIP"}}, {"spec.ingress.service": {"type": "LoadBalancer"}}),
    ],
)
def test_what_may_change_can(rest: Rest, space: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    created = rest.create(bank(before, space=space))
    changed = bank(after, base=created)
    assert ActorNamespace.of(rest.replace(changed)).spec == ActorNamespace.of(changed).spec


def test_a_name_of_40_characters_is_accepted(rest: Rest, space: str) -> None:
    rest.create(bank({"metadata.name": "b" * 40}, space=space))


# Defaults ------------------------------------------------------------------------------------------------------------


def defaults(node: Object, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, child in node.get("properties", {}).items():
        if "default" in child and child["default"] != {}:
            yield f"{path}.{name}", child["default"]
        yield from defaults(child, f"{path}.{name}")


def spec_schema() -> Object:
    crd = yaml.safe_load(CRD.read_text())
    found: Object = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


DEFAULTS = dict(defaults(spec_schema()))


def at(node: Any, path: str) -> Any:
    for name in path.strip(".").split("."):
        node = node[name]
    return node


def test_every_default_is_set_by_the_api_server_and_the_model_knows_the_same(rest: Rest, space: str) -> None:
    sent = bank({"spec.shards": GONE}, space=space)
    stored = rest.create(sent)
    assert len(DEFAULTS) > 10
    assert {path: at(stored["spec"], path) for path in DEFAULTS} == DEFAULTS
    assert ActorNamespace.of(stored).spec == ActorNamespace.of(sent | {"metadata": stored["metadata"]}).spec


@pytest.mark.parametrize("field", ["hosts", "hosts.storage", "ingress", "ingress.service", "limits"])
def test_defaults_are_set_anew_when_what_has_them_is_removed(rest: Rest, space: str, field: str) -> None:
    created = rest.create(bank(space=space))
    stored = rest.replace(bank({f"spec.{field}": GONE}, base=created))
    assert stored["spec"] == created["spec"]


def test_replicas_null_is_an_autoscalers_and_stays_null(rest: Rest, space: str) -> None:
    stored = rest.create(bank({"spec.ingress.replicas": None}, space=space))
    assert stored["spec"]["ingress"]["replicas"] is None
    assert ActorNamespace.of(stored).spec.ingress.replicas is None
    changed = rest.replace(bank({"spec.image": "bank:2"}, base=stored))
    assert changed["spec"]["ingress"]["replicas"] is None


def test_replicas_null_of_a_namespace_that_exists_is_set_by_server_side_apply(rest: Rest, space: str) -> None:
    """A merge patch, and so a plain `kubectl apply`, takes null for "remove", and then the default is set again."""
    created = rest.create(bank(space=space))
    assert rest.patch(created, {"spec": {"ingress": {"replicas": None}}})["spec"]["ingress"]["replicas"] == 2
    applied = rest.apply(bank({"spec.ingress.replicas": None}, space=space))
    assert applied["spec"]["ingress"]["replicas"] is None


# Bounds --------------------------------------------------------------------------------------------------------------


def integers(node: Object, path: str = "spec") -> Iterator[tuple[str, Object]]:
    for name, child in node.get("properties", {}).items():
        if child["type"] == "integer":
            yield f"{path}.{name}", child
        yield from integers(child, f"{path}.{name}")


INTEGERS = dict(integers(spec_schema()))


@pytest.mark.parametrize("path", INTEGERS)
def test_a_number_beyond_its_bounds_is_refused_and_the_bounds_are_not(rest: Rest, space: str, path: str) -> None:
    node = INTEGERS[path]
    room = {"spec.shards": 4096, "spec.hosts.replicas": 0, "spec.ingress.service.type": "NodePort"}
    for value in (node["minimum"], node["maximum"]):
        rest.create(bank(room | {path: value}, space=space), dry_run=True)
    for value, says in (
        (node["minimum"] - 1, "greater than or equal to"),
        (node["maximum"] + 1, "less than or equal to"),
    ):
        with pytest.raises(Refused, match=says):
            rest.create(bank(room | {path: value}, space=space), dry_run=True)


def collections(node: Object, path: str = "spec") -> Iterator[tuple[str, Object]]:
    for name, child in node.get("properties", {}).items():
        if "maxItems" in child or "maxProperties" in child:
            yield f"{path}.{name}", child
        yield from collections(child, f"{path}.{name}")


COLLECTIONS = dict(collections(spec_schema()))
ITEMS = {
    "actors": lambda n: {"binding": f"A{n}", "class": "bank:Account"},
    "env": lambda n: {"name": f"A{n}", "value": "x"},
    "imagePullSecrets": lambda n: {"name": f"s{n}"},
    "volumes": lambda n: {"name": f"v{n}", "emptyDir": {}},
    "volumeMounts": lambda n: {"name": "v", "mountPath": f"/mnt/{n}"},
}


@pytest.mark.parametrize("path", COLLECTIONS)
def test_a_list_or_map_beyond_its_bound_is_refused_and_a_full_one_is_not(rest: Rest, space: str, path: str) -> None:
    node, last = COLLECTIONS[path], path.rpartition(".")[2]
    room: dict[str, Any] = {}
    if last == "volumeMounts":
        room = {path.replace("volumeMounts", "volumes"): [{"name": "v", "emptyDir": {}}]}

    def filled(count: int) -> Object:
        if "maxProperties" in node:
            return bank({path: {f"key-{n}": "x" for n in range(count)}}, space=space)
        return bank(room | {path: [ITEMS.get(last, lambda n: {"key": str(n)})(n) for n in range(count)]}, space=space)

    bound = node.get("maxItems", node.get("maxProperties"))
    rest.create(filled(bound), dry_run=True)
    with pytest.raises(Refused, match="must have at most"):
        rest.create(filled(bound + 1), dry_run=True)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("spec.image", "x"),
        ("spec.frontDoor", "m:x"),
        ("spec.code.configMap", "x"),
        ("spec.hosts.storage.storageClassName", "x"),
        ("spec.hosts.priorityClassName", "x"),
        ("spec.ingress.serviceAccountName", "x"),
    ],
)
def test_a_text_beyond_its_bound_is_refused_and_a_full_one_is_not(rest: Rest, space: str, path: str, unit: str) -> None:
    node = spec_schema()
    for name in path.split(".")[1:]:
        node = node["properties"][name]
    full = unit.ljust(node["maxLength"], "x")
    rest.create(bank({path: full}, space=space), dry_run=True)
    with pytest.raises(Refused, match=r"may not be more than|Too long"):
        rest.create(bank({path: full + "x"}, space=space), dry_run=True)


def test_an_unknown_field_is_refused_when_validation_is_strict(rest: Rest, space: str) -> None:
    with pytest.raises(Refused, match=r'unknown field "spec.hosts.replica"'):
        rest.create(bank({"spec.hosts.replica": 3}, space=space))


def test_what_a_nested_kubernetes_type_has_is_not_pruned(rest: Rest, space: str) -> None:
    given = {
        "spec.hosts.affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"x": [1]}}},
        "spec.hosts.tolerations": [{"operator": "Exists"}],
        "spec.env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "spec.hosts.volumes": [{"name": "v", "secret": {"secretName": "s", "items": [{"key": "a", "path": "b"}]}}],
        "spec.hosts.resources": {"limits": {"cpu": 2, "memory": "1Gi"}},
    }
    stored = rest.create(bank(given, space=space))
    assert {path: at(stored, path) for path in given} == given


# /scale and /status --------------------------------------------------------------------------------------------------


def scale(rest: Rest, created: Object, replicas: int) -> int:
    answer = rest.patch(created, {"spec": {"replicas": replicas}}, subresource="/scale")
    found: int = answer["spec"].get("replicas", 0)
    return found


def test_scale_sets_the_hosts_within_the_same_rules(rest: Rest, space: str) -> None:
    created = rest.create(bank(space=space))
    assert scale(rest, created, 5) == 5
    assert rest.read(created)["spec"]["hosts"]["replicas"] == 5
    for replicas, says in ((65, "hosts.replicas may be at most shards"), (1001, "less than or equal to 1000")):
        with pytest.raises(Refused, match=says):
            scale(rest, created, replicas)
    with pytest.raises(Refused):
        scale(rest, created, -1)
    assert scale(rest, created, 0) == 0


def test_scale_works_on_a_namespace_that_says_nothing_of_hosts(rest: Rest, space: str) -> None:
    created = rest.create(bank({"spec.hosts": GONE}, space=space))
    assert scale(rest, created, 2) == 2


def test_scale_tells_an_autoscaler_pods_and_selector(rest: Rest, space: str) -> None:
    created = rest.create(bank(space=space))
    rest.patch(created, {"status": {"hosts": 3, "selector": "kubeactor.io/namespace=bank"}}, subresource="/status")
    answer = rest.call("GET", f"/apis/kubeactor.io/v1alpha1/namespaces/{space}/actornamespaces/bank/scale")
    assert answer["status"] == {"replicas": 3, "selector": "kubeactor.io/namespace=bank"}


def test_status_is_written_apart_from_the_spec(rest: Rest, space: str) -> None:
    created = rest.create(bank(space=space))
    changed = rest.patch(created, {"spec": {"shards": 3}, "status": {"readyHosts": 2}}, subresource="/status")
    assert changed["status"]["readyHosts"] == 2
    assert changed["spec"] == created["spec"]
    assert changed["metadata"]["generation"] == created["metadata"]["generation"]
    assert rest.replace(bank({"status": {"readyHosts": 9}}, base=changed))["status"]["readyHosts"] == 2


# What kubectl shows --------------------------------------------------------------------------------------------------


def table(rest: Rest, space: str, plural: str) -> dict[str, Any]:
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    found = rest.call("GET", f"/apis/kubeactor.io/v1alpha1/namespaces/{space}/{plural}", headers=headers)
    (row,) = found["rows"]
    return {column["name"]: cell for column, cell in zip(found["columnDefinitions"], row["cells"], strict=True)}


def test_the_columns_of_a_namespace_tell_whether_it_is_well(rest: Rest, space: str) -> None:
    created = rest.create(bank(space=space))
    when = created["metadata"]["creationTimestamp"]

    def condition(type: str, status: str, reason: str, message: str) -> Object:
        return {"type": type, "status": status, "reason": reason, "message": message, "lastTransitionTime": when}

    status = {
        "conditions": [
            condition("Ready", "True", "Serving", "Every host serves."),
            condition("Degraded", "True", "ImagePullFailed", "bank:2 is not there."),
            condition("Progressing", "False", "Stopped", ""),
        ],
        "image": "bank:1",
        "readyHosts": 2,
        "shards": 64,
        "movingShards": 0,
        "url": "http://bank.default.svc",
    }
    rest.patch(created, {"status": status}, subresource="/status")
    shown = table(rest, space, "actornamespaces")
    assert shown.pop("Age")
    assert shown == {
        "Name": "bank",
        "Ready": "True",
        "Reason": "Serving",
        "Hosts": 2,
        "Wanted": 3,
        "Shards": 64,
        "Moving": 0,
        "Degraded": "ImagePullFailed",
        "URL": "http://bank.default.svc",
        "Image": "bank:1",
        "Progressing": "Stopped",
        "Message": "bank:2 is not there.",
    }


def test_short_names_and_categories_are_served(rest: Rest) -> None:
    found = rest.call("GET", "/apis/kubeactor.io/v1alpha1")["resources"]
    known = {one["name"]: (one.get("shortNames"), one.get("categories")) for one in found}
    assert known["actornamespaces"] == (["actorns"], ["all", "kubeactor"])
    assert known["actorplacements"] == (["actorpl"], ["kubeactor"])
    assert {"actornamespaces/status", "actornamespaces/scale"} <= known.keys()


def test_a_table_of_any_later_format_is_kept_whole(rest: Rest, space: str) -> None:
    spec = {
        "format": 7,
        "namespace": "uid",
        "shards": 64,
        "hosts": {"host-0": {"volume": "aa", "shards": "0-63", "new": {"field": [1, {"x": None}]}}},
        "moves": [{"shard": 3}],
        "unknown": [{"a": 1}, "b"],
    }
    body: Object = {
        "apiVersion": "kubeactor.io/v1alpha1",
        "kind": "ActorPlacement",
        "metadata": {"name": "bank", "namespace": space},
        "spec": copy.deepcopy(spec),
    }
    assert rest.create(body)["spec"] == spec
    shown = table(rest, space, "actorplacements")
    assert (shown["Shards"], shown["Moves"], shown["Format"]) == (64, '[{"shard":3}]', 7)
    del body["spec"]["format"]
    with pytest.raises(Refused, match=r"spec.format: Required value"):
        rest.create(body | {"metadata": {"name": "other", "namespace": space}})


def test_the_model_reads_all_that_the_api_server_stores(rest: Rest, space: str) -> None:
    stored = rest.create(bank({"spec.frontDoor": "bank:app", "spec.hosts.podLabels": {"team": "a"}}, space=space))
    read = ActorNamespace.of(stored)
    assert (read.name, read.namespace, read.uid) == ("bank", space, stored["metadata"]["uid"])
    assert isinstance(read.spec, Spec)
    assert read.spec.front_door == "bank:app"
    assert read.spec.hosts.pod_labels == {"team": "a"}
    assert read.spec.shards == BANK["spec"]["shards"]
