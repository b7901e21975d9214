"""An operator as a process of the test's own, beside the engine of the nodes, where pods can be reached."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.kube import Kube
from tests.cluster.nodes import Images
from tests.harness.dev import free_port

__all__ = ["Beside", "metric", "operator", "read_metrics"]


@dataclass(frozen=True)
class Beside:
    """It, while it runs."""

    process: subprocess.Popen[bytes]
    port: int

    def metrics(self) -> str:
        """As Prometheus reads them."""
        return read_metrics("127.0.0.1", self.port)


def read_metrics(address: str, port: int = 8080) -> str:
    """Those of an operator."""
    with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def metric(text: str, name: str) -> float:
    """The sum over all labels of a metric; created times do not count."""
    lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@contextmanager
def operator(kube: Kube, namespace: str, images: Images, log: Path, *, lease: str = "beside") -> Iterator[Beside]:
    """One that looks after that Kubernetes namespace, and believes to lead by a Lease of its own there."""
    port = free_port()
    command = [sys.executable, "-m", "kubeactor_operator", "--namespace", namespace, "--lease-namespace", namespace]
    command += ["--lease-name", lease, "--host-image", images.host, "--port", str(port)]
    with log.open("ab") as out:
        process = subprocess.Popen(command, env={**os.environ, **kube.environment}, stdout=out, stderr=out)
        try:
            yield Beside(process, port)
            assert process.poll() is None, log.read_text()[-3000:]
        finally:
            process.terminate()
            assert process.wait(60) == 0, log.read_text()[-3000:]
