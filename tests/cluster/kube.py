"""kubectl for tests: calls, manifests, waiting for conditions, and what to show when they do not come."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

__all__ = ["Kube", "KubeError", "Space", "until"]

T = TypeVar("T")
POLL_S = 0.25


class KubeError(Exception):
    """A kubectl that failed; its text is what kubectl said."""


def until(
    look: Callable[[], T | None], what: str, timeout_s: float = 180, report: Callable[[], str] | None = None
) -> T:
    """Call look until it gives something true, and return that. An error of kubectl is an answer like None.

    Raises AssertionError with what was waited for, the last answer and the report after timeout_s.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            answer: Any = look()
        except KubeError as error:
            answer = None
            last: Any = error
        else:
            last = answer
        if answer:
            return answer  # type: ignore[no-any-return]
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}; last: {last}\n{report() if report else ''}")
        time.sleep(POLL_S)


class Kube:
    """A cluster by its kubeconfig."""

    def __init__(self, kubeconfig: Path, kubectl: str, environment: Mapping[str, str]) -> None:
        self.kubeconfig = kubeconfig
        self.environment = {**environment, "KUBECONFIG": str(kubeconfig)}
        self._kubectl = kubectl

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """Run kubectl and return what it printed. Raises KubeError with what it said if it failed."""
        done = subprocess.run(
            [self._kubectl, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise KubeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A kubectl whose output is read while it runs."""
        command = [self._kubectl, *arguments]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=self.environment
        )

    def get(self, *what: str) -> Any:
        """An object or a list of objects as JSON: get("pods", "-n", "x")."""
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    def apply(self, *manifests: str | Mapping[str, Any] | Path, namespace: str | None = None) -> str:
        """Apply manifests, each YAML text, a file or an object, by the server with field validation."""
        parts = [part.read_text() if isinstance(part, Path) else part for part in manifests]
        text = "\n---\n".join(part if isinstance(part, str) else yaml.safe_dump(dict(part)) for part in parts)
        where = ["-n", namespace] if namespace else []
        return self.kubectl("apply", "--server-side", "--validate=strict", *where, "-f", "-", stdin=text)


class Space:
    """A Kubernetes namespace of one test."""

    def __init__(self, kube: Kube, name: str) -> None:
        self.kube = kube
        self.name = name

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        return self.kube.kubectl("-n", self.name, *arguments, stdin=stdin, timeout_s=timeout_s)

    def get(self, *what: str) -> Any:
        return self.kube.get("-n", self.name, *what)

    def apply(self, *manifests: str | Mapping[str, Any] | Path) -> str:
        return self.kube.apply(*manifests, namespace=self.name)

    def until(self, look: Callable[[], T | None], what: str, timeout_s: float = 180) -> T:
        return until(look, what, timeout_s, self.report)

    def until_ready(self, pod: str, but_uid: str = "", timeout_s: float = 180) -> dict[str, Any]:
        """The pod once it is Ready, and, if given, is not the one of that uid any more."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.get("pod", pod)
            conditions = found.get("status", {}).get("conditions", [])
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
            old = "deletionTimestamp" in found["metadata"] or found["metadata"]["uid"] == but_uid
            return found if ready and not old else None

        return self.until(look, f"pod {pod} Ready", timeout_s)

    def report(self) -> str:
        """What a person would look at: objects, events, descriptions and logs of the pods."""
        asked = [
            ["get", "all,pvc,configmaps,actornamespaces,actorplacements", "-o", "wide"],
            ["get", "all,pvc,configmaps", "-o", "wide"],
            ["get", "events", "--sort-by=.lastTimestamp"],
            ["describe", "actornamespaces"],
            ["describe", "pods"],
        ]
        parts = [self._try(*arguments) for arguments in asked]
        for pod in self._try("get", "pods", "-o", "name").split():
            if pod.startswith("pod/"):
                parts.append(self._try("logs", pod, "--all-containers", "--prefix", "--tail=60"))
                parts.append(self._try("logs", pod, "--all-containers", "--prefix", "--tail=30", "--previous"))
        return "\n".join(parts)

    def _try(self, *arguments: str) -> str:
        try:
            return self.kubectl(*arguments, timeout_s=20)
        except (KubeError, subprocess.TimeoutExpired) as error:
            return str(error)
