"""`kubeactor where` and `kubeactor forget`: what the placement table says, and giving up what it says is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from kubeactor.ids import identity_of_name, shard_of
from kubeactor.placement import Document, PlacementError, Table
from kubeactor.pod.api import ApiProblem, api_client, request

__all__ = ["CommandError", "forget", "loss", "where", "wish"]

API: Final = "/apis/kubeactor.io/v1alpha1"
FORGET: Final = "kubeactor.io/forget-"  # and the host
OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

T = TypeVar("T")


class CommandError(Exception):
    """Raised when the cluster can't be asked or has no such object; one sentence."""


def where(name: str, instance: str, binding: str, namespace: str | None) -> list[str]:
    """Where an instance lives, a line for each fact.

    Args:
        name: of the ActorNamespace.
        instance: the instance's name.
        binding: of its actor class, which the answer does not depend on; empty leaves it out.
        namespace: the Kubernetes namespace; None for the context's own.

    Raises:
        CommandError: when that can't be told.
    """
    table = _table(name, namespace)
    try:
        shard = shard_of(identity_of_name(instance), table.shards)
    except ValueError as error:
        raise CommandError(str(error)) from error
    owner = table.owner(shard)
    host, epoch = owner or ("none at the moment, its calls wait", table.epoch(shard))
    facts = {"instance": f"{binding}/{instance}" if binding else instance, "shard": str(shard), "host": host}
    if owner:
        facts["pod"] = f"{name}-{host}"
    return [f"{fact:<10}{value}" for fact, value in (facts | {"epoch": str(epoch)}).items()]


def loss(name: str, host: str, namespace: str | None) -> str:
    """What would be lost with a host's volume, in words.

    Raises:
        CommandError: when there is no such host, or the table can't be read.
    """
    table = _known(name, host, namespace)[0]
    ownerless = sum(table.owner(shard) is None for shard in range(table.shards))
    holds = f"{len(table.shards_of(host))} of {table.shards} shards on volume {table.volumes.get(host)}"
    held = f"holds {holds}" if host in table.volumes else "is not in the table"
    might = f", and might hold {ownerless} that have no owner" if ownerless else ""
    return (
        f"{host} of {name} {held}{might}. To forget it gives them up: every instance in them begins empty, and its data"
        " can't come back, not even with the volume. Restore the volume if you can; else say --accept-data-loss"
    )


def forget(name: str, host: str, namespace: str | None) -> str:
    """Tell the operator to give up what a host's volume holds; the volume's id, empty if the table records none.

    Raises:
        CommandError: when there is no such host, or the API server refuses.
    """
    table, uid = _known(name, host, namespace)
    _run(_annotate(name, {FORGET + host: wish(table, uid, host)}, namespace))
    return table.volumes.get(host, "")


def wish(table: Table, uid: str, host: str) -> str:
    """The value of the annotation: what is given up, so that it never means a later loss.

    Args:
        table: as it is published; uid: of the ActorPlacement.
        host: the one to forget.
    """
    return f"{table.volumes.get(host, '')}:{uid}/{max(1, *(table.epoch(shard) for shard in range(table.shards)))}"


def _known(name: str, host: str, namespace: str | None) -> tuple[Table, str]:
    """The table and the uid of its object, if there is such a host: by the table, or by the number of hosts."""
    found = _run(_read(name, namespace, "actorplacements"))
    table = _read_table(found, name)
    owner = _run(_read(name, namespace, "actornamespaces"))
    count = max(owner["spec"].get("hosts", {}).get("replicas", 0), owner.get("status", {}).get("hosts", 0))
    hosts = sorted({*table.volumes, *(f"host-{n}" for n in range(count))})
    if host not in hosts:
        raise CommandError(f"{name} has no {host}, it has {', '.join(hosts) or 'no host yet'}")
    return table, found["metadata"]["uid"]


def _table(name: str, namespace: str | None) -> Table:
    return _read_table(_run(_read(name, namespace, "actorplacements")), name)


def _read_table(found: dict[str, Any], name: str) -> Table:
    try:
        return Table.of(msgspec.convert(found.get("spec"), Document))
    except (msgspec.ValidationError, PlacementError) as error:
        raise CommandError(f"the ActorPlacement {name} can't be read: {error}") from error


def _run(main: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(main)
    except ApiProblem as error:
        raise CommandError(str(error)) from error
    except ImportError as error:
        raise CommandError("this command needs the Kubernetes client: install kubeactor[kubernetes]") from error


async def _read(name: str, namespace: str | None, plural: str) -> dict[str, Any]:
    async with api_client() as api:
        where = namespace or await _own_namespace()
        return await request(api, "GET", f"{API}/namespaces/{where}/{plural}/{name}", {})


async def _annotate(name: str, annotations: dict[str, str], namespace: str | None) -> None:
    async with api_client() as api:
        where = namespace or await _own_namespace()
        await request(
            api,
            "PATCH",
            f"{API}/namespaces/{where}/actornamespaces/{name}",
            {},
            body={"metadata": {"annotations": annotations}},
            content_type="application/merge-patch+json",
        )


async def _own_namespace() -> str:
    """The pod's own, or that of the kubeconfig's context."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return OWN_NAMESPACE.read_text().strip()
    from kubernetes.aio import config

    _, active = config.list_kube_config_contexts(os.environ.get("KUBECONFIG") or None)  # type: ignore[no-untyped-call]
    return str(active["context"].get("namespace") or "default")
