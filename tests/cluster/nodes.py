"""The running cluster, its nodes and kubeactor's images in it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.cluster.kube import Kube

__all__ = ["Cluster", "Images"]


@dataclass(frozen=True)
class Images:
    """Names that pods of the cluster can use."""

    host: str
    operator: str


@dataclass(frozen=True)
class Cluster:
    """The cluster of the run. What touches the nodes is for tests marked kindnodes only."""

    kube: Kube
    pid: int | None  # the first process of our own engine
    environment: Mapping[str, str]

    def run(self, *command: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """Run a command with the cluster's programs, KUBECONFIG and DOCKER_HOST (helm, kind, docker, curl).

        Raises AssertionError with what it said if it failed.
        """
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            env=self.kube.environment,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def on_node(self, node: str, *command: str) -> str:
        """Run a command on a node."""
        return self.run("docker", "exec", node, *command)

    def pids(self, pod: Mapping[str, Any], container: str) -> list[int]:
        """The processes of a pod's container as its node numbers them, the first one first."""
        statuses = pod["status"]["containerStatuses"]
        (wanted,) = (status["containerID"].split("//")[1] for status in statuses if status["name"] == container)
        lines = self.on_node(pod["spec"]["nodeName"], "ctr", "-n", "k8s.io", "task", "ps", wanted).splitlines()
        return sorted(int(line.split()[0]) for line in lines[1:])
