"""Reads everything that belongs to one namespace: from the API server, from the hosts, and through the ingresses."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from kubeactor_operator import names
from kubeactor_operator.api import Api, ApiError
from kubeactor_operator.children.sources import peer_credentials
from kubeactor_operator.live import HostPod, condition, host_pods
from kubeactor_operator.observed import Inventory, Known, Object, Observed, Probe, Silent
from kubeactor_operator.pods import PodError, Pods
from kubeactor_operator.spec import ActorNamespace

__all__ = ["Memory", "observe"]

PROBE_EVERY_S: Final = 9.5  # three misses "10 s apart" may come a little early, but not two in one pass
PROBE_AGAIN_S: Final = 2.0  # a rollout waits for the pass of a host that was missed while it restarted
INGRESSES_ASKED: Final = 3
REFUSALS: Final = 64
# An ingress that does not answer, that has not read the new credential yet, or not the table: no word about the host.
SAYS_NOTHING: Final = (0, 401, 404)


@dataclass
class Memory:
    """What the operator keeps of a namespace between two looks. All of it may be lost: the next looks bring it back."""

    probes: dict[str, Probe] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    table_written_at: float = 0.0
    writing: int = 0  # looks in a row that wrote something

    def refuse(self, key: str, refusal: tuple[int, str, str]) -> bool:
        """Note a refusal; whether it is news."""
        if self.refusals.get(key) == refusal:
            return False
        if len(self.refusals) >= REFUSALS:
            self.refusals.pop(next(iter(self.refusals)))
        self.refusals[key] = refusal
        return True


def _wanted(name: str) -> list[tuple[str, str]]:
    host, ingress = names.host(name), names.ingress(name)
    both = ("ServiceAccount", "Role", "RoleBinding", "PodDisruptionBudget")
    return [
        *((kind, child) for kind in both for child in (host, ingress)),
        ("NetworkPolicy", host),
        ("StatefulSet", host),
        ("Service", host),
        ("Service", names.service(name)),
        ("Service", names.api_service(name)),
        ("Deployment", ingress),
        ("Secret", names.peer_secret(name)),
        (names.PLACEMENT_KIND, name),
    ]


async def observe(api: Api, pods: Pods, body: Object, memory: Memory, stock_image: str) -> Observed:
    """One look.

    Args:
        body: the ActorNamespace, just read.

    Raises:
        SpecError: when it can't be read.
        ApiError: when the API server does not answer.
    """
    namespace = ActorNamespace.of(body)
    where, name = namespace.namespace, namespace.name
    label = f"{names.NAMESPACE_LABEL}={name}"
    keys = _wanted(name)
    listed = [api.list(kind, where, label) for kind in ("Pod", "PersistentVolumeClaim", "ConfigMap")]
    code = namespace.spec.code
    async with asyncio.TaskGroup() as group:
        gets = [group.create_task(api.get(kind, where, child)) for kind, child in keys]
        lists = [group.create_task(one) for one in listed]
        source = group.create_task(api.get("ConfigMap", where, code.config_map)) if code else None
    children = {key: task.result() for key, task in zip(keys, gets, strict=True)}
    found_pods, claims, maps = (task.result() for task in lists)
    everything = {key: live for key, live in children.items() if live is not None}
    everything |= {("ConfigMap", one["metadata"]["name"]): one for one in maps}
    everything |= {("Pod", one["metadata"]["name"]): one for one in found_pods}
    observed = Observed(
        now=time.time(),
        namespace=namespace,
        status=body.get("status") or {},
        children=everything,
        pods=tuple(found_pods),
        claims=tuple(one for one in claims if names.host_id(name, _pod_of(one))),
        source=source.result() if source else None,
        refusals=dict(memory.refusals),
        table_written_at=memory.table_written_at,
        credential=secrets.token_urlsafe(32),
        stock_image=stock_image,
    )
    if observed.stateful_set is None:
        observed = replace(observed, provisioner=await _provisioner(api, namespace))
    return await _asked(pods, observed, memory)


def _pod_of(claim: Object) -> str:
    return str(claim["metadata"]["name"]).removeprefix(f"{names.CLAIM_TEMPLATE}-")


async def _provisioner(api: Api, namespace: ActorNamespace) -> str | None:
    """Of the class that the claims will have; None without the right to look, as in a namespaced install."""
    try:
        classes = await api.list("StorageClass", None)
    except ApiError as error:
        if error.status == 403:
            return None
        raise
    wanted = namespace.spec.hosts.storage.storage_class_name
    for one in classes:
        meta = one["metadata"]
        default = (meta.get("annotations") or {}).get("storageclass.kubernetes.io/is-default-class") == "true"
        if meta["name"] == wanted or (wanted is None and default):
            return str(one.get("provisioner"))
    return None


async def _asked(pods: Pods, observed: Observed, memory: Memory) -> Observed:
    """The same with what hosts and ingresses say."""
    secret = observed.child("Secret", names.peer_secret(observed.namespace.name))
    credential = peer_credentials(secret)[0] if secret else ""
    there = {host: pod for host, pod in host_pods(observed).items() if pod.address and not pod.deleting}
    if not credential:
        return observed
    async with asyncio.TaskGroup() as group:
        asked = {host: group.create_task(pods.inventory(pod.address, credential)) for host, pod in there.items()}
        known = {pod.name: group.create_task(pods.known(pod.address, credential)) for pod in _ingresses(observed)}
        reached = group.create_task(_probed(pods, observed, memory, credential))
    ingresses: dict[str, Known | Silent] = {name: task.result() for name, task in known.items()}
    inventories: dict[str, Inventory | Silent] = {host: task.result() for host, task in asked.items()}
    return replace(
        observed,
        now=time.time(),
        inventories=inventories,
        ingresses=ingresses,
        probes=dict(memory.probes),
        ingress_reached=reached.result(),
    )


async def _probed(pods: Pods, observed: Observed, memory: Memory, credential: str) -> bool | None:
    owners = _owners(observed.child(names.PLACEMENT_KIND, observed.namespace.name))
    addresses = [pod.address for pod in _ingresses(observed)][:INGRESSES_ASKED]
    memory.probes = {host: probe for host, probe in memory.probes.items() if host in owners}
    due = [host for host in owners if _due(memory.probes.get(host, Probe()))]
    if not owners or not addresses:
        return None if not owners else False
    if not due:
        return True
    async with asyncio.TaskGroup() as group:
        asked = {host: group.create_task(_probe(pods, addresses, credential, host)) for host in due}
    reached = [host for host, task in asked.items() if task.result() is not None]
    for host in reached:
        reason = asked[host].result()
        assert reason is not None
        memory.probes[host] = _noted(memory.probes.get(host, Probe()), reason)
    return bool(reached)


def _owners(table: Object | None) -> list[str]:
    rows: Mapping[str, Object] = ((table or {}).get("spec") or {}).get("hosts") or {}
    return sorted(host for host, row in rows.items() if row.get("shards"))


def _ingresses(observed: Observed) -> list[HostPod]:
    """Those that run; the ready ones first."""
    found = [
        HostPod("ingress-0", pod)
        for pod in observed.pods
        if (pod["metadata"].get("labels") or {}).get("app.kubernetes.io/component") == names.INGRESS
    ]
    there = [pod for pod in found if pod.address and pod.running and not pod.deleting]
    there.sort(key=lambda pod: condition(pod.live, "Ready").get("status") != "True")
    return there


def _due(probe: Probe) -> bool:
    missing = probe.misses > 0 or probe.passed_at is None
    since_s = time.time() - (probe.missed_at if missing else probe.passed_at or 0.0)
    every_s = PROBE_AGAIN_S if probe.misses else PROBE_EVERY_S
    return not 0.0 <= since_s < every_s  # below 0: the clock was set back


async def _probe(pods: Pods, addresses: Sequence[str], credential: str, host: str) -> str | None:
    """Empty when it passed, else why not; None when no ingress can tell."""
    for address in addresses:
        try:
            await pods.probe(address, credential, host)
        except PodError as error:
            if error.status in SAYS_NOTHING:
                continue
            return str(error)
        return ""
    return None


def _noted(before: Probe, reason: str) -> Probe:
    now = time.time()
    if not reason:
        return Probe(passed_at=now)
    if before.misses and 0.0 <= now - before.missed_at < PROBE_EVERY_S:
        return before
    return Probe(before.passed_at, before.misses + 1, now, reason)
