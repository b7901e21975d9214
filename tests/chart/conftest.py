"""Helm and kubectl on an API server of these tests' own: they install and replace the CRDs that others share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.chart.helm import Helm, Kubectl
from tests.cluster.api import ApiServer


@pytest.fixture(scope="session")
def helm(apiserver: ApiServer) -> Helm:
    return Helm(apiserver.programs / "helm")


@pytest.fixture(scope="session")
def kubectl(apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    with ApiServer(apiserver.programs, tmp_path_factory.mktemp("chart")) as server:
        yield Kubectl(server.programs / "kubectl", server.kubeconfig)
