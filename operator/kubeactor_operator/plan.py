"""The one pure function of the operator: from what is wanted and what is there to what is to be done.

Level-triggered and idempotent: it never asks what happened, only what is, so an action that was lost, done twice or
done by someone else changes nothing. It does no I/O and has no clock of its own (`observed.now`).
"""

from __future__ import annotations

from kubeactor_operator import conditions, foundation, healing, placement_plan, rollout, status, storage
from kubeactor_operator.actions import Plan
from kubeactor_operator.draft import Draft
from kubeactor_operator.observed import Observed
from kubeactor_operator.placed import Placed, read

__all__ = ["plan"]


def plan(observed: Observed) -> Plan:
    """What to do now, in order, and the whole status to be written."""
    draft = Draft(observed)
    namespace = observed.namespace
    placed = read(draft)
    healing.watch(draft)
    if not namespace.paused and not namespace.metadata.deletion_timestamp and placed.readable:
        _reconcile(draft, placed)
    found, told = status.compose(draft, placed, paused=namespace.paused)
    return Plan((*draft.actions, *told), found, draft.again_s)


def _reconcile(draft: Draft, placed: Placed) -> None:
    foundation.credentials(draft)
    bundle = foundation.bundle(draft)
    count = rollout.replicas(draft, placed)
    foundation.rights(draft)
    foundation.services(draft, count)
    if storage.foreign(draft, placed):
        return
    conflict = any(trouble.reason == conditions.NAME_CONFLICT for trouble in draft.troubles)
    if conflict and draft.observed.stateful_set is None:
        return  # half a namespace would only hide what is wrong
    done = rollout.roll(draft, bundle, count)
    rollout.roll_ingresses(draft, bundle, done)
    foundation.forget_old_code(draft, rollout.code_in_use(draft) | ({bundle.code} if bundle and bundle.code else set()))
    storage.keep(draft, placed, count)
    placement_plan.place(draft, placed)
    healing.heal(draft)
