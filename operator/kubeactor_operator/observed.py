"""What is there, as plain data: all that the plan may look at. It is read by `observe.py` and never changed.

The clock is in it too, and so are the two things that a pure function can't make: a fresh credential and the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from kubeactor.placement import Document
from kubeactor_operator import names
from kubeactor_operator.spec import ActorNamespace

__all__ = ["Disk", "Inventory", "Known", "Object", "Observed", "Probe", "Silent"]

Object = dict[str, Any]


class Disk(msgspec.Struct, frozen=True):
    """A host's volume, in bytes; `full` when the host takes no turn that grows the data."""

    used_bytes: int = 0
    free_bytes: int = 0
    full: bool = False


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What a host or an ingress goes by.

    Attributes:
        credentials: hashes of those that it accepts; the first is what it presents.
        table: the placement table.
    """

    credentials: tuple[str, ...] = ()
    table: Document | None = None


class Inventory(Known, frozen=True, kw_only=True):
    """What a host says of its volume. `states`: (shard, epoch, "owned" | "frozen" | "given")."""

    namespace: str
    host: str
    volume: str
    shards: int
    version: str = ""
    protocol: int = 0
    format: int = 0
    states: tuple[tuple[int, int, str], ...] = ()
    parked: int = 0
    quarantined: int = 0
    disk: Disk = Disk()
    trouble: str | None = None


class Silent(NamedTuple):
    """A host or ingress that tells nothing.

    Attributes:
        reason: what it or the connection said.
        answers: whether its supervisor did answer.
        disk: a host's volume, when that is too full to be opened.
    """

    reason: str
    answers: bool
    disk: Disk = Disk()


@dataclass(frozen=True)
class Probe:
    """The built-in probe of one host, asked of an ingress.

    Attributes:
        passed_at: when it last passed; None if never.
        misses: in a row since, at least 10 s apart; missed_at: the last of them.
        reason: what the ingress said of the last miss.
    """

    passed_at: float | None = None
    misses: int = 0
    missed_at: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Observed:
    """One look at a namespace and everything that belongs to it. Times are seconds since 1970.

    Attributes:
        status: of the ActorNamespace as stored, to be compared with.
        children: (kind, name) -> object, of every name that a child has, whoever owns it; code copies and preflight
            pods too.
        pods: of hosts and ingresses; claims: of hosts.
        source: the ConfigMap with the user's code.
        inventories, probes: by host id.
        ingresses: what each ingress pod that runs goes by.
        ingress_reached: whether any ingress answered; None when none was asked.
        provisioner: of the storage class; None if not known.
        refusals: "Kind/name" -> (status, message, hash of the manifest) of what the API server refused last time.
        table_written_at: when this operator last wrote the table.
        credential: fresh random text, for a Secret that is to be made.
        stock_image: of this release.
    """

    now: float
    namespace: ActorNamespace
    status: Object = field(default_factory=dict)
    resource_version: str = ""
    children: Mapping[tuple[str, str], Object] = field(default_factory=dict)
    pods: tuple[Object, ...] = ()
    claims: tuple[Object, ...] = ()
    source: Object | None = None
    inventories: Mapping[str, Inventory | Silent] = field(default_factory=dict)
    probes: Mapping[str, Probe] = field(default_factory=dict)
    ingresses: Mapping[str, Known | Silent] = field(default_factory=dict)
    ingress_reached: bool | None = None
    provisioner: str | None = None
    refusals: Mapping[str, tuple[int, str, str]] = field(default_factory=dict)
    table_written_at: float = 0.0
    credential: str = ""
    stock_image: str = ""

    def child(self, kind: str, name: str) -> Object | None:
        """The object of that kind and name, whoever owns it."""
        return self.children.get((kind, name))

    def owned(self, thing: Object) -> bool:
        """Whether it is a child of this very namespace."""
        references = thing["metadata"].get("ownerReferences") or ()
        return any(reference.get("uid") == self.namespace.uid for reference in references)

    @property
    def marked(self) -> bool:
        """Whether it is noted that shards of this very namespace were granted, or are about to be."""
        return self.namespace.metadata.annotations.get(names.PLACED) == self.namespace.uid

    @property
    def stateful_set(self) -> Object | None:
        """That of the hosts, if it is ours."""
        found = self.child("StatefulSet", names.host(self.namespace.name))
        return found if found and self.owned(found) else None

    @property
    def claimed(self) -> dict[str, Object]:
        """Host id -> its claim."""
        name = self.namespace.name
        prefix = f"{names.CLAIM_TEMPLATE}-"
        found = {}
        for claim in self.claims:
            host = names.host_id(name, claim["metadata"]["name"].removeprefix(prefix))
            if host and not claim["metadata"].get("deletionTimestamp"):
                found[host] = claim
        return found
