"""The test cluster is a real one: nodes, volumes, services, processes that can be killed from outside."""

from __future__ import annotations

import urllib.request
from typing import Any

import pytest
from tests.cluster.kube import Space
from tests.cluster.nodes import Cluster, Images

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
SERVE = """
import functools, http.server, pathlib, socketserver
with pathlib.Path("/data/starts").open("a") as starts:
    starts.write("x")
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory="/data")
socketserver.TCPServer.allow_reuse_address = True
socketserver.TCPServer(("", 8000), handler).serve_forever()
"""


def stateful(image: str) -> dict[str, Any]:
    """One pod that counts its starts in a file of its volume and serves that by HTTP."""
    container = {
        "name": "box",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", SERVE],
        "workingDir": "/data",
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
    }
    pod = {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": 65532,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "box"},
        "spec": {
            "serviceName": "box",
            "selector": {"matchLabels": {"app": "box"}},
            "template": {"metadata": {"labels": {"app": "box"}}, "spec": pod},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
        },
    }


def starts(pod: dict[str, Any]) -> int:
    with urllib.request.urlopen(f"http://{pod['status']['podIP']}:8000/starts", timeout=10) as answer:
        return len(answer.read())


@pytest.mark.cluster
def test_all_nodes_are_ready(cluster: Cluster) -> None:
    nodes = cluster.kube.get("nodes")["items"]
    assert nodes
    for node in nodes:
        ready = [c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready"]
        assert ready == ["True"], node["metadata"]["name"]


@pytest.mark.kindnodes
def test_the_nodes_are_those_of_the_kind_configuration(cluster: Cluster) -> None:
    names = {node["metadata"]["name"] for node in cluster.kube.get("nodes")["items"]}
    assert names == {"kubeactor-control-plane", "kubeactor-worker", "kubeactor-worker2"}


@pytest.mark.kindnodes
def test_a_process_killed_from_its_node_comes_back_with_its_volume(
    cluster: Cluster, images: Images, space: Space
) -> None:
    space.apply(stateful(images.host))
    pod = space.until_ready("box-0")
    assert starts(pod) == 1
    (process,) = cluster.pids(pod, "box")
    cluster.on_node(pod["spec"]["nodeName"], "kill", "-9", str(process))

    def restarted() -> bool:
        status = space.get("pod", "box-0")["status"]["containerStatuses"][0]
        return bool(status["restartCount"] == 1 and status["ready"])

    space.until(restarted, "the container restarted")
    assert starts(space.get("pod", "box-0")) == 2


@pytest.mark.kindnodes
def test_a_pod_deleted_by_force_comes_back_with_its_volume(images: Images, space: Space) -> None:
    space.apply(stateful(images.host))
    old = space.until_ready("box-0")
    space.kubectl("delete", "pod", "box-0", "--force", "--grace-period=0")
    new = space.until_ready("box-0", but_uid=old["metadata"]["uid"])
    assert starts(new) == 2
