"""Reading objects of the API: pods, conditions, times, quantities; and whether an object is as it was applied."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from kubeactor_operator import names
from kubeactor_operator.children.pods import template_hash
from kubeactor_operator.observed import Object, Observed

__all__ = ["HostPod", "annotation", "as_applied", "condition", "host_pods", "quantity", "timestamp", "when"]

_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_SUFFIX: Final = {"": Decimal(1), "m": Decimal("0.001")}
_SUFFIX.update({letter: Decimal(1000) ** (n + 1) for n, letter in enumerate("kMGTPE")})
_SUFFIX.update({f"{letter}i": Decimal(1024) ** (n + 1) for n, letter in enumerate("KMGTPE")})


def when(text: str | None) -> float:
    """Seconds since 1970 of a timestamp of the API; 0 without one."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def timestamp(seconds: float) -> str:
    """As the API writes it."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def quantity(text: object) -> Decimal | None:
    """The number of a Kubernetes quantity (`1Gi`, `100m`); None when it is none."""
    match = _QUANTITY.fullmatch(str(text))
    if not match:
        return None
    try:
        return Decimal(match[1]) * _SUFFIX[match[2] or ""]
    except ArithmeticError:
        return None


def annotation(live: Object | None, name: str) -> str:
    """Its text; empty without it."""
    found: str = ((live or {}).get("metadata", {}).get("annotations") or {}).get(name, "")
    return found


def condition(live: Object, type: str) -> Object:
    """The condition of that type in its status; empty without it."""
    for one in live.get("status", {}).get("conditions") or ():
        if one.get("type") == type:
            return dict(one)
    return {}


def as_applied(live: Object, manifest: Object) -> bool:
    """Whether nothing has to be written: the same manifest was applied, and nobody changed it since.

    The hash tells of fields that the manifest no longer has, the comparison of those that somebody changed.
    """
    return annotation(live, names.APPLIED) == annotation(manifest, names.APPLIED) and _covers(live, manifest)


def _covers(live: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(_covers(live.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(_covers(one, other) for one, other in zip(live, wanted, strict=True))
        )
    if live == wanted or (not wanted and live is None):  # the API server leaves out what is empty
        return True
    number = quantity(wanted)  # it writes 1000m as 1
    return number is not None and number == quantity(live)


@dataclass(frozen=True)
class HostPod:
    """A host's pod, as far as the plan asks."""

    host: str
    live: Object

    @property
    def name(self) -> str:
        """Of the pod."""
        return str(self.live["metadata"]["name"])

    @property
    def ordinal(self) -> int:
        """2 of host-2."""
        return int(self.host.rpartition("-")[2])

    @property
    def address(self) -> str:
        """Its IP; empty before it has one."""
        return str(self.live.get("status", {}).get("podIP") or "")

    @property
    def running(self) -> bool:
        """Whether it has not ended for good, as an evicted one has."""
        return self.live.get("status", {}).get("phase") not in ("Succeeded", "Failed")

    @property
    def template(self) -> str:
        """The hash of the template that it was made from."""
        return template_hash(self.live)

    @property
    def deleting(self) -> bool:
        """Whether it was deleted and is still ending."""
        return bool(self.live["metadata"].get("deletionTimestamp"))

    @property
    def ready(self) -> bool:
        """Whether it serves, by its own word."""
        return not self.deleting and condition(self.live, "Ready").get("status") == "True"

    @property
    def failing(self) -> bool:
        """Whether its kubelet found that the container does not answer. A node without power finds nothing."""
        return condition(self.live, "ContainersReady").get("status") == "False"

    @property
    def forsaken(self) -> bool:
        """Whether its node does not answer: the control plane calls it unready, and its kubelet never did."""
        return not self.ready and condition(self.live, "ContainersReady").get("status") == "True"

    @property
    def created_at(self) -> float:
        """When the API server took it."""
        return when(self.live["metadata"].get("creationTimestamp"))

    @property
    def started_at(self) -> float:
        """When its container that runs now was started; of a pod that does not say, when it was made."""
        for state in self._states("state"):
            if running := state.get("running"):
                return when(running.get("startedAt"))
        return self.created_at

    @property
    def backing_off(self) -> bool:
        """Whether its container waits in kubelet's back-off after it ended."""
        return any(state.get("waiting", {}).get("reason") == "CrashLoopBackOff" for state in self._states("state"))

    @property
    def waiting(self) -> tuple[str, str]:
        """(reason, message) of a container that can't start yet."""
        for state in self._states("state"):
            if found := state.get("waiting"):
                return str(found.get("reason", "")), str(found.get("message", ""))
        return "", ""

    @property
    def ended(self) -> Object:
        """How its container last ended: exitCode, reason, message, finishedAt; empty if it never did."""
        for key in ("state", "lastState"):
            for state in self._states(key):
                if found := state.get("terminated"):
                    return dict(found)
        return {}

    def _states(self, key: str) -> Iterator[Object]:
        for status in self.live.get("status", {}).get("containerStatuses") or ():
            yield status.get(key) or {}


def host_pods(observed: Observed) -> dict[str, HostPod]:
    """Host id -> its pod."""
    found = {}
    for pod in observed.pods:
        host = names.host_id(observed.namespace.name, pod["metadata"]["name"])
        labels = pod["metadata"].get("labels") or {}
        if host and labels.get("app.kubernetes.io/component") == names.HOST:
            found[host] = HostPod(host, pod)
    return dict(sorted(found.items(), key=lambda pair: pair[1].ordinal))
