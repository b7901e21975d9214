"""What the plan asks for. Each carries what it was decided on; `apply.py` does it, in order, and stops at a refusal."""

from __future__ import annotations

from dataclasses import dataclass, field

from kubeactor_operator.observed import Object

__all__ = ["Action", "Apply", "Create", "Delete", "Grant", "Mark", "Patch", "Plan", "Replace", "Tell"]


@dataclass(frozen=True)
class Create:
    """Make it; refused when it exists."""

    manifest: Object


@dataclass(frozen=True)
class Apply:
    """Bring the live object to the manifest, if it is still the one observed."""

    manifest: Object
    live: Object


@dataclass(frozen=True)
class Patch:
    """Merge a few fields into the live object, if it is still the one observed."""

    fields: Object
    live: Object


@dataclass(frozen=True)
class Replace:
    """Write it whole over the live object, if it is still the one observed: the placement table."""

    manifest: Object
    live: Object


@dataclass(frozen=True)
class Delete:
    """Delete it, if it is still the one observed. `orphan`: what it owns stays."""

    live: Object
    orphan: bool = False


@dataclass(frozen=True)
class Grant:
    """Let a host begin shards empty: (shard, epoch); refused when its volume is not the one observed."""

    host: str
    volume: str
    address: str
    credential: str
    grants: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Mark:
    """Annotate the ActorNamespace itself, if it is still the one observed; None takes an annotation away."""

    annotations: Object


@dataclass(frozen=True)
class Tell:
    """An Event: what happened and why."""

    reason: str
    message: str
    warning: bool = True


Action = Create | Apply | Patch | Replace | Delete | Grant | Mark | Tell


@dataclass(frozen=True)
class Plan:
    """Actions in order, the whole status to be, and in how many seconds to look again at the latest."""

    actions: tuple[Action, ...] = ()
    status: Object = field(default_factory=dict)
    again_s: float = 20.0
