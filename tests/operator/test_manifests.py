"""Every child is accepted by a real API server, strictly, in a namespace that enforces the `restricted` standard."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from tests.harness.rest import Object, Refused, Rest
from tests.operator.user_errors import GONE, bank

from kubeactor.placement import Table
from kubeactor_operator import names
from kubeactor_operator.children import access, guards, hosts, ingresses, placement, preflight, sources
from kubeactor_operator.children.pods import Bundle
from kubeactor_operator.spec import ActorNamespace

ROOT = Path(__file__).resolve().parents[2]
SOURCE: Object = {"data": {"bank.py": "class Account: ..."}, "binaryData": {"logo.png": "iVBORw0KGgo="}}
POD_SETTINGS: dict[str, Any] = {
    "podLabels": {"team": "accounts"},
    "podAnnotations": {"example.com/note": "any text: even this"},
    "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi", "cpu": 2}},
    "nodeSelector": {"disk": "ssd"},
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
            }
        }
    },
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    ],
    "serviceAccountName": "mine",
    "imagePullSecrets": [{"name": "registry"}],
    "imagePullPolicy": "Always",
    "terminationGracePeriodSeconds": 1,
    "volumes": [
        {"name": "certificates", "secret": {"secretName": "tls", "optional": True}},
        {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
    ],
    "volumeMounts": [
        {"name": "certificates", "mountPath": "/etc/tls", "readOnly": True},
        {"name": "models", "mountPath": "/app/models"},
    ],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "the least": {},
    "code in a ConfigMap": {"spec.image": GONE, "spec.code": {"configMap": "bank-code"}, "spec.frontDoor": "bank:app"},
    "one of each": {"spec.hosts.replicas": 1, "spec.ingress.replicas": 1},
    "hibernated, an autoscaler": {"spec.hosts.replicas": 0, "spec.ingress.replicas": None},
    "the longest name": {"metadata.name": "b" * 40},
    "no network policy, a class": {"spec.hosts.networkPolicy": False, "spec.hosts.storage.storageClassName": "fast"},
    "a load balancer": {
        "spec.ingress.service": {
            "type": "LoadBalancer",
            "loadBalancerClass": "example.com/x",
            "annotations": {"example.com/size": "small"},
            "ports": {"http": {"port": 443, "nodePort": 31443}},
        }
    },
    "every pod setting": {
        **{f"spec.hosts.{key}": value for key, value in POD_SETTINGS.items()},
        **{f"spec.ingress.{key}": value for key, value in POD_SETTINGS.items()},
        "spec.env": [
            {"name": "FEE", "value": "1"},
            {"name": "WHO", "value": "$(POD_NAME)"},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "a"}}},
            {"name": "PYTHONPATH", "value": "/elsewhere"},
        ],
        "spec.envFrom": [{"configMapRef": {"name": "settings", "optional": True}, "prefix": "X_"}],
        "spec.frontDoor": "bank:app",
        "spec.ingress.api": "Off",
    },
}


def children(namespace: ActorNamespace) -> list[Object]:
    """All that there can be at once."""
    bundle = Bundle("kubeactor/host:0.1.0", sources.code_hash(SOURCE) if namespace.spec.code else None)
    host_template, ingress_template = hosts.template(namespace, bundle), ingresses.template(namespace, bundle)
    replicas, size = namespace.spec.hosts.replicas, namespace.spec.hosts.storage.size
    mode = hosts.access_mode("driver.example.com")
    sets = [
        hosts.stateful_set(namespace, host_template, replicas=replicas, size=size, access_mode=mode, last_good="{}"),
        hosts.headless_service(namespace),
        ingresses.deployment(namespace, ingress_template),
        ingresses.public_service(namespace),
        ingresses.api_service(namespace),
        guards.host_budget(namespace, replicas),
        guards.ingress_budget(namespace),
        guards.network_policy(namespace),
        sources.code_config_map(namespace, SOURCE),
        sources.peer_secret(namespace, "new", "old"),
        placement.placement(namespace, plain(Table.empty(namespace.uid, namespace.spec.shards))),
        preflight.preflight_pod(namespace, bundle, "0a1b2c3d4e"),
    ]
    rights = [
        made(namespace, component)
        for component in (names.HOST, names.INGRESS)
        for made in (access.service_account, access.role, access.role_binding)
    ]
    return [child for child in [*sets, *rights] if child is not None]


def plain(table: Table) -> Object:
    found: Object = msgspec.json.decode(msgspec.json.encode(table.document()))
    return found


def pods_of(manifests: list[Object]) -> list[Object]:
    """The pods that workloads would make: only pods are held against the standard."""
    made = []
    for manifest in manifests:
        if manifest["kind"] in ("StatefulSet", "Deployment"):
            template = manifest["spec"]["template"]
            metadata = template["metadata"] | {"name": "tried", "namespace": manifest["metadata"]["namespace"]}
            made.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": dict(template["spec"])})
    for pod in made:
        for claim in [one for one in pod["spec"]["containers"][0]["volumeMounts"] if one["name"] == "data"]:
            assert claim["mountPath"] == "/data"
            volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data-bank-host-0"}}
            pod["spec"]["volumes"] = [*pod["spec"]["volumes"], volume]
    return made


@pytest.fixture(params=VARIANTS)
def namespace(request: pytest.FixtureRequest, rest: Rest, space: str) -> ActorNamespace:
    """As the API server has stored it, defaults and all."""
    return ActorNamespace.of(rest.create(bank(VARIANTS[request.param], space=space)))


def test_every_manifest_passes_a_strict_dry_run(rest: Rest, namespace: ActorNamespace) -> None:
    manifests = children(namespace)
    assert {one["kind"] for one in manifests} >= {"StatefulSet", "Deployment", "Service", "Secret", "Pod", "Role"}
    for manifest in [*manifests, *pods_of(manifests)]:
        applied = rest.apply(manifest, dry_run=True)
        assert missing(manifest, applied) == [], manifest["kind"]


def missing(wanted: Any, found: Any, path: str = "") -> list[str]:
    """What is wanted and was not kept: the API server would drop a field that it does not know."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return [path] if wanted else []
        return list(
            itertools.chain(*(missing(value, found.get(key), f"{path}.{key}") for key, value in wanted.items()))
        )
    if isinstance(wanted, list):
        if len(wanted) > len(found or ()):  # more is fine: admission appends the token's volume to a pod's
            return [path]
        return list(
            itertools.chain(
                *(missing(*pair, f"{path}[{n}]") for n, pair in enumerate(zip(wanted, found, strict=False)))
            )
        )
    return [] if str(wanted) == str(found) or wanted in (None, "", 0, False) else [f"{path}: {wanted!r} {found!r}"]


def test_the_standard_is_enforced_where_these_tests_run(rest: Rest, space: str) -> None:
    pod: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": space}}
    with pytest.raises(Refused, match="violates PodSecurity"):
        rest.create(pod | {"spec": {"containers": [{"name": "x", "image": "x"}]}}, dry_run=True)


def test_two_applies_of_one_manifest_write_once(rest: Rest, space: str) -> None:
    namespace = ActorNamespace.of(rest.create(bank(space=space)))
    for manifest in children(namespace):
        if manifest["kind"] != "Pod":
            first = rest.apply(manifest)
            assert rest.apply(manifest)["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_the_copy_of_the_code_can_not_be_changed(rest: Rest, space: str) -> None:
    namespace = ActorNamespace.of(rest.create(bank(space=space)))
    created = rest.create(sources.code_config_map(namespace, SOURCE))
    with pytest.raises(Refused, match="immutable"):
        rest.patch(created, {"data": {"bank.py": "other"}})


def test_replicas_of_an_autoscaler_are_left_alone_by_an_apply(rest: Rest, space: str) -> None:
    namespace = ActorNamespace.of(rest.create(bank({"spec.ingress.replicas": None}, space=space)))
    manifest = ingresses.deployment(namespace, ingresses.template(namespace, Bundle("x:1")))
    created = rest.apply(manifest)
    rest.patch(created, {"spec": {"replicas": 7}}, subresource="/scale")
    assert rest.apply(manifest)["spec"]["replicas"] == 7


def test_a_role_gives_its_own_table_and_the_endpoint_slices_and_nothing_else(rest: Rest, space: str) -> None:
    namespace = ActorNamespace.of(rest.create(bank(space=space)))
    for make in (access.service_account, access.role, access.role_binding):
        manifest = make(namespace, names.HOST)
        assert manifest is not None
        rest.create(manifest)
    user = f"system:serviceaccount:{space}:bank-host"

    def may(verb: str, group: str, resource: str, name: str = "", where: str = space) -> bool:
        attributes = {"namespace": where, "verb": verb, "group": group, "resource": resource, "name": name}
        review: Object = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
        review["spec"] = {"user": user, "groups": ["system:serviceaccounts"], "resourceAttributes": attributes}
        answer = rest.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        allowed: bool = answer["status"]["allowed"]
        return allowed

    for verb in ("get", "list", "watch"):
        assert may(verb, names.GROUP, "actorplacements", "bank")
        assert may(verb, "discovery.k8s.io", "endpointslices")
        assert not may(verb, names.GROUP, "actorplacements")
        assert not may(verb, names.GROUP, "actorplacements", "other")
        assert not may(verb, names.GROUP, "actorplacements", "bank", where="default")
        assert not may(verb, "discovery.k8s.io", "endpointslices", where="default")
        for resource in ("secrets", "configmaps", "pods", "endpoints", "persistentvolumeclaims"):
            assert not may(verb, "", resource)
        assert not may(verb, names.GROUP, "actornamespaces", "bank")
    for verb in ("create", "update", "patch", "delete", "deletecollection"):
        assert not may(verb, names.GROUP, "actorplacements", "bank")
        assert not may(verb, "discovery.k8s.io", "endpointslices")


def test_the_example_is_accepted_as_it_stands(rest: Rest, space: str) -> None:
    for document in yaml.safe_load_all((ROOT / "examples" / "01-bank" / "namespace.yaml").read_text()):
        document["metadata"]["namespace"] = space
        assert missing(document, rest.create(document)) == []
    namespace = ActorNamespace.of(rest.read(document))
    for manifest in children(namespace):
        rest.apply(manifest, dry_run=True)
