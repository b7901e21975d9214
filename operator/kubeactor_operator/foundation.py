"""The children that only follow from the spec: credentials, code copies, accounts, rights, Services, guards."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from typing import Final

from kubeactor_operator import conditions, names
from kubeactor_operator.actions import Create, Delete, Patch
from kubeactor_operator.children import access, guards, hosts, ingresses, sources
from kubeactor_operator.children.pods import Bundle
from kubeactor_operator.draft import Draft
from kubeactor_operator.live import annotation, condition, when
from kubeactor_operator.observed import Known, Object, Silent

__all__ = ["bundle", "credentials", "forget_old_code", "rights", "services"]

CODE_COPIES: Final = 3
DOWN_S: Final = 300.0  # within two minutes kubelet brings a Secret to every pod, well or not


def credentials(draft: Draft) -> None:
    """The peer Secret: made once, never overwritten; rotated when the user's annotation says so."""
    observed = draft.observed
    live = observed.child("Secret", names.peer_secret(observed.namespace.name))
    if live is None or not observed.owned(live):
        manifest = sources.peer_secret(observed.namespace, observed.credential, "")
        if live is None:
            draft.actions.append(Create(manifest))
        else:
            draft.ensure(manifest)  # tells of the conflict
        return
    current, previous = sources.peer_credentials(live)
    wanted = observed.namespace.metadata.annotations.get(names.ROTATE, "")
    if not current:
        draft.actions.append(Patch({"data": _data(current=observed.credential)}, live))
    elif wanted and annotation(live, names.ROTATED) != wanted:
        _rotate(draft, live, wanted, current, previous)


def _rotate(draft: Draft, live: Object, wanted: str, current: str, previous: str) -> None:
    """First everyone accepts the new one, then everyone presents it: at no time is anybody refused.

    The Secret holds two, so what is forgotten with the next rotation must not be presented by anybody any more.
    """
    found = draft.observed.inventories
    if annotation(live, names.ROTATING) != wanted:
        everyone = {draft.pods[host].name: found.get(host) for host in draft.pods} | _ingresses(draft)
        if late := [name for name, known in everyone.items() if _hash(current) not in _told(known)[:1]]:
            silent = [name for name in late if _silent(draft.observed.ingresses.get(name))]
            _wait(draft, late, "present the current credential, before the next one comes", silent)
            return
        fields = {
            "metadata": {"annotations": {names.ROTATING: wanted}},
            "data": _data(previous=draft.observed.credential),
        }
        draft.actions.append(Patch(fields, live))
        draft.under_way(conditions.ROTATING_CREDENTIALS, "the new credential is being handed out")
        return
    if late := [host for host in draft.pods if _hash(previous) not in _told(found.get(host))]:
        _wait(draft, late, "accept the new credential")
        return
    fields = {"metadata": {"annotations": {names.ROTATED: wanted}}, "data": _data(current=previous, previous=current)}
    draft.actions.append(Patch(fields, live))


def _ingresses(draft: Draft) -> dict[str, object]:
    """What they go by, but for those that are down for so long that they come back with the Secret as it is now.

    That one does not answer the operator proves nothing, since it may serve others: its kubelet has to find the same.
    """
    unready = {
        live["metadata"]["name"]
        for live in draft.observed.pods
        if (found := condition(live, "ContainersReady")).get("status") == "False"
        and draft.observed.now - when(found.get("lastTransitionTime")) > DOWN_S
    }
    return {name: known for name, known in draft.observed.ingresses.items() if not (name in unready and _silent(known))}


def _silent(known: object) -> bool:
    return isinstance(known, Silent) and not known.answers


def _wait(draft: Draft, late: Sequence[str], what: str, silent: Sequence[str] = ()) -> None:
    text = f"waiting until {', '.join(late)} {what} (kubelet takes up to two minutes)"
    if silent:
        text += f"; not reached: `kubectl delete pod {' '.join(silent)}` unless they come back"
    draft.under_way(conditions.ROTATING_CREDENTIALS, text, again_s=5.0)


def _hash(credential: str) -> str:
    return hashlib.sha256(credential.encode()).hexdigest()[:16]


def _told(known: object) -> tuple[str, ...]:
    """The credentials that a host or ingress goes by; none while it does not tell."""
    return known.credentials if isinstance(known, Known) else ()


def _data(**values: str) -> Object:
    return {key: b64encode(value.encode()).decode() for key, value in values.items()}


def bundle(draft: Draft) -> Bundle | None:
    """Image and code that the spec asks for, copied; None while the code is missing: then what runs goes on."""
    observed = draft.observed
    spec = observed.namespace.spec
    if spec.code is None:
        return Bundle(image(draft))
    source = observed.source
    if source is None or not (source.get("data") or source.get("binaryData")):
        what = "is empty" if source else "does not exist"
        name = spec.code.config_map
        draft.trouble(
            conditions.CODE_MISSING,
            f"ConfigMap {name} {what}: `kubectl create configmap {name} --from-file=FILE.py`",
            stalled=True,
        )
        return None
    draft.ensure(sources.code_config_map(observed.namespace, source))
    return Bundle(image(draft), sources.code_hash(source))


def image(draft: Draft) -> str:
    """The user's image, or the stock image: that of the first release that saw the namespace, or of `spec.version`."""
    observed = draft.observed
    spec = observed.namespace.spec
    if spec.image:
        return spec.image
    stock = observed.stock_image
    repository = stock.rpartition(":")[0] if ":" in stock.rpartition("/")[2] else stock
    if spec.version:
        return f"{repository}:{spec.version}"
    running = str(observed.status.get("image") or "")
    return running if running.rpartition(":")[0] == repository else stock


def forget_old_code(draft: Draft, needed: set[str]) -> None:
    """Of the code copies that no template names, the newest stay: three in all."""
    prefix = names.code_config_map(draft.observed.namespace.name, "")
    copies = [
        live
        for (kind, name), live in draft.observed.children.items()
        if kind == "ConfigMap" and name.startswith(prefix) and draft.observed.owned(live)
    ]
    spare = [live for live in copies if live["metadata"]["name"].removeprefix(prefix) not in needed]
    spare.sort(key=lambda live: (live["metadata"].get("creationTimestamp", ""), live["metadata"]["name"]))
    for live in spare[: max(0, len(copies) - CODE_COPIES)]:
        draft.actions.append(Delete(live))


def rights(draft: Draft) -> None:
    """Accounts of the pods, and what they may read."""
    namespace = draft.observed.namespace
    for component, name in (
        (names.HOST, names.host(namespace.name)),
        (names.INGRESS, names.ingress(namespace.name)),
    ):
        draft.keep(access.service_account(namespace, component), "ServiceAccount", name)
        draft.ensure(access.role(namespace, component))
        draft.ensure(access.role_binding(namespace, component))


def services(draft: Draft, replicas: int) -> None:
    """Services, disruption budgets and the network policy."""
    namespace = draft.observed.namespace
    host, ingress = names.host(namespace.name), names.ingress(namespace.name)
    draft.ensure(hosts.headless_service(namespace))
    draft.ensure(ingresses.public_service(namespace))
    draft.keep(ingresses.api_service(namespace), "Service", names.api_service(namespace.name))
    draft.keep(guards.host_budget(namespace, replicas), "PodDisruptionBudget", host)
    draft.keep(guards.ingress_budget(namespace), "PodDisruptionBudget", ingress)
    draft.keep(guards.network_policy(namespace), "NetworkPolicy", host)
