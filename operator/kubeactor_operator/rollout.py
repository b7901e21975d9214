"""The StatefulSet of the hosts: which template, how many, and whose turn it is to restart.

    desired --preflight passed--> StatefulSet's template --one host after the other--> every host --> last good
       |                               |
       | failed: Degraded, what         | the first host that does not come back: the StatefulSet goes back to the last
       | runs goes on                   | good template, that host is put back on it, no other is touched

The StatefulSet's own annotations are the only memory: the last good template (JSON), and the hash of one that failed.
And the Deployment has the hash of the last good one: a StatefulSet that is deleted by hand is made anew without a try.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from kubeactor_operator import conditions, names, preflight
from kubeactor_operator.actions import Apply, Create, Delete, Tell
from kubeactor_operator.children import hosts, ingresses
from kubeactor_operator.children.manifest import Manifest, digest
from kubeactor_operator.children.pods import Bundle, template_hash
from kubeactor_operator.draft import Draft
from kubeactor_operator.live import HostPod, annotation
from kubeactor_operator.observed import Object, Probe
from kubeactor_operator.placed import Placed
from kubeactor_operator.spec import ActorNamespace

__all__ = ["code_in_use", "ended_text", "replicas", "roll", "roll_ingresses", "settled"]

COME_BACK_S: Final = 300.0
MISSED_WITHIN_S: Final = 60.0  # an older miss says nothing: since then no ingress was reached
TEXT_CHARACTERS: Final = 600


class Failed(msgspec.Struct, frozen=True):
    """A template on which a host did not come back."""

    hash: str
    message: str


@dataclass
class Target:
    """What the StatefulSet shall be."""

    template: Manifest
    last_good: str = ""
    failed: Failed | None = None
    made_from: str = ""


def replicas(draft: Draft, placed: Placed) -> int:
    """How many hosts run: as the spec wants, but all that own shards, and all volumes while a shard has no owner."""
    observed = draft.observed
    wanted = observed.namespace.spec.hosts.replicas
    if wanted == 0:
        return 0
    if placed.table is None or not placed.whole:
        known = [*observed.claimed, *(placed.table.volumes if placed.table else ())]
        return max([wanted, *(_ordinal(host) + 1 for host in known)])
    owners = [_ordinal(host) for host in placed.owners]
    needed = max((ordinal + 1 for ordinal in owners), default=0)
    if wanted < needed:
        draft.under_way(
            conditions.WAITING_FOR_MOVES,
            f"{needed} hosts own shards; {wanted} are wanted, and moving shards is not there yet",
            again_s=20.0,
        )
    elif any(f"host-{n}" not in placed.owners for n in range(min(wanted, placed.table.shards))):
        draft.under_way(
            conditions.WAITING_FOR_MOVES,
            f"{len(owners)} of {wanted} hosts own shards; the others get some when moving shards is there",
            again_s=20.0,
        )
    return max(wanted, needed)


def _ordinal(host: str) -> int:
    return int(host.rpartition("-")[2])


def roll(draft: Draft, bundle: Bundle | None, count: int) -> bool:
    """Bring the StatefulSet and its pods towards the desired template; True once every host runs it."""
    live = draft.observed.stateful_set
    desired = hosts.template(draft.observed.namespace, bundle) if bundle else None
    sources = made_from(draft, bundle, names.HOST)
    if live and desired and annotation(live, names.MADE_FROM) == sources and not _runs(live, desired):
        desired = _kept(live, template_hash(live["spec"]["template"])).template  # of another release
    want = template_hash(desired) if desired else ""
    if live is None:
        if desired and bundle and (_served(draft, want) or preflight.passed(draft, bundle, want)):
            _put(draft, None, Target(desired, made_from=sources), count)
            draft.under_way(conditions.CREATING, "the hosts are being made")
        preflight.clear(draft, want)
        return False
    have = template_hash(live["spec"]["template"])
    target = _kept(live, have)
    trying = None
    if stopped := _did_not_come_back(draft, live, have):
        target = stopped
    elif target.failed and target.failed.hash == want:
        draft.trouble(conditions.ROLLOUT_STOPPED, target.failed.message, stalled=True)
        _put_back(draft, target.failed)
    elif desired and bundle and have != want:
        trying = want
        if preflight.passed(draft, bundle, want):
            target = Target(desired, target.last_good, made_from=sources)
            draft.under_way(conditions.ROLLING_OUT, "the hosts get a new template")
    elif desired:
        target = Target(desired, target.last_good, made_from=sources)
    preflight.clear(draft, trying)
    if template_hash(target.template) != have:
        _put(draft, live, target, count)
        return False
    whole = _whole(draft, have, count)
    if whole and not target.failed and have == want:
        target.last_good = msgspec.json.encode(target.template, order="deterministic").decode()
    _put(draft, live, target, count)
    if not target.failed and not whole:
        _restart(draft, live, have, count)
    return whole and have == want


def _served(draft: Draft, want: str) -> bool:
    """Whether every host served on that very template before, so that a StatefulSet of it may be made at once."""
    beside = draft.observed.child("Deployment", names.ingress(draft.observed.namespace.name))
    return beside is not None and draft.observed.owned(beside) and annotation(beside, names.SERVED) == want


def _kept(live: Object, have: str) -> Target:
    """What it is now: the template as we once made it if that is known, else as the API server has it."""
    last_good = annotation(live, names.LAST_GOOD)
    template = _decoded(last_good)
    if template_hash(template) != have:
        template = live["spec"]["template"]
    failed = annotation(live, names.FAILED)
    try:
        read = msgspec.json.decode(failed, type=Failed) if failed else None
    except msgspec.MsgspecError:
        read = None
    return Target(template, last_good, read, annotation(live, names.MADE_FROM))


def settled(live: Object) -> bool:
    """Whether the StatefulSet remembers nothing that its template does not say: no way back, no failure."""
    last_good = annotation(live, names.LAST_GOOD)
    have = template_hash(live["spec"]["template"])
    return not annotation(live, names.FAILED) and (not last_good or template_hash(_decoded(last_good)) == have)


def made_from(draft: Draft, bundle: Bundle | None, component: str) -> str:
    """A hash of all that the spec says about a template; fields that have their default do not count.

    While it stays, so does the template, though another release of the operator would make another one of it: an
    upgrade restarts nothing. And a field that a later release adds changes nothing before somebody sets it.
    """
    spec = draft.observed.namespace.spec
    said = _said(spec)
    for other in ("hosts", "ingress", "image", "version", "code"):
        said.pop(other, None)
    pods = _said(spec.hosts if component == names.HOST else spec.ingress)
    for other in ("replicas", "storage", "network_policy", "service"):
        pods.pop(other, None)
    adopt = component == names.HOST and spec.hosts.storage.adopt
    return digest({"said": said, "pods": pods, "adopt": adopt, "bundle": msgspec.to_builtins(bundle)})


def _runs(live: Object, template: Manifest) -> bool:
    return template_hash(live["spec"]["template"]) == template_hash(template)


def _said(part: msgspec.Struct) -> Manifest:
    """The fields that differ from their defaults."""
    found = {}
    for field in msgspec.structs.fields(part):
        value = getattr(part, field.name)
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        if value != default:
            found[field.name] = msgspec.to_builtins(value)
    return found


def _decoded(text: str) -> Manifest:
    try:
        return msgspec.json.decode(text, type=Manifest) if text else {}
    except msgspec.MsgspecError:
        return {}


def _put(draft: Draft, live: Object | None, target: Target, count: int) -> None:
    """The StatefulSet. Size and access mode of its claims are immutable: those of a live one stay (see storage.py)."""
    namespace = draft.observed.namespace
    size, mode = namespace.spec.hosts.storage.size, hosts.access_mode(draft.observed.provisioner)
    if live:
        claim = live["spec"]["volumeClaimTemplates"][0]["spec"]
        size, mode = claim["resources"]["requests"]["storage"], claim["accessModes"][0]
    manifest = hosts.stateful_set(
        namespace, target.template, replicas=count, size=size, access_mode=mode, last_good=target.last_good
    )
    if target.made_from:
        manifest["metadata"]["annotations"][names.MADE_FROM] = target.made_from
    if target.failed:
        manifest["metadata"]["annotations"][names.FAILED] = msgspec.json.encode(target.failed).decode()
    _stamp(manifest)
    before = len(draft.actions)
    draft.ensure(manifest)
    if len(draft.actions) > before:
        draft.soon(0.5)


def _stamp(manifest: Manifest) -> None:
    """Renew the hash of what is applied, after an annotation was added."""
    annotations = manifest["metadata"]["annotations"]
    del annotations[names.APPLIED]
    annotations[names.APPLIED] = digest(manifest)


def _whole(draft: Draft, have: str, count: int) -> bool:
    pods = [draft.pods.get(f"host-{n}") for n in range(count)]
    return bool(pods) and all(pod and _serves(draft, pod) and pod.template == have for pod in pods)


def _serves(draft: Draft, pod: HostPod) -> bool:
    """Ready by its own word, and by the last probe that an ingress made of it."""
    probe = draft.observed.probes.get(pod.host, Probe())
    missed = probe.misses > 0 and draft.observed.now - probe.missed_at <= MISSED_WITHIN_S
    return pod.ready and not missed


def _did_not_come_back(draft: Draft, live: Object, have: str) -> Target | None:
    """Back to the last good template, if a host restarted on a newer one does not serve."""
    last_good = annotation(live, names.LAST_GOOD)
    template = _decoded(last_good)
    if not template or template_hash(template) == have:
        return None
    for pod in draft.pods.values():
        late = draft.observed.now - pod.created_at > COME_BACK_S
        if pod.template == have and not pod.ready and not pod.deleting and (pod.backing_off or late):
            message = f"{pod.name} did not come back on the new template and is put back: {ended_text(pod)}"
            draft.actions.append(Tell(conditions.ROLLOUT_STOPPED, message))
            draft.soon(0.5)
            return Target(template, last_good, Failed(have, message[:TEXT_CHARACTERS]))
    return None


def ended_text(pod: HostPod) -> str:
    """Why it is not well: how it ended and its last lines, or what it waits for."""
    if ended := pod.ended:
        lines = str(ended.get("message") or "").strip()[-TEXT_CHARACTERS:]
        return f"exit code {ended.get('exitCode')} ({ended.get('reason', 'Error')})" + (f": {lines}" if lines else "")
    reason, message = pod.waiting
    return f"{reason}: {message}".removesuffix(": ") if reason else "it is not ready"


def _put_back(draft: Draft, failed: Failed) -> None:
    for pod in draft.pods.values():
        if pod.template == failed.hash and not pod.ready and not pod.deleting and _is_current(draft):
            draft.actions.append(Delete(pod.live))
            draft.soon(1.0)
            return


def _is_current(draft: Draft) -> bool:
    """Whether the controller has seen the template: else it would make the pod anew from the one before."""
    live = draft.observed.stateful_set
    assert live
    return bool(live.get("status", {}).get("observedGeneration", 0) >= live["metadata"].get("generation", 0))


def _restart(draft: Draft, live: Object, have: str, count: int) -> None:
    """Delete one pod that runs an older template, if all others serve or it serves nothing itself."""
    pods = [draft.pods.get(f"host-{n}") for n in range(count)]
    there = [pod for pod in pods if pod]
    outdated = [pod for pod in there if pod.template != have]
    if not outdated:
        if len(there) < count or not all(_serves(draft, pod) for pod in there):
            _coming(draft, live, have, pods)
        return
    down = [pod for pod in there if not _serves(draft, pod)]
    busy = len(there) < count or any(pod.deleting or (pod.template == have and pod in down) for pod in there)
    left = f"{len(outdated)} of {count} hosts still run the old template"
    draft.under_way(conditions.ROLLING_OUT, left, again_s=1.0)
    changing = any(
        isinstance(action, Apply | Create) and action.manifest["kind"] == "StatefulSet" for action in draft.actions
    )
    if busy or changing or not _is_current(draft):
        return
    others_serve = [pod for pod in outdated if all(other is pod for other in down)]
    candidates = [pod for pod in outdated if not pod.ready] or others_serve
    if candidates:
        draft.actions.append(Delete(candidates[-1].live))


def _coming(draft: Draft, live: Object, have: str, pods: Sequence[HostPod | None]) -> None:
    last_good = annotation(live, names.LAST_GOOD)
    reason = conditions.SCALING
    if not last_good:
        reason = conditions.CREATING
    elif template_hash(_decoded(last_good)) != have:
        reason = conditions.ROLLING_OUT
    elif all(pods):
        return  # one that is restarting: nothing differs from the spec
    ready = sum(1 for pod in pods if pod and pod.ready)
    draft.under_way(reason, f"{ready} of {len(pods)} hosts are ready", again_s=1.0)


def roll_ingresses(draft: Draft, bundle: Bundle | None, hosts_done: bool) -> None:
    """The Deployment: it gets the new template once all hosts run it, since ingresses know the classes too."""
    namespace = draft.observed.namespace
    live = draft.observed.child("Deployment", names.ingress(namespace.name))
    made = draft.observed.stateful_set
    served = template_hash(made["spec"]["template"]) if made and hosts_done else annotation(live, names.SERVED)
    sources = made_from(draft, bundle, names.INGRESS)
    desired = ingresses.template(namespace, bundle) if bundle else None
    if live is None:
        if desired and made:
            draft.ensure(_deployment(namespace, desired, sources, served))
        return
    template, before = live["spec"]["template"], annotation(live, names.MADE_FROM)
    if desired and (_runs(live, desired) or (hosts_done and before != sources)):
        template, before = desired, sources
    written = len(draft.actions)
    draft.ensure(_deployment(namespace, template, before, served))
    status = live.get("status", {})
    wanted = live["spec"].get("replicas", 1)
    behind = status.get("observedGeneration", 0) < live["metadata"].get("generation", 0)
    rolling = len(draft.actions) > written or behind or status.get("updatedReplicas", 0) < wanted
    if rolling or status.get("replicas", 0) > wanted:
        reason = conditions.ROLLING_OUT if rolling else conditions.SCALING
        draft.under_way(reason, "the ingresses are being brought up to the template")


def _deployment(namespace: ActorNamespace, template: Manifest, sources: str, served: str) -> Manifest:
    manifest = ingresses.deployment(namespace, template)
    manifest["metadata"]["annotations"] |= {names.MADE_FROM: sources} | ({names.SERVED: served} if served else {})
    _stamp(manifest)
    return manifest


def code_in_use(draft: Draft) -> set[str]:
    """Hashes of the code copies that a template, a pod or the way back names."""
    prefix = names.code_config_map(draft.observed.namespace.name, "")
    specs = [pod["spec"] for pod in draft.observed.pods]
    for key in (("StatefulSet", names.host), ("Deployment", names.ingress)):
        live = draft.observed.child(key[0], key[1](draft.observed.namespace.name))
        if live:
            specs += [live["spec"]["template"]["spec"], _decoded(annotation(live, names.LAST_GOOD)).get("spec", {})]
    maps = [volume.get("configMap", {}).get("name", "") for spec in specs for volume in spec.get("volumes") or ()]
    return {name.removeprefix(prefix) for name in maps if name.startswith(prefix)}
