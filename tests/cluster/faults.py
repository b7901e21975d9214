"""What a test of faults does to processes, pods and nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tests.cluster.kube import Kube, KubeError, Space, until
from tests.cluster.nodes import Cluster

__all__ = ["control_plane", "host_pod", "ingress_pods", "kill", "new_operator", "processes", "quietly", "replaced"]

T = TypeVar("T")
Pod = Mapping[str, Any]


def host_pod(bank: Space, number: int = 1) -> dict[str, Any]:
    pod: dict[str, Any] = bank.get("pod", f"bank-host-{number}")
    return pod


def ingress_pods(bank: Space) -> list[dict[str, Any]]:
    """Those that are not about to end."""
    pods = bank.get("pods", "-l", "app.kubernetes.io/component=ingress")["items"]
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def control_plane(cluster: Cluster) -> str:
    """The name of its node."""
    (node,) = cluster.kube.kubectl("get", "nodes", "-l", "node-role.kubernetes.io/control-plane", "-o", "name").split()
    return node.removeprefix("node/")


def processes(cluster: Cluster, pod: Pod) -> list[int]:
    """Those of a pod of the bank: the supervisor, then what it started."""
    return cluster.pids(pod, pod["spec"]["containers"][0]["name"])


def kill(cluster: Cluster, pod: Pod, chosen: Sequence[int]) -> float:
    """Kill processes from outside, all at once; when that was, by the wall clock, which nodes share with us."""
    command = f"date +%s.%N && kill -9 {' '.join(map(str, chosen))}"
    return float(cluster.on_node(pod["spec"]["nodeName"], "sh", "-c", command))


def quietly(look: Callable[[], T]) -> T | None:
    """A look that may find no container between two."""
    try:
        return look()
    except (AssertionError, ValueError, KeyError, KubeError):
        return None


def replaced(cluster: Cluster, find: Callable[[], Pod], killed: Sequence[int]) -> None:
    """Wait until others run instead of those processes of the pod."""

    def look() -> bool:
        found = processes(cluster, find())
        return len(found) >= 2 and not set(killed) & set(found)

    until(lambda: quietly(look), "other processes run", 60)


def new_operator(kube: Kube, home: str) -> None:
    """Operators that lost their Lease have ended; new pods need not wait for kubelet's back-off."""
    kube.kubectl("-n", home, "delete", "pods", "--all", "--wait=false")
    kube.kubectl("-n", home, "rollout", "status", "deployment", "kubeactor", "--timeout=100s")
