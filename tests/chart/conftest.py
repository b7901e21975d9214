"""Helm and a real API server for the tests of the chart."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chart.helm import Helm, Kubectl

DEV = Path.home() / ".cache/kubeactor/cluster/bin"


@pytest.fixture(scope="session")
def helm() -> Helm:
    return Helm(DEV / "helm")


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    return Kubectl(DEV / "kubectl", Path("/tmp/chart-api/kubeconfig"))
