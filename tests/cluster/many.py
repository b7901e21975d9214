"""Many small ActorNamespaces that no node takes, in one Kubernetes namespace: what they cost while nothing changes."""

from __future__ import annotations

import time
from typing import Any, Final

from tests.cluster.bank import POD, Bank
from tests.cluster.kube import Space

__all__ = ["Many"]

COUNT: Final = 50
NOWHERE: Final = {"nodeSelector": {"kubeactor.io/no-node": "has-this"}}
TINY: Final[dict[str, Any]] = {
    "shards": 4,
    "hosts": {"replicas": 1, "storage": {"size": "64Mi"}, **POD, **NOWHERE},
    "ingress": {"replicas": 1, **POD, **NOWHERE},
}
KINDS: Final = (
    "actornamespaces,actorplacements,statefulsets,deployments,services,secrets,configmaps,serviceaccounts,roles,"
    "rolebindings,poddisruptionbudgets,networkpolicies,persistentvolumeclaims,leases,pods,events"
)


class Many:
    """They, and what they were when the operator had done all that it can.

    Attributes:
        objects: kind/name -> the version of each object that belongs to them, Events of the operator included. Of a
            pod its uid, since the scheduler writes its status.
        since: when that was, in seconds since 1970.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.banks = [Bank(space, f"bank-{n}", TINY) for n in range(COUNT)]
        space.apply(self.banks[0].code, *(bank.manifest for bank in self.banks))
        space.until(self._all_told, f"{COUNT} namespaces tell that no node takes them", 300)
        self.objects: dict[str, str] = {}
        space.until(self._settled, "nothing changes any more", 120)
        self.since = time.time()

    def _all_told(self) -> bool:
        found = self.space.get("actorns")["items"]
        reasons = [
            one["reason"]
            for each in found
            for one in each.get("status", {}).get("conditions", [])
            if one["type"] == "Degraded"
        ]
        return reasons == ["HostUnschedulable"] * COUNT

    def _settled(self) -> bool:
        before, self.objects = self.objects, self.versions()
        return before == self.objects

    def versions(self) -> dict[str, str]:
        """As `objects` has them, now."""
        found = {}
        for one in self.space.get(KINDS)["items"]:
            meta, kind = one["metadata"], one["kind"]
            if kind != "Event" or one.get("source", {}).get("component") == "kubeactor-operator":
                found[f"{kind}/{meta['name']}"] = meta["uid" if kind == "Pod" else "resourceVersion"]
        return found
