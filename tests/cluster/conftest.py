"""One operator and one bank for the tests of faults: the chart as the README installs it, the example as it stands."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.cluster.kube import Space
from tests.cluster.load import Depositors, node_port, ready
from tests.cluster.machine import ROOT
from tests.cluster.many import Many
from tests.cluster.nodes import Cluster, Images
from tests.cluster.published import Published
from tests.cluster.times import Times

HOME = "kubeactor-system"
TIMES = pytest.StashKey[Times]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := list(config.stash.get(TIMES, Times()).lines()):
        terminalreporter.section("faults on the cluster, as their callers felt them")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def times(pytestconfig: pytest.Config) -> Iterator[Times]:
    """Takes what was measured."""
    measured = pytestconfig.stash.setdefault(TIMES, Times())
    yield measured
    measured.keep(ROOT / "build" / "fault-times.md")


@pytest.fixture(scope="session")
def operator(cluster: Cluster, images: Images) -> Iterator[None]:
    """The chart as the README installs it."""
    chart = str(ROOT / "charts/kubeactor")
    command = ["helm", "upgrade", "--install", "kubeactor", chart, "--namespace", HOME, "--create-namespace"]
    cluster.run(*command, "--take-ownership", "--force-conflicts", "--wait", "--timeout", "5m", timeout_s=400)
    yield
    cluster.run("helm", "uninstall", "kubeactor", "--namespace", HOME, "--wait", timeout_s=400)


@contextmanager
def lasting_space(cluster: Cluster, prefix: str) -> Iterator[Space]:
    """A Kubernetes namespace for more tests than one, where only restricted pods are admitted."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    name = f"{prefix}-{uuid.uuid4().hex[:6]}"
    cluster.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    space = Space(cluster.kube, name)
    try:
        yield space
    finally:
        space.kubectl("delete", "actornamespaces", "--all", "--wait=false")
        cluster.kube.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def bank(cluster: Cluster, operator: None) -> Iterator[Space]:
    """The example as it stands, served."""
    with lasting_space(cluster, "bank") as space:
        space.kubectl("apply", "-f", str(ROOT / "examples/01-bank/namespace.yaml"))
        ready(space)
        yield space


@pytest.fixture(scope="session")
def published(cluster: Cluster, operator: None) -> Iterator[Published]:
    """Every version of kubeactor's objects, from the first test on that asks for it."""
    with Published(cluster.kube) as watching:
        yield watching


@pytest.fixture(scope="session")
def many(cluster: Cluster, operator: None) -> Iterator[Many]:
    """Fifty ActorNamespaces that no node takes; other tests run while nothing is written to them."""
    with lasting_space(cluster, "many") as space:
        yield Many(space)


@contextmanager
def under_load(bank: Space, *, may_break: bool = False) -> Iterator[Depositors]:
    """Calls from before the fault until all accounts take them again, none failed, lost or applied twice."""
    ready(bank)
    with Depositors(node_port(bank.kube)) as depositors:
        depositors.all_past(2)
        yield depositors
        depositors.all_past(2)
    depositors.settle(may_break=may_break)


@pytest.fixture
def load(bank: Space) -> Iterator[Depositors]:
    """The load for a fault that no client's connection notices."""
    with under_load(bank) as depositors:
        yield depositors
