"""The claims of the hosts: whose they are, how they grow, when one is deleted.

A StatefulSet's claim template is immutable. So the claims are patched themselves, and once they have grown the
StatefulSet is deleted with its pods orphaned (they keep running) and made anew around them.
"""

from __future__ import annotations

from decimal import Decimal

from kubeactor_operator import conditions, names
from kubeactor_operator.actions import Apply, Create, Delete, Patch
from kubeactor_operator.children import hosts
from kubeactor_operator.children.placement import claim_owners
from kubeactor_operator.draft import Draft
from kubeactor_operator.live import annotation, quantity, when
from kubeactor_operator.observed import Object
from kubeactor_operator.placed import Placed
from kubeactor_operator.rollout import settled

__all__ = ["foreign", "keep"]


def foreign(draft: Draft, placed: Placed) -> bool:
    """Whether there are volumes of an earlier namespace of this name that the user did not tell to adopt.

    They are known by being older than the ActorNamespace and not in its table.
    """
    observed = draft.observed
    since = when(observed.namespace.metadata.creation_timestamp)
    known = placed.table.volumes if placed.table else {}
    older = [
        host
        for host, claim in observed.claimed.items()
        if host not in known and when(claim["metadata"].get("creationTimestamp")) < since
    ]
    if not older or observed.namespace.spec.hosts.storage.adopt or observed.status.get("shards"):
        return False
    claims = ", ".join(sorted(names.claim(observed.namespace.name, host) for host in older))
    draft.trouble(
        conditions.VOLUMES_OF_ANOTHER_NAMESPACE,
        f"{claims} are of an earlier namespace of this name: set hosts.storage.adopt to true to serve their data, or "
        "delete them to start empty",
        stalled=True,
    )
    return True


def keep(draft: Draft, placed: Placed, count: int) -> None:
    """Owner references, growth, and the volumes of hosts that are gone for good."""
    _own(draft)
    _grow(draft)
    _drop(draft, placed, count)


def _own(draft: Draft) -> None:
    for claim in draft.observed.claimed.values():
        present = claim["metadata"].get("ownerReferences") or []
        wanted = claim_owners(draft.observed.namespace, present)
        if wanted != present:
            draft.actions.append(Patch({"metadata": {"ownerReferences": wanted}}, claim))


def _grow(draft: Draft) -> None:
    observed = draft.observed
    live = observed.stateful_set
    wanted = observed.namespace.spec.hosts.storage.size
    size = quantity(wanted)
    if live is None or size is None:
        return
    template = live["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    if (quantity(template) or 0) >= size:
        return
    asked = [_ask(draft, claim, wanted) for claim in observed.claimed.values()]
    if not all(asked):
        return
    waiting = [c["metadata"]["name"] for c in observed.claimed.values() if (_capacity(c) or 0) < size]
    if waiting:
        draft.under_way(conditions.GROWING_VOLUMES, f"{', '.join(waiting)} grow to {wanted}", again_s=5.0)
        return
    changing = any(isinstance(a, Apply) and a.manifest["kind"] == "StatefulSet" for a in draft.actions)
    if not changing and settled(live):  # else the way back would be lost with an operator that dies in between
        _replace(draft, live, wanted)


def _capacity(claim: Object) -> Decimal | None:
    return quantity(claim.get("status", {}).get("capacity", {}).get("storage", "0"))


def _ask(draft: Draft, claim: Object, wanted: str) -> bool:
    """Whether the claim asks for the size; it may only grow."""
    has = quantity(claim["spec"].get("resources", {}).get("requests", {}).get("storage", "0"))
    if (has or 0) >= (quantity(wanted) or 0):
        return True
    name = claim["metadata"]["name"]
    refusal = draft.observed.refusals.get(f"PersistentVolumeClaim/{name}")
    if refusal:
        text = f"the storage class can't expand {name}: {refusal[1]}"
        draft.trouble(conditions.EXPANSION_UNSUPPORTED, text, stalled=True)
    else:
        draft.under_way(conditions.GROWING_VOLUMES, f"{name} grows to {wanted}", again_s=20.0)
    draft.actions.append(Patch({"spec": {"resources": {"requests": {"storage": wanted}}}}, claim))
    return False


def _replace(draft: Draft, live: Object, size: str) -> None:
    spec = live["spec"]
    manifest = hosts.stateful_set(
        draft.observed.namespace,
        spec["template"],
        replicas=spec["replicas"],
        size=size,
        access_mode=spec["volumeClaimTemplates"][0]["spec"]["accessModes"][0],
        last_good=annotation(live, names.LAST_GOOD),
    )
    for key in (names.FAILED, names.HEALED, names.MADE_FROM):
        if text := annotation(live, key):
            manifest["metadata"]["annotations"][key] = text
    draft.actions += [Delete(live, orphan=True), Create(manifest)]
    draft.under_way(conditions.GROWING_VOLUMES, "the StatefulSet is replaced around its pods", again_s=1.0)


def _drop(draft: Draft, placed: Placed, count: int) -> None:
    """A volume goes only with a host that is scaled in, and with `reclaim: Delete`; every shard has another owner."""
    spec = draft.observed.namespace.spec.hosts
    if spec.storage.reclaim != "Delete" or not placed.whole or spec.replicas == 0:
        return
    for host, claim in draft.observed.claimed.items():
        gone = int(host.rpartition("-")[2]) >= max(count, spec.replicas) and host not in draft.pods
        if gone and host not in placed.owners:
            draft.actions.append(Delete(claim))
