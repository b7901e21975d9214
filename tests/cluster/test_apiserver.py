"""The API server without a cluster: enough of Kubernetes for CRDs and for the operator's calls."""

from __future__ import annotations

import pytest
from tests.cluster.api import ApiServer
from tests.cluster.kube import KubeError

CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "box"}, "data": {"key": "value"}}


def test_it_stores_objects_and_knows_its_version(apiserver: ApiServer) -> None:
    apiserver.kube.apply(CONFIG, namespace="default")
    assert apiserver.kube.get("configmap", "box", "-n", "default")["data"] == {"key": "value"}
    assert '"gitVersion": "v1.' in apiserver.kube.kubectl("get", "--raw", "/version")


def test_it_refuses_an_unknown_field_and_says_which(apiserver: ApiServer) -> None:
    with pytest.raises(KubeError, match=r"dato"):
        apiserver.kube.apply(CONFIG | {"dato": {}}, namespace="default")


def test_rights_are_enforced(apiserver: ApiServer) -> None:
    with pytest.raises(KubeError, match="cannot get resource"):
        apiserver.kube.kubectl("get", "configmap", "box", "-n", "default", "--as", "nobody")
