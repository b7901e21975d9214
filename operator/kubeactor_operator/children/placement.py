"""The ActorPlacement, which carries the table; and the reference that lets a claim go with its namespace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubeactor_operator import names
from kubeactor_operator.children.manifest import Manifest, make, owner_reference
from kubeactor_operator.spec import ActorNamespace

__all__ = ["claim_owners", "placement"]


def placement(namespace: ActorNamespace, document: dict[str, Any]) -> Manifest:
    """The object that publishes a table.

    Args:
        document: `kubeactor.placement.Document` as plain data.
    """
    return make(namespace, names.PLACEMENT_KIND, namespace.name, api=names.API_VERSION, spec=document)


def claim_owners(namespace: ActorNamespace, present: Sequence[Manifest]) -> list[Manifest]:
    """The owner references that a claim should have: ours if `reclaim` is Delete; those of others stay.

    Not a controller reference: the claims belong to the StatefulSet's pods, they only go when the namespace goes.

    Args:
        present: those that it has.
    """
    others = [reference for reference in present if reference.get("uid") != namespace.uid]
    if namespace.spec.hosts.storage.reclaim == "Retain":
        return others
    return [*others, owner_reference(namespace, controller=False)]
