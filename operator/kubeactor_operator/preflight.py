"""A template is tried by a pod without a volume before any host gets it."""

from __future__ import annotations

from typing import Final

from kubeactor_operator import conditions, names
from kubeactor_operator.actions import Delete
from kubeactor_operator.children.pods import Bundle
from kubeactor_operator.children.preflight import preflight_pod
from kubeactor_operator.draft import Draft
from kubeactor_operator.live import HostPod, condition

__all__ = ["clear", "passed", "pull_trouble"]

PULL: Final = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
DETAIL_CHARACTERS: Final = 600
AGAIN_S: Final = 15.0


def passed(draft: Draft, bundle: Bundle, digest: str) -> bool:
    """Whether the template passed. While it has not, the condition says why; the pod itself is the record of it."""
    observed = draft.observed
    name = names.preflight(observed.namespace.name, digest)
    live = observed.child("Pod", name)
    if live is None or not observed.owned(live):
        draft.ensure(preflight_pod(observed.namespace, bundle, digest))
        draft.under_way(conditions.TRYING_TEMPLATE, f"pod {name} tries the image and the code")
        return False
    pod, status = HostPod("preflight-0", live), live.get("status", {})
    phase = status.get("phase")
    if phase == "Succeeded":
        return True
    if phase == "Failed":
        _failed(draft, pod)
        return False
    reason, message = pod.waiting
    scheduled = condition(live, "PodScheduled")
    if reason in PULL:
        draft.trouble(conditions.IMAGE_PULL_FAILED, pull_trouble(bundle.image, message), stalled=True)
        draft.soon(5.0)
    elif reason == "CreateContainerConfigError":
        draft.trouble(conditions.PREFLIGHT_FAILED, f"pod {name} can't start: {message}", stalled=True)
        draft.soon(5.0)
    elif scheduled.get("reason") == "Unschedulable":
        draft.trouble(conditions.HOST_UNSCHEDULABLE, f"pod {name}: {scheduled.get('message', '')}")
        draft.under_way(conditions.TRYING_TEMPLATE, f"pod {name} waits for a node", again_s=10.0)
    else:
        draft.under_way(conditions.TRYING_TEMPLATE, f"pod {name} tries the image and the code", again_s=1.0)
    return False


def _failed(draft: Draft, pod: HostPod) -> None:
    ended, why = pod.ended, str(pod.live["status"].get("reason") or "")
    if (why and why != "DeadlineExceeded") or not (ended or why):
        # Evicted, or its node went away: that says nothing about the template. A node may refuse each at once.
        wait_s = pod.created_at + AGAIN_S - draft.observed.now
        if wait_s <= 0:
            draft.actions.append(Delete(pod.live))
        text = f"pod {pod.name} is tried again: {why or 'it was not run'}"
        draft.under_way(conditions.TRYING_TEMPLATE, text, again_s=max(wait_s, 1.0))
        return
    text = str(ended.get("message") or "").strip()[-DETAIL_CHARACTERS:]
    if why == "DeadlineExceeded":
        text = str(pod.live["status"].get("message") or "it took too long")
    fallback = f"`kubeactor check` ended with {ended.get('exitCode')} ({ended.get('reason', 'no reason')})"
    draft.trouble(conditions.PREFLIGHT_FAILED, text or fallback, stalled=True)


def pull_trouble(image: str, message: str) -> str:
    """One sentence; kubelet's own alternates between the error and its back-off."""
    detail = message.rpartition("ErrImagePull: ")[2][:DETAIL_CHARACTERS]
    return f"the image {image} can't be pulled: {detail or 'no more is known'}"


def clear(draft: Draft, trying: str | None) -> None:
    """Delete preflight pods that nothing waits for.

    Args:
        trying: the hash of the template whose result still counts.
    """
    prefix = names.preflight(draft.observed.namespace.name, "")
    for (kind, name), live in sorted(draft.observed.children.items()):
        gone = live["metadata"].get("deletionTimestamp")
        mine = kind == "Pod" and name.startswith(prefix) and draft.observed.owned(live) and not gone
        if mine and name != f"{prefix}{trying}":
            draft.actions.append(Delete(live))
