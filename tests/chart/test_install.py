"""The chart on a real API server: everything is accepted, upgrades go through, and what must stay stays."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.chart.helm import CHART, NAME, ROOT, Helm, Kubectl, namespace, previous_chart

HOME = ("--namespace", "kubeactor-system")
TEAM = ("--namespace", "team-a")
OURS = "app.kubernetes.io/name=kubeactor"
CRDS = {
    "customresourcedefinition.apiextensions.k8s.io/actornamespaces.kubeactor.io",
    "customresourcedefinition.apiextensions.k8s.io/actorplacements.kubeactor.io",
}
BANK = {
    "apiVersion": "kubeactor.io/v1alpha1",
    "kind": "ActorNamespace",
    "metadata": {"name": "bank"},
    "spec": {"image": "example/bank:1", "actors": [{"binding": "ACCOUNT", "class": "bank:Account"}]},
}


@pytest.fixture
def chart(helm: Helm, kubectl: Kubectl) -> Iterator[Helm]:
    """Helm on a cluster without a release of ours. CRDs of the test before stay: that is what they are made for."""
    live = Helm(helm.path, kubectl.kubeconfig)
    kubectl.apply([namespace(name) for name in ("kubeactor-system", "team-a", "team-b")])
    yield live
    for each in json.loads(live.run("list", "--all-namespaces", "--output", "json").stdout):
        live.run("uninstall", each["name"], "--namespace", each["namespace"])


def install(
    helm: Helm, *arguments: str, name: str = NAME, chart: Path = CHART, take: bool = True, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Install it; by default with the CRDs that another test's release left."""
    taking = ["--take-ownership", "--force-conflicts"] if take else []
    return helm.run("install", name, str(chart), *HOME, *taking, *arguments, check=check)


def established(kubectl: Kubectl) -> None:
    kubectl.run("wait", "--for=condition=Established", "--timeout=60s", *sorted(CRDS))


def test_uninstall_leaves_the_crds_and_every_actor_namespace(chart: Helm, kubectl: Kubectl) -> None:
    install(chart)
    established(kubectl)
    kubectl.apply([BANK], *TEAM)
    before = kubectl.get("actorns", "bank", *TEAM)
    told = chart.run("uninstall", NAME, *HOME)
    assert "kept due to the resource policy" in told.stdout
    assert kubectl.names("deployments,roles,serviceaccounts", *HOME, "-l", OURS) == set()
    assert kubectl.names("clusterroles,clusterrolebindings", "-l", OURS) == set()
    assert kubectl.names("crds") >= CRDS
    assert kubectl.get("actorns", "bank", *TEAM) == before

    install(chart, take=False)  # the same release takes care of them again
    assert kubectl.get("actorns", "bank", *TEAM) == before
    kubectl.run("delete", "actorns", "bank", *TEAM)


def test_a_release_of_another_name_takes_the_crds_over_only_when_told(chart: Helm, kubectl: Kubectl) -> None:
    install(chart)
    chart.run("uninstall", NAME, *HOME)
    refused = install(chart, name="other", take=False, check=False)
    assert refused.returncode != 0
    assert "invalid ownership metadata" in refused.stderr
    install(chart, name="other")
    assert kubectl.names("crds") >= CRDS


def test_crds_applied_by_an_administrator_are_left_alone(chart: Helm, kubectl: Kubectl) -> None:
    kubectl.run("apply", "--server-side", "--force-conflicts", "--filename", str(ROOT / "crds"))
    before = {name: kubectl.get(name) for name in CRDS}
    install(chart, "--set", "crds.create=false")
    chart.run("uninstall", NAME, *HOME)
    after = {name: kubectl.get(name) for name in CRDS}
    assert {name: each["spec"] for name, each in after.items()} == {name: each["spec"] for name, each in before.items()}
    assert {name: each["metadata"]["uid"] for name, each in after.items()} == {
        name: each["metadata"]["uid"] for name, each in before.items()
    }


def test_an_older_chart_does_not_put_back_the_crds_of_a_newer_one(chart: Helm, kubectl: Kubectl) -> None:
    install(chart)
    kubectl.run("annotate", "--overwrite", "crd", "actorplacements.kubeactor.io", "kubeactor.io/release=99.0.0")
    upgrade = ("upgrade", NAME, str(CHART), *HOME)
    refused = chart.run(*upgrade, check=False)
    assert refused.returncode != 0
    assert "actorplacements.kubeactor.io in the cluster is that of kubeactor 99.0.0" in refused.stderr
    assert "crds.create=false" in refused.stderr
    chart.run(*upgrade, "--set", "crds.create=false")
    annotations = kubectl.get("crd", "actorplacements.kubeactor.io")["metadata"]["annotations"]
    kubectl.run("annotate", "crd", "actorplacements.kubeactor.io", "kubeactor.io/release-")
    assert annotations["kubeactor.io/release"] == "99.0.0"


def test_an_upgrade_from_the_chart_before_and_back(chart: Helm, kubectl: Kubectl, tmp_path: Path) -> None:
    install(chart, "--set", "replicas=1,podLabels.kept=yes", chart=previous_chart(tmp_path))
    established(kubectl)
    kubectl.apply([BANK], *TEAM)
    before = kubectl.get("actorns", "bank", *TEAM)
    chart.run("upgrade", NAME, str(CHART), *HOME, "--reset-then-reuse-values", "--set", "replicas=3")
    deployment = kubectl.get("deployment", NAME, *HOME)
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["template"]["metadata"]["labels"]["kept"] == "yes"
    assert kubectl.get("actorns", "bank", *TEAM) == before
    chart.run("rollback", NAME, "1", *HOME)
    assert kubectl.get("deployment", NAME, *HOME)["spec"]["replicas"] == 1
    assert kubectl.get("actorns", "bank", *TEAM) == before
    kubectl.run("delete", "actorns", "bank", *TEAM)


def test_two_releases_for_two_namespaces_live_beside_each_other(chart: Helm, kubectl: Kubectl) -> None:
    def values(team: str, crds: bool) -> list[str]:
        return ["--set", f"watch.namespaces={{{team}}}", "--set", f"crds.create={str(crds).lower()}"]

    install(chart, *values("team-a", True), name="a")
    install(chart, *values("team-b", False), name="b")
    leases = {
        rule["resourceNames"][0]
        for name in ("kubeactor-a-lease", "kubeactor-b-lease")
        for rule in kubectl.get("role", name, *HOME)["rules"]
        if "resourceNames" in rule
    }
    assert leases == {"kubeactor-a", "kubeactor-b"}
    assert kubectl.names("roles", "--namespace", "team-b", "-l", OURS) == {"role.rbac.authorization.k8s.io/kubeactor-b"}
    assert kubectl.names("clusterroles", "-l", OURS) == set()


def test_the_lease_and_the_flag_have_one_name(helm: Helm) -> None:
    made: list[dict[str, Any]] = helm.template("r", {})
    (role,) = (each for each in made if each["kind"] == "Role")
    (deployment,) = (each for each in made if each["kind"] == "Deployment")
    lease = role["rules"][1]["resourceNames"][0]
    assert f"--lease-name={lease}" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
