"""What the chart makes of its values: the usual ones, and the most extreme ones that it takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.helm import CHART, EXTREMES, NAME, ROOT, Helm, Manifest, pod_templates

CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


@pytest.fixture(params=EXTREMES.values(), ids=list(EXTREMES))
def made(request: pytest.FixtureRequest, helm: Helm) -> list[Manifest]:
    name, values = request.param
    return helm.template(name, values)


def one(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = (each for each in manifests if each["kind"] == kind)
    return found


@pytest.mark.parametrize(("name", "values"), EXTREMES.values(), ids=list(EXTREMES))
def test_lint_finds_nothing(helm: Helm, tmp_path: Path, name: str, values: Manifest) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    assert (
        "1 chart(s) linted, 0 chart(s) failed" in helm.run("lint", "--strict", str(CHART), "--values", str(file)).stdout
    )


def test_every_object_has_a_name_of_its_own_and_the_labels(made: list[Manifest]) -> None:
    seen = set()
    for each in made:
        meta = each["metadata"]
        assert ("namespace" in meta) == (each["kind"] not in CLUSTER_SCOPED), each
        key = each["kind"], meta.get("namespace"), meta["name"]
        assert key not in seen
        seen.add(key)
        if each["kind"] in {"Service", "ServiceAccount", "Deployment", "Pod", "ActorNamespace"}:
            assert DNS_LABEL.fullmatch(meta["name"]), meta["name"]
        assert meta["labels"]["app.kubernetes.io/name"] == "kubeactor"
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert all(len(value) <= 63 for value in meta["labels"].values())


def test_every_pod_keeps_to_the_restricted_standard(made: list[Manifest]) -> None:
    assert pod_templates(made)
    for pod in pod_templates(made):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} <= {"emptyDir", "configMap"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_what_selects_the_operator_finds_its_pods_and_no_other(made: list[Manifest]) -> None:
    operator = one(made, "Deployment")["spec"]
    wanted = operator["selector"]["matchLabels"]
    assert wanted.items() <= operator["template"]["metadata"]["labels"].items()
    assert [each for each in pod_templates(made) if wanted.items() <= each["metadata"]["labels"].items()] == [
        operator["template"]
    ]
    selectors = [each["spec"]["selector"] for each in made if each["kind"] == "Service"]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in made if each["kind"] == "PodDisruptionBudget"]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in made if each["kind"] == "NetworkPolicy"]
    assert selectors
    assert all(selector == wanted for selector in selectors)


def test_with_some_namespaces_nothing_but_crds_belongs_to_the_cluster(helm: Helm) -> None:
    values = EXTREMES["some namespaces"][1]
    made = helm.template(NAME, values)
    assert not [each for each in made if each["kind"] in CLUSTER_SCOPED]
    roles = [(each["kind"], each["metadata"]["namespace"]) for each in made if each["kind"] in {"Role", "RoleBinding"}]
    assert sorted(roles) == sorted(
        (kind, where) for kind in ("Role", "RoleBinding") for where in ("kubeactor-system", "team-a", "team-b")
    )
    assert {"--namespace=team-a", "--namespace=team-b"} <= set(operator(made)["args"])
    assert {each["metadata"]["namespace"] for each in made if "test" in hook(each)} == {"team-a"}
    with_crds = helm.template(NAME, EXTREMES["its own namespace"][1])
    assert {each["kind"] for each in with_crds if each["kind"] in CLUSTER_SCOPED} <= {"CustomResourceDefinition"}
    assert {each["metadata"]["namespace"] for each in with_crds if "test" in hook(each)} == {"kubeactor-system"}


def operator(made: list[Manifest]) -> dict[str, Any]:
    (container,) = one(made, "Deployment")["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


def hook(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("annotations", {}).get("helm.sh/hook", ""))


def test_each_switch_makes_its_object(helm: Helm) -> None:
    def kinds(values: Manifest) -> set[str]:
        return {each["kind"] for each in helm.template(NAME, values)}

    assert kinds(EXTREMES["everything off"][1]) == {"Deployment", "Service"}
    usual = kinds({})
    assert {"ServiceMonitor", "NetworkPolicy"} & usual == set()
    assert "ServiceMonitor" in kinds({"metrics": {"serviceMonitor": {"create": True}}})
    assert "NetworkPolicy" in kinds({"networkPolicy": {"create": True}})
    assert usual - kinds({"podDisruptionBudget": {"create": False}}) == {"PodDisruptionBudget"}
    assert usual - kinds({"replicas": 1}) == {"PodDisruptionBudget"}
    assert usual - kinds({"serviceAccount": {"create": False}}) == {"ServiceAccount"}
    assert usual - kinds({"test": {"create": False}}) == {"ActorNamespace", "ConfigMap", "Pod"}
    assert usual - kinds({"rbac": {"create": False}}) == {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
    assert usual - kinds({"crds": {"create": False}}) == {"CustomResourceDefinition"}


def test_values_arrive_as_they_were_given(helm: Helm) -> None:
    name, values = EXTREMES["everything on"]
    made = helm.template(name, values)
    template = one(made, "Deployment")["spec"]["template"]
    pod, container = template["spec"], operator(made)
    for key in ("nodeSelector", "affinity", "tolerations", "priorityClassName", "imagePullSecrets"):
        assert pod[key] == values[key], key
    assert container["resources"] == values["resources"]
    assert container["args"][-len(values["extraArgs"]) :] == values["extraArgs"]
    assert container["env"][-len(values["extraEnv"]) :] == values["extraEnv"]
    assert container["envFrom"] == values["extraEnvFrom"]
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["runAsGroup"] == values["runAsUser"]
    assert template["metadata"]["annotations"] == values["podAnnotations"]
    assert template["metadata"]["labels"]["example.com/yes"] == "yes"
    assert one(made, "ServiceAccount")["metadata"]["annotations"] == values["serviceAccount"]["annotations"]
    assert one(made, "Service")["metadata"]["annotations"] == values["metrics"]["serviceAnnotations"]
    assert one(made, "NetworkPolicy")["spec"]["ingress"][0]["from"] == values["networkPolicy"]["from"]
    first, second = pod["topologySpreadConstraints"]
    assert first == values["topologySpreadConstraints"][0]
    assert second["labelSelector"]["matchLabels"] == one(made, "Deployment")["spec"]["selector"]["matchLabels"]
    assert one(made, "ActorNamespace")["spec"]["hosts"]["storage"]["storageClassName"] == "fast.local"


def test_the_test_s_pod_is_not_called_like_the_service_that_it_calls(helm: Helm) -> None:
    """A pod's own name leads to itself."""
    made = helm.template(NAME, {})
    pod, wanted = one(made, "Pod"), one(made, "ActorNamespace")["metadata"]
    assert pod["metadata"]["name"] != wanted["name"]
    assert f"http://{wanted['name']}.{wanted['namespace']}.svc" in pod["spec"]["containers"][0]["command"]


def test_the_chart_s_own_labels_win_over_the_pod_labels(helm: Helm) -> None:
    made = helm.template(NAME, {"podLabels": {"app.kubernetes.io/name": "not-ours"}})
    assert one(made, "Deployment")["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "kubeactor"


def test_images_go_by_digest_then_tag_then_the_chart_s_release(helm: Helm) -> None:
    release = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    digest = "sha256:" + "a" * 64

    def images(image: Manifest) -> tuple[str, str]:
        made = helm.template(NAME, {"image": image, "hostImage": image})
        (argument,) = (each for each in operator(made)["args"] if each.startswith("--host-image="))
        assert one(made, "Pod")["spec"]["containers"][0]["image"] == argument.removeprefix("--host-image=")
        return operator(made)["image"], argument.removeprefix("--host-image=")

    assert images({}) == (f"kubeactor/operator:{release}", f"kubeactor/host:{release}")
    assert images({"tag": "x"}) == ("kubeactor/operator:x", "kubeactor/host:x")
    assert images({"tag": "x", "digest": digest}) == (f"kubeactor/operator@{digest}", f"kubeactor/host@{digest}")


def test_the_chart_is_of_the_release_of_the_code() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert project
    assert chart["version"] == chart["appVersion"] == project[1]


def test_the_crds_are_ours_with_the_annotations_that_keep_them(helm: Helm) -> None:
    ours = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    made = [each for each in helm.template(NAME, {}) if each["kind"] == "CustomResourceDefinition"]
    assert len(made) == len(ours) == 2
    for theirs, crd in zip(made, ours, strict=True):
        assert theirs["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert theirs["metadata"]["name"] == crd["metadata"]["name"]
        assert theirs["spec"] == crd["spec"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"replica": 3}, "additional properties 'replica' not allowed"),
        ({"replicas": "two"}, "'/replicas': got string, want integer"),
        ({"replicas": 11}, "'/replicas': maximum: got 11, want 10"),
        (
            {"image": {"pullPolicy": "Sometimes"}},
            "'/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'",
        ),
        ({"image": {"repository": ""}}, "'/image/repository': minLength"),
        ({"image": {"repository": "a", "tag": "a:b"}}, "'/image/tag': 'a:b' does not match"),
        ({"hostImage": {"digest": "md5:0"}}, "'/hostImage/digest': 'md5:0' does not match"),
        ({"imagePullSecrets": ["registry"]}, "'/imagePullSecrets/0': got string, want object"),
        ({"watch": {"namespaces": "team-a"}}, "'/watch/namespaces': got string, want array"),
        ({"watch": {"namespaces": ["Team_A"]}}, "'/watch/namespaces/0': 'Team_A' does not match"),
        ({"watch": {"namespaces": ["a", "a"]}}, "'/watch/namespaces': items at 0 and 1 are equal"),
        ({"watch": {"namespace": ["a"]}}, "additional properties 'namespace' not allowed"),
        ({"crds": {"create": "yes"}}, "'/crds/create': got string, want boolean"),
        ({"fullnameOverride": "1-begins-with-a-digit"}, "'/fullnameOverride'"),
        ({"fullnameOverride": "x" * 64}, "'/fullnameOverride': maxLength"),
        ({"podLabels": {"a": "b c"}}, "'/podLabels/a': 'b c' does not match"),
        ({"podAnnotations": {"a": 1}}, "'/podAnnotations/a': got number, want string"),
        ({"extraEnv": [{"name": "A", "value": 1}]}, "'/extraEnv/0/value': got number, want string"),
        ({"extraEnv": {"A": "1"}}, "'/extraEnv': got object, want array"),
        ({"extraArgs": "--verbose"}, "'/extraArgs': got string, want array"),
        ({"resources": {"limit": {}}}, "additional properties 'limit' not allowed"),
        ({"resources": {"limits": {"memory": "1 GB"}}}, "'/resources/limits/memory': '1 GB' does not match"),
        ({"runAsUser": 0}, "'/runAsUser': minimum: got 0, want 1"),
        ({"affinity": {"podAffinty": {}}}, "additional properties 'podAffinty' not allowed"),
        ({"topologySpreadConstraints": [{"maxSkew": 1}]}, "missing properties 'topologyKey', 'whenUnsatisfiable'"),
        ({"networkPolicy": {"from": [{}]}}, "'/networkPolicy/from/0': minProperties"),
        (
            {"metrics": {"serviceMonitor": {"interval": "fast"}}},
            "'/metrics/serviceMonitor/interval': 'fast' does not match",
        ),
        ({"test": {"timeoutSeconds": 1}}, "'/test/timeoutSeconds': minimum: got 1, want 10"),
    ],
    ids=lambda part: str(part)[:60],
)
def test_a_wrong_value_is_refused_with_its_path(helm: Helm, values: Manifest, sentence: str) -> None:
    assert sentence in helm.refuses(values)


def test_a_parent_chart_may_share_its_global_values(helm: Helm) -> None:
    assert helm.template(NAME, {"global": {"registry": "example"}})


def test_an_older_kubernetes_is_refused(helm: Helm) -> None:
    assert "kubeVersion: >=1.32.0-0" in helm.refuses({}, "--kube-version", "1.31.9")
    assert helm.template(NAME, {}, "--kube-version", "1.32.0")
    assert helm.template(NAME, {}, "--kube-version", "v1.33.0-gke.100")


def test_the_notes_say_the_next_commands(helm: Helm) -> None:
    notes = helm.run("install", "mine", str(CHART), "--dry-run=client", "--namespace", "here").stdout.partition(
        "NOTES:"
    )[2]
    for command in (
        "kubectl -n here rollout status deployment/kubeactor-mine",
        "kubectl -n default wait actorns/bank --for=condition=Progressing=False",
        "helm test mine -n here",
        "serves the whole cluster",
    ):
        assert command in notes
    some = helm.run(
        "install", "mine", str(CHART), "--dry-run=client", "--set", "watch.namespaces={team-a,team-b}"
    ).stdout
    assert "serves the namespaces team-a, team-b" in some
    assert "kubectl -n team-a apply" in some
