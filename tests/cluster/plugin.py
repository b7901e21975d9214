"""Fixtures and markers for tests that need Kubernetes.

apiserver   etcd and an API server as plain processes: CRDs and the operator's calls, no pods
cluster     the kind cluster of this checkout, or the one of --kubeconfig; tests that use it are marked `cluster`, or
            `kindnodes` if they also need the Docker engine in which the nodes run
images      the names of kubeactor's images, loaded into that cluster
space       a Kubernetes namespace for one test, in that cluster

What takes long (building, creating) happens before the first test that needs it, outside of its timeout. Tests of the
cluster run last, and those that measure last of all. They run in the network of its engine, so 127.0.0.1 has the ports
of kind-config.yaml and pod addresses can be reached.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.cluster.api import ApiServer
from tests.cluster.kube import Kube, Space
from tests.cluster.machine import ROOT, Missing, inside, read_env, script
from tests.cluster.nodes import Cluster, Images

__all__ = ["apiserver", "cluster", "images", "space"]

TIMEOUT_S = 600
CI = os.environ.get("CI") == "true"


@dataclass
class State:
    """What this run has set up so far; an error is kept so that it is told by each test that it concerns."""

    external: Path | None
    prefix: str
    programs: Path | Missing | None = None
    cluster: Cluster | Missing | None = None
    images: Images | Missing | None = None
    ours: bool = False  # the cluster was started by this run, which then ends it
    not_run: list[str] = field(default_factory=list)


STATE = pytest.StashKey[State]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kubernetes")
    group.addoption("--kubeconfig", help="run the tests of the cluster on this one (KUBECONFIG file)")
    group.addoption("--image-prefix", default="", help="where that cluster finds kubeactor/host: registry.example/me/")


def pytest_configure(config: pytest.Config) -> None:
    external = config.getoption("--kubeconfig")
    config.stash[STATE] = State(Path(external).resolve() if external else None, config.getoption("--image-prefix"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    state = config.stash[STATE]
    for item in items:
        if needs(item, "cluster") and not item.get_closest_marker("cluster"):
            item.add_marker("cluster")
        if item.get_closest_marker("cluster") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))
    items.sort(key=lambda item: [item.get_closest_marker(name) is not None for name in ("cluster", "measures")])
    if state.external:
        deselected = [item for item in items if item.get_closest_marker("kindnodes")]
        if deselected and CI:
            raise pytest.UsageError("CI=true: tests marked kindnodes are required, and can't run with --kubeconfig")
        state.not_run = [item.nodeid for item in deselected]
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in deselected]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if state := config.stash[STATE].not_run:
        terminalreporter.section("not run on this cluster: they need the Docker engine of its nodes")
        for name in state:
            terminalreporter.line(name)


def needs(item: pytest.Item, what: str) -> bool:
    markers = what == "cluster" and any(item.get_closest_marker(name) for name in ("cluster", "kindnodes"))
    return markers or what in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    state = item.config.stash[STATE]
    prepare(item, state)
    running = state.cluster if needs(item, "cluster") else None
    with inside(running.pid if isinstance(running, Cluster) else None):
        return (yield)


def prepare(item: pytest.Item, state: State) -> None:
    capture = item.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        if needs(item, "apiserver") and state.programs is None:
            try:
                state.programs = Path(script("programs.sh").strip())
            except Missing as error:
                state.programs = error
        if needs(item, "cluster") and state.cluster is None:
            try:
                state.cluster = start(state)
            except Missing as error:
                state.cluster = error
        if needs(item, "images") and state.images is None:
            try:
                state.images = load(state)
            except Missing as error:
                state.images = error


def start(state: State) -> Cluster:
    if state.external:
        return Cluster(Kube(state.external, "kubectl", os.environ), None, {})
    state.ours = not script("cluster.sh", "running").strip()
    script("cluster.sh", "up")
    env = read_env()
    path = f"{env['PROGRAMS']}:/usr/sbin:/usr/bin:{os.environ['PATH']}" if "PROGRAMS" in env else os.environ["PATH"]
    environment = {**os.environ, **env, "PATH": path}
    kubectl = f"{env['PROGRAMS']}/kubectl" if "PROGRAMS" in env else "kubectl"
    pid = int(env["PID"]) if "PID" in env else None
    return Cluster(Kube(Path(env["KUBECONFIG"]), kubectl, environment), pid, environment)


def load(state: State) -> Images:
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    if not state.external:
        script("images.sh")
    return Images(f"{state.prefix}kubeactor/host:{version[1]}", f"{state.prefix}kubeactor/operator:{version[1]}")


@pytest.hookimpl(trylast=True)  # after Ctrl-C this comes before the fixtures of the session are ended, else
def pytest_sessionfinish(session: pytest.Session) -> None:
    state = session.config.stash[STATE]
    if state.ours:
        script("cluster.sh", "down")


def have(found: object) -> None:
    """Skip, or fail under CI=true, with the one line of what is missing."""
    if isinstance(found, Missing):
        if CI:
            pytest.fail(str(found), pytrace=False)
        pytest.skip(str(found))


@pytest.fixture(scope="session")
def apiserver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """etcd and an API server for the whole run; its `kube` is an administrator, `kubeconfig` the file of one."""
    programs = request.config.stash[STATE].programs
    have(programs)
    assert isinstance(programs, Path)
    with ApiServer(programs, tmp_path_factory.mktemp("apiserver")) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    found = request.config.stash[STATE].cluster
    have(found)
    assert isinstance(found, Cluster)
    return found


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest, cluster: Cluster) -> Images:
    found = request.config.stash[STATE].images
    have(found)
    assert isinstance(found, Images)
    return found


@pytest.fixture
def space(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Space]:
    """A namespace for this test, where only restricted pods are admitted; on failure the test's report shows it."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        yield Space(cluster.kube, name)
    finally:
        cluster.kube.kubectl("delete", "namespace", name, "--wait=false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[pytest.TestReport]:
    report: pytest.TestReport = yield
    given = getattr(item, "funcargs", {})
    used = given.get("space") or given.get("bank")
    if report.failed and isinstance(used, Space):
        report.sections.append((f"namespace {used.name}", used.report()))
    return report
