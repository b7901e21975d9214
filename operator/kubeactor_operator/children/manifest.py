"""What every child has: name, labels, the owner reference, and a hash of what was applied."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from kubeactor_operator import names
from kubeactor_operator.spec import ActorNamespace

__all__ = ["Manifest", "digest", "make", "owner_reference", "present"]

Manifest = dict[str, Any]


def owner_reference(namespace: ActorNamespace, *, controller: bool = True) -> Manifest:
    """The reference by which garbage collection deletes a child with its namespace.

    Without `blockOwnerDeletion`: it needs the right to update finalizers, and nothing here may hold a deletion up.
    """
    reference = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": namespace.name, "uid": namespace.uid}
    return reference | ({"controller": True} if controller else {})


def make(
    namespace: ActorNamespace,
    kind: str,
    name: str,
    component: str | None = None,
    *,
    api: str = "v1",
    annotations: Mapping[str, str] | None = None,
    **body: Any,
) -> Manifest:
    """A child of that kind and name; `body` is what stands beside its metadata.

    Args:
        annotations: the user's; ours are added.
        component: host, ingress or preflight, for the labels.
    """
    metadata: Manifest = {
        "name": name,
        "namespace": namespace.namespace,
        "labels": names.labels(namespace.name, component),
        "annotations": dict(annotations or {}),
        "ownerReferences": [owner_reference(namespace)],
    }
    manifest = {"apiVersion": api, "kind": kind, "metadata": metadata, **body}
    metadata["annotations"][names.APPLIED] = digest(manifest)
    return manifest


def digest(value: object) -> str:
    """Ten hex digits that tell one manifest, template or ConfigMap from another, whatever its order of keys."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:10]


def present(**fields: Any) -> Manifest:
    """The fields that say something: what is None or empty is left to the API server's own default."""
    return {key: value for key, value in fields.items() if value not in (None, (), [], {}, "")}
