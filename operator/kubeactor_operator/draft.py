"""What one pass of the plan collects while its parts look at the same observation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from kubeactor_operator import conditions, names
from kubeactor_operator.actions import Action, Apply, Create, Delete, Mark
from kubeactor_operator.children.manifest import Manifest, digest
from kubeactor_operator.live import HostPod, as_applied, host_pods
from kubeactor_operator.observed import Object, Observed

__all__ = ["Draft", "Trouble"]

CONTENT_REFUSED: Final = (400, 422)


class Trouble(msgspec.Struct, frozen=True):
    """Something that `Degraded` tells. `stalled`: the operator can't go on before the user changed something."""

    reason: str
    message: str
    stalled: bool = False


@dataclass
class Draft:
    """Collects actions, troubles and what is under way.

    Attributes:
        progress: (reason, sentence) of each thing under way.
        again_s: when to look again at the latest.
    """

    observed: Observed
    actions: list[Action] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    progress: list[tuple[str, str]] = field(default_factory=list)
    again_s: float = 20.0

    def __post_init__(self) -> None:
        self.pods: dict[str, HostPod] = host_pods(self.observed)

    def soon(self, seconds: float) -> None:
        """Look again in that time, or earlier if someone else asks for it."""
        self.again_s = min(self.again_s, max(0.05, seconds))

    def under_way(self, reason: str, message: str, again_s: float = 2.0) -> None:
        """Something differs from the spec and is being worked on."""
        self.progress.append((reason, message))
        self.soon(again_s)

    def trouble(self, reason: str, message: str, *, stalled: bool = False) -> None:
        """Something is wrong."""
        self.troubles.append(Trouble(reason, message, stalled))

    def ensure(self, manifest: Manifest | None) -> Object | None:
        """Create the child or bring it back to the manifest; the live one, if it is there and ours."""
        if manifest is None:
            return None
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        live = self.observed.child(kind, name)
        if live is not None and not self.observed.owned(live):
            self.trouble(
                conditions.NAME_CONFLICT,
                f"{kind} {name} exists and does not belong to this namespace: delete or rename it",
                stalled=True,
            )
            return None
        if live is None or not as_applied(live, manifest):
            if self._refused(kind, name, manifest):
                return live
            self.actions.append(Create(manifest) if live is None else Apply(manifest, live))
        return live

    def _refused(self, kind: str, name: str, manifest: Manifest) -> bool:
        """Tell of a refusal; True when nothing has changed since, so that it is not asked again at once."""
        refusal = self.observed.refusals.get(f"{kind}/{name}")
        if refusal is None:
            return False
        status, message, asked = refusal
        content = status in CONTENT_REFUSED
        reason = conditions.INVALID_POD_SETTINGS if content else conditions.REFUSED_BY_CLUSTER
        self.trouble(reason, f"{kind} {name} is refused: {message}", stalled=content)
        return content and asked == digest(manifest)

    def mark(self) -> None:
        """Remember at the ActorNamespace itself that its shards were placed, which outlives all that may be lost."""
        observed, mark = self.observed, Mark({names.PLACED: self.observed.namespace.uid})
        if observed.marked or mark in self.actions:
            return
        self.actions.append(mark)
        refusal = observed.refusals.get(f"{names.KIND}/{observed.namespace.name}")
        if refusal:
            text = f"no shard is granted before it is noted at {names.KIND} {observed.namespace.name}, which is refused"
            self.trouble(conditions.REFUSED_BY_CLUSTER, f"{text}: {refusal[1]}")
        self.soon(5.0 if refusal else 0.1)

    def drop(self, kind: str, name: str) -> None:
        """Delete a child that is not wanted any more; never one of someone else."""
        live = self.observed.child(kind, name)
        if live is not None and self.observed.owned(live) and not live["metadata"].get("deletionTimestamp"):
            self.actions.append(Delete(live))

    def keep(self, manifest: Manifest | None, kind: str, name: str) -> None:
        """The child as wanted, or none."""
        if manifest is None:
            self.drop(kind, name)
        else:
            self.ensure(manifest)

    @property
    def credential(self) -> str:
        """With which pods are asked; empty before there is one."""
        from kubeactor_operator.children.sources import peer_credentials

        secret = self.observed.child("Secret", names.peer_secret(self.observed.namespace.name))
        return peer_credentials(secret)[0] if secret else ""
