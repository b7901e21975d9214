"""Volumes that a test makes itself."""

from __future__ import annotations

from typing import Any

__all__ = ["local_volume"]


def local_volume(
    name: str, node: str, folder: str, size: str, storage_class: str, mode: str = "ReadWriteOnce"
) -> dict[str, Any]:
    """A static `local` PersistentVolume: a folder of a node, which whoever mounts it may be made the owner of."""
    place = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    spec = {
        "capacity": {"storage": size},
        "accessModes": [mode],
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": storage_class,
        "local": {"path": folder},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [place]}]}},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
