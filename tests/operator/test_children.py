"""What each child says, rule by rule. tests/operator/test_manifests.py has the API server's opinion."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from tests.operator.user_errors import GONE, bank

from kubeactor_operator import names
from kubeactor_operator.children import access, guards, hosts, ingresses, placement, preflight, sources
from kubeactor_operator.children.manifest import Manifest, digest, owner_reference
from kubeactor_operator.children.pods import Bundle, template_hash
from kubeactor_operator.spec import ActorNamespace

BUNDLE = Bundle("bank:1")
WITH_CODE = Bundle("kubeactor/host:0.1.0", "0a1b2c3d4e")


def namespace(**changes: Any) -> ActorNamespace:
    """The bank, with fields changed given as `hosts__replicas=2`."""
    metadata = {"metadata.namespace": "default", "metadata.uid": "5a7c", "metadata.labels": {"argocd": "mine"}}
    body = bank(metadata | {f"spec.{name.replace('__', '.')}": value for name, value in changes.items()})
    return ActorNamespace.of(body)


BANK = namespace()


def stateful_set(of: ActorNamespace = BANK, **options: Any) -> Manifest:
    given = {"replicas": 3, "size": "1Gi", "access_mode": "ReadWriteOnce"} | options
    return hosts.stateful_set(of, hosts.template(of, BUNDLE), **given)


def host_pod(of: ActorNamespace = BANK, bundle: Bundle = BUNDLE) -> Manifest:
    found: Manifest = hosts.template(of, bundle)["spec"]
    return found


def ingress_pod(of: ActorNamespace = BANK, bundle: Bundle = BUNDLE) -> Manifest:
    found: Manifest = ingresses.template(of, bundle)["spec"]
    return found


def container(pod: Manifest) -> Manifest:
    (found,) = pod["containers"]
    assert isinstance(found, dict)
    return found


def environment(pod: Manifest) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container(pod)["env"]}


def mounts(pod: Manifest) -> dict[str, str]:
    """Path -> kind of the volume that is mounted there; data's is a claim of the StatefulSet."""
    volumes = {one["name"]: next(key for key in one if key != "name") for one in pod["volumes"]}
    return {one["mountPath"]: volumes.get(one["name"], "claim") for one in container(pod)["volumeMounts"]}


# Every child ---------------------------------------------------------------------------------------------------------

EVERY = [
    stateful_set(),
    hosts.headless_service(BANK),
    ingresses.deployment(BANK, ingresses.template(BANK, BUNDLE)),
    ingresses.public_service(BANK),
    ingresses.api_service(namespace(frontDoor="bank:app")),
    guards.host_budget(BANK, 3),
    guards.ingress_budget(BANK),
    guards.network_policy(BANK),
    sources.code_config_map(BANK, {"data": {"bank.py": ""}}),
    sources.peer_secret(BANK, "a", "b"),
    placement.placement(BANK, {"format": 1}),
    preflight.preflight_pod(BANK, BUNDLE, "0"),
    *(
        make(BANK, which)
        for make in (access.service_account, access.role, access.role_binding)
        for which in ("host", "ingress")
    ),
]


@pytest.mark.parametrize("child", EVERY, ids=lambda child: f"{child['kind']} {child['metadata']['name']}")
def test_a_child_belongs_to_its_namespace_and_copies_none_of_its_labels(child: Manifest) -> None:
    metadata = child["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["ownerReferences"] == [
        {
            "apiVersion": "kubeactor.io/v1alpha1",
            "kind": "ActorNamespace",
            "name": "bank",
            "uid": "5a7c",
            "controller": True,
        }
    ]
    component = metadata["labels"].get("app.kubernetes.io/component")
    assert metadata["labels"] == names.labels("bank", component)
    assert "finalizers" not in metadata


@pytest.mark.parametrize("child", EVERY, ids=lambda child: f"{child['kind']} {child['metadata']['name']}")
def test_a_child_carries_the_hash_of_what_was_applied(child: Manifest) -> None:
    without = copy.deepcopy(child)
    applied = without["metadata"]["annotations"].pop(names.APPLIED)
    assert applied == digest(without)


def test_a_field_that_is_taken_out_changes_the_hash() -> None:
    def applied(of: ActorNamespace) -> str:
        found: str = ingresses.public_service(of)["metadata"]["annotations"][names.APPLIED]
        return found

    annotated = namespace(ingress__service__annotations={"example.com/size": "small"})
    assert applied(annotated) != applied(BANK) == applied(namespace())


def test_the_names_of_all_children_are_different_for_each_kind() -> None:
    found = [(child["kind"], child["metadata"]["name"]) for child in EVERY]
    assert len(found) == len(set(found))
    assert all(name == "bank" or name.startswith("bank-") for _, name in found)


def test_a_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest(["a", "b"]) != digest(["b", "a"])
    assert len(digest({})) == 10


# Pods ----------------------------------------------------------------------------------------------------------------

PODS = {
    "host": host_pod(),
    "ingress": ingress_pod(),
    "preflight": preflight.preflight_pod(BANK, BUNDLE, "0")["spec"],
}


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_a_pod_keeps_to_the_restricted_standard_with_a_read_only_root(pod: Manifest) -> None:
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(pod)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container(pod)["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert mounts(pod)["/tmp"] == "emptyDir"
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is True


def test_the_arguments_of_a_host() -> None:
    assert container(host_pod(namespace(frontDoor="bank:app")))["args"] == [
        *(
            "host",
            "--kubernetes",
            "--data",
            "/data",
            "--address",
            "0.0.0.0",
            "--port",
            "7000",
            "--metrics-port",
            "9090",
        ),
        *("--front-door", "bank:app", "ACCOUNT=bank:Account"),
    ]


@pytest.mark.parametrize(
    ("changes", "api", "port"),
    [
        ({}, [], False),
        ({"ingress__api": "Public"}, [], False),
        ({"frontDoor": "bank:app"}, ["--api-port", "8081"], True),
        ({"frontDoor": "bank:app", "ingress__api": "Internal"}, ["--api-port", "8081"], True),
        ({"frontDoor": "bank:app", "ingress__api": "Public"}, [], False),
        ({"frontDoor": "bank:app", "ingress__api": "Off"}, ["--api-port", "0"], False),
    ],
)
def test_the_api_has_a_port_and_a_service_of_its_own_beside_a_front_door(
    changes: dict[str, Any], api: list[str], port: bool
) -> None:
    wanted = namespace(**changes)
    main = container(ingress_pod(wanted))
    door = ["--front-door", "bank:app"] if "frontDoor" in changes else []
    assert main["args"] == [
        *("ingress", "--kubernetes", "--data", "/var/lib/kubeactor", "--address", "0.0.0.0", "--port", "8080", *api),
        *("--metrics-port", "9090", *door, "ACCOUNT=bank:Account"),
    ]
    assert ("api" in [one["name"] for one in main["ports"]]) is port
    service = ingresses.api_service(wanted)
    assert (service is not None) is port
    if service:
        assert service["metadata"]["name"] == "bank-api"
        assert service["spec"]["type"] == "ClusterIP"
        assert service["spec"]["ports"] == [{"name": "api", "port": 8081, "targetPort": "api", "protocol": "TCP"}]


def test_the_arguments_of_the_preflight_pod_which_has_no_volume_and_ends() -> None:
    wanted = namespace(
        frontDoor="bank:app",
        hosts__volumes=[
            {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
            {"name": "tls", "secret": {"secretName": "tls"}},
        ],
        hosts__volumeMounts=[{"name": "models", "mountPath": "/models"}, {"name": "tls", "mountPath": "/tls"}],
        hosts__resources={"requests": {"memory": "8Gi"}, "limits": {"memory": "8Gi"}},
        hosts__podLabels={"team": "a"},
        hosts__podAnnotations={"note": "x"},
    )
    pod = preflight.preflight_pod(wanted, WITH_CODE, "fedcba9876")
    assert pod["metadata"]["name"] == "bank-preflight-fedcba9876"
    assert pod["metadata"]["labels"] == {"team": "a"} | names.labels("bank", "preflight")
    assert pod["metadata"]["annotations"]["note"] == "x"
    spec = pod["spec"]
    assert (spec["restartPolicy"], spec["activeDeadlineSeconds"]) == ("Never", 600)
    main = container(spec)
    assert main["args"] == ["check", "--json", "--front-door", "bank:app", "ACCOUNT=bank:Account"]
    assert mounts(spec) == {
        "/etc/kubeactor/peer": "secret",
        "/tmp": "emptyDir",
        "/code": "configMap",
        "/models": "emptyDir",
        "/tls": "secret",
    }
    assert main["resources"] == {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "8Gi"}}
    assert "ports" not in main


def test_the_preflight_pod_tries_what_a_host_would_run() -> None:
    wanted = namespace(env=[{"name": "FEE", "value": "1"}], hosts__serviceAccountName="mine")
    tried, real = preflight.preflight_pod(wanted, WITH_CODE, "0")["spec"], host_pod(wanted, WITH_CODE)
    for field in ("image", "env", "workingDir", "securityContext"):
        assert container(tried)[field] == container(real)[field]
    assert tried["serviceAccountName"] == real["serviceAccountName"] == "mine"
    assert tried["securityContext"] == real["securityContext"]


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_a_pod_knows_who_it_is(pod: Manifest) -> None:
    assert environment(pod) == {
        "POD_NAME": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
        "POD_NAMESPACE": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        "KUBEACTOR_NAME": "bank",
        "KUBEACTOR_UID": "5a7c",
        "KUBEACTOR_SHARDS": "64",
        "KUBEACTOR_PEER_DIR": "/etc/kubeactor/peer",
        "KUBEACTOR_METHOD_TIMEOUT_S": "30",
        "KUBEACTOR_ALARM_TIMEOUT_S": "30",
    }


def test_the_users_environment_and_limits_reach_hosts_and_ingresses_alike() -> None:
    wanted = namespace(
        env=[{"name": "FEE", "value": "1"}],
        envFrom=[{"secretRef": {"name": "keys"}}],
        limits={"methodTimeoutSeconds": 5, "alarmTimeoutSeconds": 900},
    )
    for pod in (host_pod(wanted), ingress_pod(wanted)):
        found = environment(pod)
        assert (found["FEE"], found["KUBEACTOR_METHOD_TIMEOUT_S"], found["KUBEACTOR_ALARM_TIMEOUT_S"]) == (
            "1",
            "5",
            "900",
        )
        assert container(pod)["envFrom"] == [{"secretRef": {"name": "keys"}}]


def test_code_of_a_config_map_is_mounted_and_found_first() -> None:
    for pod in (host_pod(bundle=WITH_CODE), ingress_pod(bundle=WITH_CODE)):
        assert environment(pod)["PYTHONPATH"] == "/code:/app"
        assert container(pod)["workingDir"] == "/code"
        assert {"name": "code", "configMap": {"name": "bank-code-0a1b2c3d4e"}} in pod["volumes"]
        assert mounts(pod)["/code"] == "configMap"
    assert "PYTHONPATH" not in environment(host_pod())
    assert "workingDir" not in container(host_pod())


def test_a_variable_stands_once_when_the_user_sets_pythonpath() -> None:
    pod = host_pod(namespace(env=[{"name": "PYTHONPATH", "value": "/mine"}]), WITH_CODE)
    assert [one for one in container(pod)["env"] if one["name"] == "PYTHONPATH"] == [
        {"name": "PYTHONPATH", "value": "/mine"}
    ]


def test_what_is_mounted_in_hosts_and_ingresses() -> None:
    assert mounts(host_pod()) == {"/etc/kubeactor/peer": "secret", "/tmp": "emptyDir", "/data": "claim"}
    assert mounts(ingress_pod()) == {
        "/etc/kubeactor/peer": "secret",
        "/tmp": "emptyDir",
        "/var/lib/kubeactor": "emptyDir",
    }
    bounded = [one for pod in (host_pod(), ingress_pod()) for one in pod["volumes"] if "emptyDir" in one]
    assert all(one["emptyDir"]["sizeLimit"] for one in bounded)


def test_liveness_is_asked_of_the_supervisor_and_later_than_it_needs_to_replace_a_hung_worker() -> None:
    probe = container(host_pod())["livenessProbe"]
    assert probe["httpGet"] == {"path": "/healthz", "port": "internal"}
    assert probe["periodSeconds"] * probe["failureThreshold"] > 60  # a worker inside RocksDB is given that long
    assert container(host_pod())["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "internal"}
    assert container(ingress_pod())["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "internal"}


@pytest.mark.parametrize(("grace", "sleep"), [(30, 5), (10, 5), (4, 2), (2, 1), (1, None)])
def test_an_ingress_goes_on_listening_for_a_while_within_its_grace_period(grace: int, sleep: int | None) -> None:
    pod = ingress_pod(namespace(ingress__terminationGracePeriodSeconds=grace))
    expected = {"preStop": {"sleep": {"seconds": sleep}}} if sleep else None
    assert container(pod).get("lifecycle") == expected
    assert pod["terminationGracePeriodSeconds"] == grace
    assert "lifecycle" not in container(host_pod())


def test_the_users_pod_settings_are_taken_as_they_are() -> None:
    settings = {
        "podLabels": {"team": "a"},
        "podAnnotations": {"note": "x"},
        "resources": {"limits": {"memory": "1Gi"}},
        "nodeSelector": {"disk": "ssd"},
        "affinity": {"podAntiAffinity": {"x": 1}},
        "tolerations": [{"operator": "Exists"}],
        "topologySpreadConstraints": [{"maxSkew": 2}],
        "priorityClassName": "high",
        "runtimeClassName": "gvisor",
        "serviceAccountName": "mine",
        "imagePullSecrets": [{"name": "registry"}],
        "imagePullPolicy": "Always",
        "terminationGracePeriodSeconds": 99,
        "volumes": [{"name": "tls", "secret": {"secretName": "tls"}}],
        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
    }
    for field, make in (("hosts", hosts.template), ("ingress", ingresses.template)):
        template = make(namespace(**{field: settings}), BUNDLE)
        pod, main = template["spec"], container(template["spec"])
        assert template["metadata"]["labels"]["team"] == "a"
        assert template["metadata"]["annotations"]["note"] == "x"
        for name in ("nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "priorityClassName"):
            assert pod[name] == settings[name]
        for name in ("runtimeClassName", "serviceAccountName", "imagePullSecrets", "terminationGracePeriodSeconds"):
            assert pod[name] == settings[name]
        assert (main["resources"], main["imagePullPolicy"]) == (settings["resources"], "Always")
        assert mounts(pod)["/tls"] == "secret"


def test_a_users_label_never_replaces_ours() -> None:
    """Admission refuses it already; a pod that left its Service's selector would be lost all the same."""
    template = hosts.template(namespace(hosts__podLabels={names.NAMESPACE_LABEL: "other"}), BUNDLE)
    assert template["metadata"]["labels"][names.NAMESPACE_LABEL] == "bank"


def test_pods_are_spread_over_nodes_unless_the_user_says_otherwise() -> None:
    (constraint,) = host_pod()["topologySpreadConstraints"]
    assert (constraint["topologyKey"], constraint["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert constraint["labelSelector"] == {"matchLabels": names.selector("bank", "host")}
    assert "topologySpreadConstraints" not in host_pod(namespace(hosts__affinity={"x": 1}))
    assert host_pod(namespace(hosts__topologySpreadConstraints=[{"maxSkew": 3}]))["topologySpreadConstraints"] == [
        {"maxSkew": 3}
    ]


# Templates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "bundle", "same"),
    [
        (namespace(hosts__replicas=1), BUNDLE, True),
        (namespace(hosts__storage__size="9Gi"), BUNDLE, True),
        (namespace(ingress__replicas=9, ingress__podLabels={"a": "b"}), BUNDLE, True),
        (namespace(), Bundle("bank:2"), False),
        (namespace(), Bundle("bank:1", "0"), False),
        (namespace(env=[{"name": "FEE", "value": "1"}]), BUNDLE, False),
        (namespace(frontDoor="bank:app"), BUNDLE, False),
        (namespace(hosts__podAnnotations={"a": "b"}), BUNDLE, False),
        (namespace(limits__methodTimeoutSeconds=1), BUNDLE, False),
    ],
)
def test_hosts_are_restarted_for_what_they_run_only(of: ActorNamespace, bundle: Bundle, same: bool) -> None:
    first, second = hosts.template(BANK, BUNDLE), hosts.template(of, bundle)
    assert (template_hash(first) == template_hash(second)) is same


def test_a_pod_and_a_template_without_a_hash_have_none() -> None:
    assert template_hash({"metadata": {"annotations": {"other": "x"}}}) == template_hash({}) == ""


@pytest.mark.parametrize(("template", "known"), [(hosts.template, "HOST"), (ingresses.template, "INGRESS")])
def test_an_upgrade_of_the_operator_restarts_nothing(template: Any, known: str) -> None:
    """When this fails, an upgrade to this commit restarts every pod of every namespace: say so in the changelog."""
    assert template_hash(template(BANK, BUNDLE)) == {"HOST": "f982571431", "INGRESS": "fce1a4fe3a"}[known]


# Workloads -----------------------------------------------------------------------------------------------------------


def test_the_stateful_set_never_deletes_a_claim_nor_restarts_a_pod_by_itself() -> None:
    spec = stateful_set()["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert spec["updateStrategy"] == {"type": "OnDelete"}
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["minReadySeconds"] == 0
    assert spec["serviceName"] == "bank-host"


@pytest.mark.parametrize("reclaim", ["Retain", "Delete"])
def test_reclaim_does_not_change_the_stateful_set(reclaim: str) -> None:
    assert stateful_set(namespace(hosts__storage__reclaim=reclaim)) == stateful_set()


def test_claims_ask_for_what_the_operator_decided() -> None:
    made = stateful_set(namespace(hosts__storage__storageClassName="fast"), size="7Gi", access_mode="ReadWriteOncePod")
    (claim,) = made["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "data"
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOncePod"],
        "resources": {"requests": {"storage": "7Gi"}},
        "storageClassName": "fast",
    }
    (claim,) = stateful_set()["spec"]["volumeClaimTemplates"]
    assert "storageClassName" not in claim["spec"]
    assert names.claim("bank", "host-0").startswith(
        f"{claim['metadata']['name']}-{stateful_set()['metadata']['name']}-"
    )


@pytest.mark.parametrize(
    ("provisioner", "mode"),
    [
        ("ebs.csi.aws.com", "ReadWriteOncePod"),
        ("rancher.io/local-path", "ReadWriteOncePod"),
        ("kubernetes.io/no-provisioner", "ReadWriteOnce"),
        ("kubernetes.io/gce-pd", "ReadWriteOnce"),
        (None, "ReadWriteOnce"),
    ],
)
def test_claims_ask_for_one_pod_where_the_class_allows_it(provisioner: str | None, mode: str) -> None:
    assert hosts.access_mode(provisioner) == mode


def test_the_last_good_template_is_kept_with_the_stateful_set() -> None:
    good = json.dumps(hosts.template(BANK, BUNDLE))
    assert stateful_set(last_good=good)["metadata"]["annotations"][names.LAST_GOOD] == good
    assert names.LAST_GOOD not in stateful_set()["metadata"]["annotations"]


def test_the_headless_service_lists_unready_hosts_too() -> None:
    spec = hosts.headless_service(BANK)["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    assert {one["name"]: one["port"] for one in spec["ports"]} == {"frames": 7000, "internal": 9090}


@pytest.mark.parametrize("replicas", [0, 5, None])
def test_replicas_of_ingresses_are_left_out_when_an_autoscaler_owns_them(replicas: int | None) -> None:
    wanted = namespace(ingress__replicas=replicas)
    spec = ingresses.deployment(wanted, ingresses.template(wanted, BUNDLE))["spec"]
    assert spec.get("replicas") == replicas
    assert ("replicas" in spec) is (replicas is not None)
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_the_public_service_is_as_the_user_wants_it() -> None:
    service = {
        "type": "LoadBalancer",
        "loadBalancerClass": "example.com/x",
        "annotations": {"example.com/size": "small"},
        "ports": {"http": {"port": 443, "nodePort": 31443}},
    }
    made = ingresses.public_service(namespace(ingress__service=service))
    assert made["metadata"]["annotations"]["example.com/size"] == "small"
    assert made["spec"] == {
        "type": "LoadBalancer",
        "selector": names.selector("bank", "ingress"),
        "ports": [{"name": "http", "port": 443, "targetPort": "http", "protocol": "TCP", "nodePort": 31443}],
        "loadBalancerClass": "example.com/x",
    }


@pytest.mark.parametrize(
    ("port", "balancer", "expected"),
    [
        (80, None, "http://bank.default.svc"),
        (8000, [], "http://bank.default.svc:8000"),
        (80, [{"ip": "192.0.2.7"}], "http://192.0.2.7"),
        (8000, [{"hostname": "lb.example.com"}], "http://lb.example.com:8000"),
        (80, [{"ip": "2001:db8::7"}], "http://[2001:db8::7]"),
    ],
)
def test_the_url_is_the_load_balancers_once_it_has_one(port: int, balancer: Any, expected: str) -> None:
    service = None if balancer is None else {"status": {"loadBalancer": {"ingress": balancer}}}
    assert ingresses.url(namespace(ingress__service__ports__http__port=port), service) == expected


# Rights, guards, sources ---------------------------------------------------------------------------------------------


def test_an_account_is_made_unless_the_user_names_one_which_gets_the_role_too() -> None:
    account = access.service_account(BANK, "host")
    assert account is not None
    assert account["metadata"]["name"] == host_pod()["serviceAccountName"] == "bank-host"
    mine = namespace(hosts__serviceAccountName="mine")
    assert access.service_account(mine, "host") is None
    assert access.service_account(mine, "ingress") is not None
    assert access.role_binding(mine, "host")["subjects"][0]["name"] == "mine"
    assert access.role_binding(mine, "ingress")["subjects"][0]["name"] == "bank-ingress"


@pytest.mark.parametrize("component", ["host", "ingress"])
def test_a_role_reads_one_table_and_the_endpoint_slices(component: str) -> None:
    role = access.role(BANK, component)
    verbs = ["get", "list", "watch"]
    assert role["rules"] == [
        {"apiGroups": ["kubeactor.io"], "resources": ["actorplacements"], "resourceNames": ["bank"], "verbs": verbs},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs},
    ]
    assert access.role_binding(BANK, component)["roleRef"]["name"] == role["metadata"]["name"]


def test_budgets_take_one_pod_at_a_time_and_there_is_none_for_a_single_one() -> None:
    budget = guards.host_budget(BANK, 2)
    assert budget is not None
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert guards.host_budget(BANK, 1) is guards.host_budget(BANK, 0) is None
    wanted = {replicas: guards.ingress_budget(namespace(ingress__replicas=replicas)) for replicas in (0, 1, 2, None)}
    assert [replicas for replicas, found in wanted.items() if found] == [2, None]


def test_frames_come_from_this_namespaces_hosts_and_ingresses_only() -> None:
    policy = guards.network_policy(BANK)
    assert policy is not None
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert policy["spec"]["podSelector"] == {"matchLabels": names.selector("bank", "host")}
    frames, internal = policy["spec"]["ingress"]
    assert frames["ports"] == [{"protocol": "TCP", "port": "frames"}]
    (peer,) = frames["from"]
    assert peer["podSelector"]["matchLabels"] == {"kubeactor.io/namespace": "bank"}
    assert peer["podSelector"]["matchExpressions"][0]["values"] == ["host", "ingress"]
    assert internal == {"ports": [{"protocol": "TCP", "port": "internal"}]}
    assert guards.network_policy(namespace(hosts__networkPolicy=False)) is None


def test_the_copy_of_code_is_named_by_its_content_alone() -> None:
    first: Manifest = {"metadata": {"name": "bank-code", "resourceVersion": "1"}, "data": {"bank.py": "1"}}
    touched = first | {"metadata": {"name": "bank-code", "resourceVersion": "2", "labels": {"a": "b"}}}
    changed = first | {"data": {"bank.py": "2"}}
    binary = {"binaryData": {"bank.py": "1"}}
    assert sources.code_hash(first) == sources.code_hash(touched)
    assert len({sources.code_hash(one) for one in (first, changed, binary)}) == 3
    copied = sources.code_config_map(BANK, first)
    assert copied["metadata"]["name"] == f"bank-code-{sources.code_hash(first)}"
    assert (copied["immutable"], copied["data"]) == (True, {"bank.py": "1"})
    assert sources.code_hash(copied) == sources.code_hash(first)


def test_peer_credentials_are_read_back() -> None:
    secret = sources.peer_secret(BANK, "new", "old")
    assert sources.peer_credentials(secret) == ("new", "old")
    broken = {"data": {"current": base64.b64encode(b"\xff").decode(), "previous": "no base64!"}}
    assert sources.peer_credentials(broken) == sources.peer_credentials({}) == ("", "")


def test_a_claim_goes_with_its_namespace_only_when_reclaim_says_so() -> None:
    other = {"apiVersion": "v1", "kind": "Backup", "name": "b", "uid": "77"}
    delete, retain = namespace(hosts__storage__reclaim="Delete"), BANK
    ours = owner_reference(BANK, controller=False)
    assert placement.claim_owners(delete, [other]) == [other, ours]
    assert placement.claim_owners(delete, [ours, other]) == [other, ours]
    assert placement.claim_owners(retain, [other, ours]) == [other]
    assert "controller" not in ours


def test_gone_takes_a_field_out() -> None:
    assert namespace(image=GONE, code={"configMap": "x"}).spec.image is None
