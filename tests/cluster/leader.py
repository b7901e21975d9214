"""The operator's process that leads, wherever it is: to be killed, stopped and measured."""

from __future__ import annotations

from typing import Any

from tests.cluster.beside import read_metrics
from tests.cluster.conftest import HOME
from tests.cluster.kube import until
from tests.cluster.nodes import Cluster

from kubeactor_operator.live import when

__all__ = ["Leader"]


class Leader:
    """That of the chart's release."""

    def __init__(self, cluster: Cluster, since: float = 0.0) -> None:
        """The one that has renewed the Lease after that time."""
        self._cluster = cluster
        self.pod: dict[str, Any] = until(lambda: self._holder(since), "a leader", 120)
        (self.process,) = cluster.pids(self.pod, "operator")

    @property
    def name(self) -> str:
        """Of its pod."""
        return str(self.pod["metadata"]["name"])

    def _holder(self, since: float) -> dict[str, Any] | None:
        lease = self._cluster.kube.get("lease", "kubeactor", "-n", HOME)["spec"]
        if when(lease.get("renewTime")) <= since or not lease.get("holderIdentity"):
            return None
        found: dict[str, Any] = self._cluster.kube.get("pod", lease["holderIdentity"], "-n", HOME)
        return found

    def signal(self, name: str) -> None:
        """Send it a signal from its node."""
        self._cluster.on_node(self.pod["spec"]["nodeName"], "kill", f"-{name}", str(self.process))

    def gone(self) -> bool:
        """Whether the process has ended."""
        try:
            self.signal("0")
        except AssertionError:
            return True
        return False

    def metrics(self) -> str:
        """As Prometheus reads them."""
        return read_metrics(self.pod["status"]["podIP"])

    def memory_mib(self) -> float:
        """What it has resident."""
        status = self._cluster.on_node(self.pod["spec"]["nodeName"], "cat", f"/proc/{self.process}/status")
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024
