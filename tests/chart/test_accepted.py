"""A real API server takes all that the chart makes, strictly; a namespace that enforces `restricted` takes its pods."""

from __future__ import annotations

import pytest
import yaml
from tests.chart.helm import EXTREMES, ROOT, Helm, Kubectl, Manifest, namespace, pod_templates

SERVICE_MONITORS: Manifest = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {"kind": "ServiceMonitor", "plural": "servicemonitors"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
CRDS = [*(yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml")), SERVICE_MONITORS]
TEAM = ("--namespace", "team-a")


@pytest.fixture(scope="module")
def equipped(kubectl: Kubectl) -> Kubectl:
    """One that has the CRDs, and namespaces that enforce the `restricted` standard."""
    spaces = [namespace(name) for name in ("kubeactor-system", "team-a", "team-b")]
    kubectl.apply([*CRDS, *spaces], "--force-conflicts")
    names = [crd["metadata"]["name"] for crd in CRDS]
    kubectl.run("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in names))
    return kubectl


@pytest.mark.parametrize(("name", "values"), EXTREMES.values(), ids=list(EXTREMES))
def test_every_manifest_is_accepted_strictly(helm: Helm, equipped: Kubectl, name: str, values: Manifest) -> None:
    made = helm.template(name, values)
    told = equipped.apply(made, "--dry-run=server", "--force-conflicts").stdout.splitlines()
    assert len(told) == len(made)
    assert all(line.endswith("(server dry run)") for line in told)


def test_what_the_schema_of_an_object_does_not_know_is_refused(helm: Helm, equipped: Kubectl) -> None:
    made = [each for each in helm.template("r", {}) if each["kind"] == "ActorNamespace"]
    made[0]["spec"]["shard"] = 8
    refused = equipped.apply(made, "--dry-run=server", check=False)
    assert refused.returncode != 0
    assert "shard" in refused.stderr


@pytest.mark.parametrize(("name", "values"), EXTREMES.values(), ids=list(EXTREMES))
def test_a_namespace_that_enforces_restricted_takes_every_pod(
    helm: Helm, equipped: Kubectl, name: str, values: Manifest
) -> None:
    pods = [pod(index, each["spec"]) for index, each in enumerate(pod_templates(helm.template(name, values)))]
    accounts = {each["spec"].get("serviceAccountName", "default") for each in pods}
    equipped.apply(
        [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": each}} for each in accounts], *TEAM
    )
    told = equipped.apply(pods, "--dry-run=server", *TEAM)
    assert len(told.stdout.splitlines()) == len(pods) > 0
    assert "violate" not in told.stderr


def test_that_namespace_refuses_other_pods(helm: Helm, equipped: Kubectl) -> None:
    (template,) = (each for each in pod_templates(helm.template("r", {"test": {"create": False}})))
    template["spec"]["containers"][0].pop("securityContext")
    template["spec"].pop("serviceAccountName")
    refused = equipped.apply([pod(0, template["spec"])], "--dry-run=server", *TEAM, check=False)
    assert "violates PodSecurity" in refused.stderr


def pod(index: int, spec: Manifest) -> Manifest:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{index}"}, "spec": spec}
