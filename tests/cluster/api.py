"""etcd and an API server as two processes on loopback: no nodes, no controllers, up in seconds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

from tests.cluster.kube import Kube, KubeError, until
from tests.cluster.machine import HERE
from tests.harness.dev import free_port

__all__ = ["ApiServer"]

TOKEN = "test-admin"


class ApiServer:
    """A context manager; kube speaks to it as an administrator, kubeconfig is the file that does."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs = programs
        self.folder = folder
        self.port = free_port()
        self.kubeconfig = folder / "kubeconfig"
        self.kube = Kube(self.kubeconfig, str(programs / "kubectl"), os.environ)
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> ApiServer:
        started = time.monotonic()
        self._keys()
        self._kubeconfig()
        etcd = free_port()
        try:
            self._start_etcd(etcd)
            self._start_api(etcd)
            until(self._ready, "API server ready", 120, self._logs)
        except BaseException:
            self.__exit__()
            raise
        self.started_s = time.monotonic() - started
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._processes.clear()

    def _keys(self) -> None:
        (version,) = re.findall(r"^KUBERNETES=(.*)$", (HERE / "versions.env").read_text(), re.MULTILINE)
        command = [self.programs / "kubeadm", "init", "phase", "certs", "sa", f"--cert-dir={self.folder}"]
        command.append(f"--kubernetes-version=v{version}")  # else it asks the network for the newest
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def _kubeconfig(self) -> None:
        (self.folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self.folder / "apiserver.crt"),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(json.dumps(config))

    def _start(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.log").open("wb") as log:
            command = ["setpriv", "--pdeathsig", "KILL", str(self.programs / program), *arguments]
            self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _start_etcd(self, port: int) -> None:
        peer = free_port()
        self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls=http://127.0.0.1:{port}",
            f"--advertise-client-urls=http://127.0.0.1:{port}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )

    def _start_api(self, etcd: int) -> None:
        files = self.folder
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={files}",  # where it puts a certificate of its own making
            f"--token-auth-file={files / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={files / 'sa.pub'}",
            f"--service-account-signing-key-file={files / 'sa.key'}",
            "--disable-admission-plugins=ServiceAccount",  # nobody here makes the accounts that it asks for
            "--endpoint-reconciler-type=none",
            "--allow-privileged",
        )

    def _ready(self) -> bool:
        for process in self._processes:
            assert process.poll() is None, self._logs()
        try:
            self.kube.kubectl("get", "namespace", "default")
        except KubeError:
            return False
        return self.kube.kubectl("get", "--raw", "/readyz") == "ok"

    def _logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))
