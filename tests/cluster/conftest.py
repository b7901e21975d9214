"""One operator and one bank for the tests of faults: the chart as the README installs it, the example as it stands."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from tests.cluster.kube import Space
from tests.cluster.load import Depositors, ready
from tests.cluster.machine import ROOT
from tests.cluster.nodes import Cluster, Images

HOME = "kubeactor-system"


@pytest.fixture(scope="session")
def operator(cluster: Cluster, images: Images) -> Iterator[None]:
    """The chart as the README installs it."""
    chart = str(ROOT / "charts/kubeactor")
    command = ["helm", "upgrade", "--install", "kubeactor", chart, "--namespace", HOME, "--create-namespace"]
    cluster.run(*command, "--take-ownership", "--force-conflicts", "--wait", "--timeout", "5m", timeout_s=400)
    yield
    cluster.run("helm", "uninstall", "kubeactor", "--namespace", HOME, "--wait", timeout_s=400)


@pytest.fixture(scope="session")
def bank(cluster: Cluster, operator: None) -> Iterator[Space]:
    """The example as it stands, served."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    name = f"bank-{uuid.uuid4().hex[:6]}"
    cluster.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    space = Space(cluster.kube, name)
    space.kubectl("apply", "-f", str(ROOT / "examples/01-bank/namespace.yaml"))
    try:
        ready(space)
        yield space
    finally:
        space.kubectl("delete", "actornamespaces", "--all", "--wait=false")
        cluster.kube.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def load(bank: Space) -> Iterator[Depositors]:
    """Deposits from before the fault until all accounts take them again, none lost, none applied twice."""
    ready(bank)
    with Depositors() as depositors:
        depositors.all_past(3)
        yield depositors
        depositors.all_past(3)
    print(f"longest call: {depositors.longest_s:.1f} s of {sum(depositors.acknowledged)}")
    depositors.settle()
