"""The pod that tries a template: image, code, environment, account and security of the hosts, but no volume."""

from __future__ import annotations

from typing import Final

from kubeactor_operator import names
from kubeactor_operator.children import pods
from kubeactor_operator.children.manifest import Manifest, make
from kubeactor_operator.spec import ActorNamespace

__all__ = ["preflight_pod"]

DEADLINE_S: Final = 600  # an image of several gigabytes has to be pulled within it

# It has to fit beside running hosts, so it does not ask for what a host asks for; the host's limits hold.
_REQUESTS: Final = {"cpu": "10m", "memory": "32Mi"}


def preflight_pod(namespace: ActorNamespace, bundle: pods.Bundle, digest: str) -> Manifest:
    """A pod that runs `kubeactor check` and ends: 0 and a line of JSON, or 2 and one sentence.

    Args:
        digest: of the host template that it tries; part of its name, so each template is tried once.
    """
    settings = namespace.spec.hosts
    main = pods.container(namespace, settings, bundle, "preflight", ["check", "--json"], [])
    main["resources"] = settings.resources | {"requests": _REQUESTS}
    spec = pods.pod_spec(namespace, settings, bundle, names.host(namespace.name), main, [])
    spec |= {"restartPolicy": "Never", "activeDeadlineSeconds": DEADLINE_S}
    spec["volumes"] = [_without_claim(volume) for volume in spec["volumes"]]
    pod = make(namespace, "Pod", names.preflight(namespace.name, digest), names.PREFLIGHT, spec=spec)
    pod["metadata"]["labels"] = settings.pod_labels | pod["metadata"]["labels"]
    pod["metadata"]["annotations"] |= settings.pod_annotations
    return pod


def _without_claim(volume: Manifest) -> Manifest:
    """A user's claim may be held by a running host: the preflight pod has an empty folder in its place."""
    if {"persistentVolumeClaim", "ephemeral"} & volume.keys():
        return {"name": volume["name"], "emptyDir": {}}
    return volume
