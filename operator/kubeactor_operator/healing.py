"""When a pod is deleted to heal it, and when it is not.

The supervisor in the pod judges its worker and restarts it in a fraction of a second. The operator only shortens
kubelet's back-off, and replaces a pod whose supervisor hangs, for which it needs a second opinion: its own failure to
reach a pod proves nothing. Every bound here is there since healing that runs wild is worse than a host that is down.
"""

from __future__ import annotations

from typing import Final

import msgspec

from kubeactor_operator import conditions, names
from kubeactor_operator.actions import Apply, Create, Delete, Patch, Tell
from kubeactor_operator.draft import Draft
from kubeactor_operator.live import HostPod, annotation, condition, when
from kubeactor_operator.observed import Disk, Inventory, Object, Probe, Silent
from kubeactor_operator.rollout import ended_text

__all__ = ["heal", "watch"]

WINDOW_S: Final = 600.0
DELAYS_S: Final = (2.0, 20.0, 60.0)
MISSES: Final = 3
SETTLING_S: Final = 120.0  # a container that is still starting does not hang; kubelet judges its start
DOWN_S: Final = 20.0
FIRST_START_S: Final = 120.0  # images are pulled, volumes are made
MIB: Final = 1024 * 1024


def watch(draft: Draft) -> None:
    """Tell what is wrong with hosts, whether or not anything is done about it."""
    patience_s = DOWN_S if draft.observed.status.get("shards") else FIRST_START_S
    for host, pod in draft.pods.items():
        found = draft.observed.inventories.get(host)
        if found and found.disk.full:
            told = condition({"status": draft.observed.status}, conditions.DEGRADED).get("message", "")
            draft.trouble(conditions.DISK_FULL, _full_text(host, found.disk, told))
        elif isinstance(found, Inventory) and found.protocol not in PROTOCOLS:
            draft.trouble(
                conditions.UNSUPPORTED_VERSION,
                f"{host} runs kubeactor {found.version} with protocol {found.protocol}; this operator speaks "
                f"{', '.join(map(str, PROTOCOLS))}. It goes on serving",
                stalled=True,
            )
        elif not pod.ready and not pod.deleting and draft.observed.now - pod.created_at > patience_s:
            _tell_down(draft, pod, found)
    for live in draft.observed.pods:
        scheduled = condition(live, "PodScheduled")
        ingress = (live["metadata"].get("labels") or {}).get("app.kubernetes.io/component") == names.INGRESS
        if ingress and scheduled.get("reason") == "Unschedulable":
            draft.trouble(conditions.HOST_UNSCHEDULABLE, f"an ingress: {scheduled.get('message', '')}")
            break


PROTOCOLS: Final = (1,)  # of the last three minor releases


def _full_text(host: str, disk: Disk, told: str) -> str:
    """Used and free in whole per cent of the volume; of the two next to the truth the one that was told before.

    The figures of a quiet disk still move a little, and each new text of the condition would be a write.
    """
    total = max(1, disk.used_bytes + disk.free_bytes)
    below = disk.used_bytes * 100 // total
    texts = [_share_text(host, total, percent) for percent in (below, min(below + 1, 100))]
    nearest = texts[disk.used_bytes * 200 // total % 2]
    return next((text for text in texts if text in told), nearest)


def _share_text(host: str, total: int, percent: int) -> str:
    used, free = total * percent // 100 // MIB, total * (100 - percent) // 100 // MIB
    return (
        f"the volume of {host} is {percent} % full, about {used} MiB used and {free} MiB free: raise "
        "hosts.storage.size or delete data"
    )


def _tell_down(draft: Draft, pod: HostPod, found: Inventory | Silent | None) -> None:
    scheduled = condition(pod.live, "PodScheduled")
    name, message = draft.observed.namespace.name, str(scheduled.get("message") or "")
    if scheduled.get("reason") == "Unschedulable" and "volume node affinity" in message:
        claim = names.claim(name, pod.host)
        draft.trouble(
            conditions.VOLUME_UNREACHABLE,
            f"no node reaches the volume of {pod.host} ({message}). If its node is gone for good: `kubectl delete pvc "
            f"{claim} --wait=false`, `kubectl delete pod {pod.name}`, `kubeactor forget {name} {pod.host} "
            "--accept-data-loss`",
        )
    elif scheduled.get("reason") == "Unschedulable":
        draft.trouble(conditions.HOST_UNSCHEDULABLE, f"{pod.name}: {message}")
    elif pod.forsaken:
        draft.trouble(conditions.HOST_DOWN, f"{pod.name}: its node does not answer. It comes back with its node")
    else:
        why = found.trouble if isinstance(found, Inventory) and found.trouble else ended_text(pod)
        draft.trouble(conditions.HOST_DOWN, f"{pod.name}: {why}")


def heal(draft: Draft) -> None:
    """Delete at most one pod."""
    bad = {host: reason for host, pod in draft.pods.items() if (reason := _judged(draft, pod))}
    if not bad:
        return
    if len(bad) > 1:
        reason = conditions.OPERATOR_CANNOT_REACH_HOSTS
        draft.trouble(reason, "no pod is deleted while several look bad: " + "; ".join(sorted(bad.values())))
        return
    (host, why), live = next(iter(bad.items())), draft.observed.stateful_set
    busy = any(isinstance(action, Apply | Create | Delete) and _is_ours(action) for action in draft.actions)
    if live is None or busy or any(pod.deleting for pod in draft.pods.values()):
        return
    pod, history = draft.pods[host], _history(live)
    recent = [at for at in history.get(host, []) if draft.observed.now - at < WINDOW_S]
    if len(recent) >= len(DELAYS_S):
        draft.trouble(conditions.HOST_CRASH_LOOPING, f"{why}. It is left to kubelet")
        draft.soon(30.0)
        return
    due = max([when(pod.ended.get("finishedAt")), *recent]) + DELAYS_S[len(recent)]
    draft.trouble(conditions.HOST_DOWN, why)
    if due > draft.observed.now:
        draft.soon(due - draft.observed.now)
        return
    draft.actions.append(Tell("HealingHost", f"{why}. The pod is deleted to start it anew"))
    text = msgspec.json.encode({**_current(history, draft.observed.now), host: [*recent, draft.observed.now]}).decode()
    draft.actions.append(Patch({"metadata": {"annotations": {names.HEALED: text}}}, live))
    draft.actions.append(Delete(pod.live))
    draft.soon(1.0)


def _is_ours(action: Apply | Create | Delete) -> bool:
    manifest = action.live if isinstance(action, Delete) else action.manifest
    return manifest.get("kind") in ("StatefulSet", "Pod")


def _judged(draft: Draft, pod: HostPod) -> str:
    """Why the pod is to be replaced; empty if not."""
    found = draft.observed.inventories.get(pod.host)
    if pod.deleting or (found and found.disk.full):
        return ""
    if pod.backing_off:
        return f"{pod.name} is in back-off: {ended_text(pod)}"
    probe = draft.observed.probes.get(pod.host, Probe())
    # Kubelet asks the supervisor too. One that it finds well is cut off, or its node is: a new pod would not help.
    hangs = isinstance(found, Silent) and not found.answers and probe.misses >= MISSES and pod.failing
    if hangs and pod.address and draft.observed.now - pod.started_at > SETTLING_S:
        return f"the supervisor of {pod.name} answers neither the operator nor an ingress ({probe.reason})"
    return ""


def _history(live: Object) -> dict[str, list[float]]:
    text = annotation(live, names.HEALED)
    try:
        return msgspec.json.decode(text, type=dict[str, list[float]]) if text else {}
    except msgspec.MsgspecError:
        return {}


def _current(history: dict[str, list[float]], now: float) -> dict[str, list[float]]:
    kept = {host: [at for at in times if now - at < WINDOW_S] for host, times in history.items()}
    return {host: times for host, times in kept.items() if times}
