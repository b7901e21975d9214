"""Helm and kubectl as a user calls them, and the values with which the chart is tried."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = [
    "CHART",
    "EXTREMES",
    "NAME",
    "ROOT",
    "Helm",
    "Kubectl",
    "Manifest",
    "namespace",
    "pod_templates",
    "previous_chart",
]

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "charts" / "kubeactor"
COMMAND_S: Final = 100
NAME: Final = "kubeactor"
LONGEST: Final = "r" + "-0" * 26  # 53 characters are what Helm takes
WEIRD: Final = "a \"b\" 'c' {{ .Values }} # : - \n second line, \\ and ünïcødé \t yes"

Manifest = dict[str, Any]

# release name, values
EXTREMES: Final[dict[str, tuple[str, Manifest]]] = {
    "as it is": (NAME, {}),
    "everything off": (
        NAME,
        {
            "replicas": 0,
            "crds": {"create": False},
            "rbac": {"create": False, "aggregate": False},
            "serviceAccount": {"create": False},
            "resources": {"requests": None, "limits": None},
            "runAsUser": None,
            "topologySpreadConstraints": [],
            "podDisruptionBudget": {"create": False},
            "test": {"create": False},
        },
    ),
    "everything on": (
        "1.release-2",
        {
            "replicas": 10,
            "image": {
                "repository": "registry.example:5000/a/b_c",
                "digest": "sha256:" + "0" * 64,
                "pullPolicy": "Always",
            },
            "hostImage": {
                "repository": "registry.example:5000/host",
                "tag": "1.2.3-rc.1",
                "digest": "sha256:" + "f" * 64,
            },
            "imagePullSecrets": [{"name": "one"}, {"name": "two.three"}],
            "serviceAccount": {"annotations": {"example.com/role": WEIRD}},
            "extraArgs": ["--namespace-like=yes", WEIRD, "", "true", "1.0", "{{ .Release.Name }}"],
            "extraEnv": [
                {"name": "WEIRD", "value": WEIRD},
                {"name": "YES", "value": "yes"},
                {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
            ],
            "extraEnvFrom": [{"prefix": "A_", "configMapRef": {"name": "c", "optional": True}}],
            "resources": {
                "requests": {"cpu": 1, "memory": "1Gi"},
                "limits": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1G"},
            },
            "runAsUser": 2147483647,
            "nodeSelector": {"kubernetes.io/os": "linux", "example.com/yes": "true"},
            "affinity": {
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}
                    ]
                }
            },
            "tolerations": [
                {"operator": "Exists"},
                {"key": "a", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
            ],
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "topology.kubernetes.io/zone",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"mine": "yes"}},
                },
                {"maxSkew": 2, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"},
            ],
            "priorityClassName": "system-cluster-critical",
            "podLabels": {"example.com/yes": "yes", "app.kubernetes.io/name": "not-ours", "empty": ""},
            "podAnnotations": {"example.com/weird": WEIRD},
            "networkPolicy": {"create": True, "from": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]},
            "metrics": {
                "serviceAnnotations": {"prometheus.io/scrape": "true"},
                "serviceMonitor": {"create": True, "labels": {"release": "prometheus"}, "interval": "1m30s"},
            },
            "test": {"storageClassName": "fast.local", "timeoutSeconds": 3600},
        },
    ),
    "the longest name": (LONGEST, {"networkPolicy": {"create": True}}),
    "another name": (NAME, {"fullnameOverride": "o" * 63, "networkPolicy": {"create": True}}),
    "some namespaces": (NAME, {"watch": {"namespaces": ["team-a", "team-b"]}, "crds": {"create": False}}),
    "its own namespace": (NAME, {"watch": {"namespaces": ["kubeactor-system"]}, "rbac": {"aggregate": True}}),
    "an account of its own": (NAME, {"serviceAccount": {"create": False, "name": "robot"}}),
}


@dataclass(frozen=True)
class _Program:
    path: Path
    kubeconfig: Path | None = None

    def run(self, *arguments: str, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run it; what it says on stderr is in the failure."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HELM_", "KUBE"))}
        result = subprocess.run(
            [str(self.path), *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            env=environment | {"KUBECONFIG": str(self.kubeconfig or "/nonexistent")},
        )
        assert not check or result.returncode == 0, f"{' '.join(arguments)}\n{result.stdout}\n{result.stderr}"
        return result


@dataclass(frozen=True)
class Helm(_Program):
    """helm, without a user's own settings."""

    def template(
        self,
        name: str,
        values: Mapping[str, Any],
        *arguments: str,
        namespace: str = "kubeactor-system",
        chart: Path = CHART,
    ) -> list[Manifest]:
        """Every manifest that the chart makes with these values, hooks too."""
        result = self.run(
            "template", name, str(chart), "--namespace", namespace, "--values", "-", *arguments, text=json.dumps(values)
        )
        return [each for each in yaml.safe_load_all(result.stdout) if each]

    def refuses(self, values: Mapping[str, Any], *arguments: str) -> str:
        """What it says to values that it does not take."""
        result = self.run(
            "template", NAME, str(CHART), "--values", "-", *arguments, text=json.dumps(values), check=False
        )
        assert result.returncode != 0, result.stdout
        return result.stderr


@dataclass(frozen=True)
class Kubectl(_Program):
    """kubectl on one cluster."""

    def get(self, *arguments: str) -> Manifest:
        """The answer of `kubectl get`."""
        answer: Manifest = json.loads(self.run("get", *arguments, "--output", "json").stdout)
        return answer

    def names(self, *arguments: str) -> set[str]:
        """kind/name of what `kubectl get` finds."""
        return set(self.run("get", *arguments, "--ignore-not-found", "--output", "name").stdout.split())

    def apply(
        self, manifests: Sequence[Manifest], *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Server-side apply, with strict validation."""
        return self.run(
            "apply",
            "--server-side",
            "--validate=strict",
            "--filename=-",
            *arguments,
            text=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)}),
            check=check,
        )


def namespace(name: str) -> Manifest:
    """A namespace that takes pods of the `restricted` standard only."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod_templates(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Every pod in them, as {"metadata", "spec"}."""
    pods = [each for each in manifests if each["kind"] == "Pod"]
    return pods + [each["spec"]["template"] for each in manifests if each["kind"] == "Deployment"]


def previous_chart(folder: Path) -> Path:
    """The chart before its last change: the last commit's if the work tree has another one, else the one before."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    try:
        commits = git("rev-list", "--max-count=2", "HEAD", "--", "charts/kubeactor").split()
        changed = bool(git("status", "--porcelain", "--", "charts/kubeactor"))
    except (OSError, subprocess.CalledProcessError):  # no repository: an archive of the sources
        commits, changed = [], False
    before = commits if changed else commits[1:]
    if not before:
        return Path(shutil.copytree(CHART, folder / "kubeactor"))
    archive = subprocess.run(
        ["git", "archive", before[0], "charts/kubeactor"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)
    return folder / "charts" / "kubeactor"
