"""The chart on a real cluster: an account is debited, by `helm test` and by the README word for word."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.chart.helm import CHART, NAME, ROOT
from tests.cluster.kube import Space
from tests.cluster.nodes import Cluster, Images

CRDS = ("crd/actornamespaces.kubeactor.io", "crd/actorplacements.kubeactor.io")
BLOCKS = re.findall(
    r"```console\n(.*?)```", (ROOT / "README.md").read_text().partition("## On Kubernetes")[2], re.DOTALL
)


def repository(image: str, value: str) -> str:
    name, _, tag = image.rpartition(":")
    return f"{value}.repository={name},{value}.tag={tag}"


def image_values(images: Images) -> list[str]:
    return ["--set", repository(images.operator, "image"), "--set", repository(images.host, "hostImage")]


@pytest.mark.cluster
def test_helm_test_debits_an_account_in_a_namespace_that_enforces_restricted(
    cluster: Cluster, images: Images, space: Space
) -> None:
    where = ("--namespace", space.name)
    served = ("--set", f"watch.namespaces={{{space.name}}}", "--take-ownership", "--force-conflicts")
    install = ("helm", "install", NAME, str(CHART), *where, *served, *image_values(images), "--wait", "--timeout", "5m")
    cluster.run(*install, timeout_s=320)
    try:
        told = cluster.run("helm", "test", NAME, *where, "--logs", "--timeout", "6m", timeout_s=380)
        assert re.search(r"deposited 100, debited 30: \d+ left", told), told
        assert space.kubectl("get", "actorns", "--output", "name") == ""
        space.until(lambda: not space.kubectl("get", "pvc", "--output", "name"), "the test's volume is gone")
    finally:
        cluster.run("helm", "uninstall", NAME, *where)
    assert all(
        name in space.kube.kubectl("get", *CRDS, "--output", "name") for name in ("actornamespaces", "actorplacements")
    )


@pytest.mark.cluster
@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_the_cluster_aggregates_our_rights_into_its_own_roles(cluster: Cluster, space: Space, role: str) -> None:
    made = cluster.run(
        "helm", "template", f"it-{space.name}", str(CHART), "--show-only", "templates/aggregated-roles.yaml"
    )
    cluster.kube.apply(made)
    try:
        space.kubectl("create", "rolebinding", "somebody", f"--clusterrole={role}", "--user=somebody")

        def may(verb: str, kind: str) -> bool:
            asked = ("auth", "can-i", verb, f"{kind}.kubeactor.io", "--as=somebody")
            return space.kubectl(*asked, "--quiet=false") == "yes\n"

        space.until(lambda: may("get", "actornamespaces"), "the role reads ActorNamespaces")
        if role != "view":
            space.until(lambda: may("create", "actornamespaces"), "the role makes ActorNamespaces")
        if role == "admin":
            space.until(lambda: may("update", "actorplacements"), "the role repairs tables")
    finally:
        cluster.run("kubectl", "delete", "-f", "-", stdin=made)


@pytest.fixture
def new(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster as a newcomer's: what other tests left of CRDs belongs to the release that the README installs."""
    kube = cluster.kube
    if kube.kubectl("get", *CRDS, "--ignore-not-found", "--output", "name"):
        owner = ("meta.helm.sh/release-name=kubeactor", "meta.helm.sh/release-namespace=default")
        kube.kubectl("annotate", "--overwrite", *CRDS, *owner)
        kube.kubectl("label", "--overwrite", *CRDS, "app.kubernetes.io/managed-by=Helm")
    yield cluster
    kube.kubectl("delete", "--ignore-not-found", "-f", str(ROOT / "examples" / "01-bank" / "namespace.yaml"))
    cluster.run("helm", "uninstall", "kubeactor", "--namespace", "default", "--ignore-not-found")
    kube.kubectl("delete", "pvc", "--namespace", "default", "--selector", "kubeactor.io/namespace=bank", "--wait=false")


def test_the_readme_names_the_release_and_files_that_there_are() -> None:
    create, *builds, load = re.findall(r"^\$ (.*)$", BLOCKS[0], re.MULTILINE)
    assert (ROOT / create.split()[-1]).is_file()
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    names = [f"kubeactor/{target}:{version[1]}" for target in ("host", "operator")]
    assert builds == [f"docker build --target {name[10:].split(':')[0]} -t {name} ." for name in names]
    assert load == f"kind load docker-image {' '.join(names)}"


@pytest.mark.kindnodes
def test_the_readme_leads_to_a_debit_word_for_word_and_uninstall_leaves_it_serving(
    new: Cluster, images: Images
) -> None:
    """The first block is what the fixtures have done: the same configuration, the same images.

    Afterwards no operator runs, and the fixture's `kubectl delete` of the bank must not wait for one.
    """
    assert images.host.startswith("kubeactor/host:")
    for command, answer in re.findall(r"^\$ (.*)\n((?:[^$\n].*\n)*)", BLOCKS[1], re.MULTILINE):
        told = new.run("bash", "-c", f"cd '{ROOT}' && {command}", timeout_s=400)
        if answer:
            assert told.strip() == answer.strip(), command
    new.run("helm", "uninstall", "kubeactor", "--wait", "--timeout", "3m", timeout_s=200)
    debit = ("curl", "--silent", "--max-time", "30", "--data", '{"amount": 30}', "http://127.0.0.1:30080/alice")
    assert new.run(*debit) == '{"ok":true,"balance":40}'
