"""The status: conditions from what the plan found, and the figures that `kubectl get` shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kubeactor_operator import conditions, names
from kubeactor_operator.actions import Tell
from kubeactor_operator.children import ingresses
from kubeactor_operator.draft import Draft
from kubeactor_operator.live import condition, timestamp
from kubeactor_operator.observed import Inventory, Object, Probe
from kubeactor_operator.placed import Placed, shard_text

__all__ = ["PASSED_WITHIN_S", "compose"]

PASSED_WITHIN_S: Final = 60.0
MISSES: Final = 3
MESSAGE_CHARACTERS: Final = 1024

# Of several troubles the first of these is the reason; the message has all.
_FIRST: Final = (
    conditions.INVALID_SPEC,
    conditions.NAME_CONFLICT,
    conditions.PLACEMENT_TOO_NEW,
    conditions.VOLUMES_OF_ANOTHER_NAMESPACE,
    conditions.VOLUME_LOST,
    conditions.VOLUME_UNREACHABLE,
    conditions.PLACEMENT_INCOMPLETE,
    conditions.DISK_FULL,
    conditions.OPERATOR_CANNOT_REACH_HOSTS,
    conditions.HOST_CRASH_LOOPING,
    conditions.ROLLOUT_STOPPED,
    conditions.CODE_MISSING,
    conditions.IMAGE_PULL_FAILED,
    conditions.PREFLIGHT_FAILED,
    conditions.INVALID_POD_SETTINGS,
)
# What is told of a host beside a reason that explains it.
_WEAK: Final = (conditions.HOST_DOWN,)


def compose(draft: Draft, placed: Placed, *, paused: bool = False) -> tuple[Object, list[Tell]]:
    """The whole status and an Event for each condition that changed."""
    observed = draft.observed
    found = [
        _ready(draft, placed),
        _progressing(draft),
        _degraded(draft),
        _entry(conditions.PAUSED, paused, conditions.PAUSED_BY_ANNOTATION, conditions.NOT_PAUSED),
    ]
    progressing, stalled = found[1]["status"] == "True", any(trouble.stalled for trouble in draft.troubles)
    found.append({**found[1], "type": conditions.RECONCILING, "status": str(progressing)})
    degraded = found[2] if stalled else {"reason": conditions.AS_EXPECTED, "message": ""}
    found.append({**degraded, "type": conditions.STALLED, "status": str(stalled)})
    generation = observed.namespace.metadata.generation
    told = _told(draft, found[:4])
    status: Object = {
        "conditions": [_dated(draft, one) | {"observedGeneration": generation} for one in found],
        "observedGeneration": generation,
        **_figures(draft, placed),
    }
    return status, told


def _entry(type: str, true: bool, reason: str, otherwise: str, message: str = "") -> Object:
    return {
        "type": type,
        "status": str(true),
        "reason": reason if true else otherwise,
        "message": message[:MESSAGE_CHARACTERS],
    }


def _dated(draft: Draft, entry: Object) -> Object:
    before = condition({"status": draft.observed.status}, entry["type"])
    same = before.get("status") == entry["status"] and before.get("lastTransitionTime")
    return {**entry, "lastTransitionTime": same or timestamp(draft.observed.now)}


def _told(draft: Draft, entries: Iterable[Object]) -> list[Tell]:
    told = []
    for entry in entries:
        before = condition({"status": draft.observed.status}, entry["type"])
        if (before.get("status"), before.get("reason")) == (entry["status"], entry["reason"]):
            continue
        worse = entry["status"] == ("True" if entry["type"] == conditions.DEGRADED else "False")
        warning = worse and entry["type"] in (conditions.DEGRADED, conditions.READY) and bool(before)
        quiet = not before and entry["status"] == "False"
        if not quiet:
            told.append(Tell(entry["reason"], entry["message"] or conditions.REASONS[entry["reason"]].meaning, warning))
    return told


def _degraded(draft: Draft) -> Object:
    troubles = draft.troubles
    if any(trouble.reason not in _WEAK for trouble in troubles):
        troubles = [trouble for trouble in troubles if trouble.reason not in _WEAK]
    if not troubles:
        return _entry(conditions.DEGRADED, False, "", conditions.AS_EXPECTED)
    order = {reason: n for n, reason in enumerate(_FIRST)}
    troubles = sorted(troubles, key=lambda trouble: (order.get(trouble.reason, len(order)), trouble.message))
    message = "; ".join(dict.fromkeys(trouble.message for trouble in troubles))
    return _entry(conditions.DEGRADED, True, troubles[0].reason, "", message)


def _progressing(draft: Draft) -> Object:
    waits = [one for one in draft.progress if one[0] == conditions.WAITING_FOR_MOVES]
    if draft.progress:
        reason, message = (waits or draft.progress)[0]
        return _entry(conditions.PROGRESSING, True, reason, "", message)
    if any(trouble.stalled for trouble in draft.troubles):
        return _entry(conditions.PROGRESSING, False, "", conditions.STOPPED)
    return _entry(conditions.PROGRESSING, False, "", conditions.UP_TO_DATE)


def _ready(draft: Draft, placed: Placed) -> Object:
    """`Ready` is earned: by probes that went the way of calls."""
    observed = draft.observed
    before = condition({"status": observed.status}, conditions.READY)
    kept = {key: before.get(key, "") for key in ("type", "status", "reason", "message")}
    if not placed.readable and before:
        return kept  # a newer operator's table: hosts and ingresses may well understand it
    if observed.namespace.spec.hosts.replicas == 0:
        return _not_ready(conditions.HIBERNATED, "hosts.replicas is 0")
    if placed.table is None or not placed.owners:
        return _not_ready(conditions.STARTING, "no shard has an owner yet")
    if placed.ownerless:
        return _not_ready(conditions.SHARDS_WITHOUT_OWNER, f"shards {shard_text(placed.ownerless)} have no owner")
    if any(not placed.table.epoch(shard) for shard in range(placed.table.shards)):
        return _not_ready(conditions.STARTING, "not every shard is granted yet")
    if not observed.ingress_reached:
        draft.soon(10.0)
        message = "the operator reaches no ingress"
        return {
            "type": conditions.READY,
            "status": "Unknown",
            "reason": conditions.INGRESS_UNREACHABLE,
            "message": message,
        }
    probes = {host: observed.probes.get(host, Probe()) for host in placed.owners}
    missed = {host: probe for host, probe in probes.items() if probe.misses >= MISSES}
    if missed:
        text = "; ".join(f"{host}: {probe.reason}" for host, probe in sorted(missed.items()))
        return _not_ready(conditions.HOSTS_NOT_SERVING, text)
    if all(probe.passed_at and observed.now - probe.passed_at <= PASSED_WITHIN_S for probe in probes.values()):
        if any(probe.misses for probe in probes.values()):
            draft.soon(10.0)
        if before.get("status") != "True" and not _routed(draft):
            draft.soon(1.0)
            return _not_ready(conditions.STARTING, "no ingress is available to the Service yet")
        return _entry(conditions.READY, True, conditions.SERVING, "")
    draft.soon(2.0)
    if before.get("reason") in (conditions.SERVING, conditions.HOSTS_NOT_SERVING):
        return kept
    return _not_ready(conditions.STARTING, "waiting for the first probe of every host to pass")


def _routed(draft: Draft) -> bool:
    """Whether the Service leads to an ingress: probes go to a pod's address, which says nothing about that."""
    deployment = draft.observed.child("Deployment", names.ingress(draft.observed.namespace.name)) or {}
    return bool(deployment.get("status", {}).get("availableReplicas"))


def _not_ready(reason: str, message: str) -> Object:
    return _entry(conditions.READY, False, "", reason, message)


def _figures(draft: Draft, placed: Placed) -> Object:
    observed = draft.observed
    namespace = observed.namespace
    live = observed.stateful_set
    image = live["spec"]["template"]["spec"]["containers"][0]["image"] if live else observed.status.get("image", "")
    versions = {one.version for one in observed.inventories.values() if isinstance(one, Inventory)}
    placed_once = bool(observed.status.get("shards")) or (
        placed.table is not None and all(placed.table.epoch(s) for s in range(placed.table.shards))
    )
    code = [
        volume["configMap"]["name"].rpartition("-")[2]
        for volume in (live or {}).get("spec", {}).get("template", {}).get("spec", {}).get("volumes") or ()
        if volume.get("name") == "code"
    ]
    return {
        "image": image or "",
        "version": min(versions) if versions else observed.status.get("version", ""),
        "codeHash": code[0] if code else "",
        "hosts": sum(1 for pod in draft.pods.values() if not pod.deleting),
        "readyHosts": sum(1 for pod in draft.pods.values() if pod.ready),
        "shards": namespace.spec.shards if placed_once else 0,
        "movingShards": len(placed.table.moves) if placed.table else 0,
        "url": ingresses.url(namespace, observed.child("Service", names.service(namespace.name))),
        "selector": names.selector_text(namespace.name, names.HOST),
    }
