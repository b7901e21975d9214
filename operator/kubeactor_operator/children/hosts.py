"""The hosts: pod template, StatefulSet and its claims, headless Service."""

from __future__ import annotations

from typing import Literal

from kubeactor_operator import names
from kubeactor_operator.children import pods
from kubeactor_operator.children.manifest import Manifest, make
from kubeactor_operator.spec import ActorNamespace

__all__ = ["AccessMode", "access_mode", "headless_service", "stateful_set", "template"]

AccessMode = Literal["ReadWriteOnce", "ReadWriteOncePod"]


def template(namespace: ActorNamespace, bundle: pods.Bundle) -> Manifest:
    """The pod template of the hosts. Two hosts of one hash run the same."""
    settings = namespace.spec.hosts
    args = ["host", "--kubernetes", "--data", names.DATA_PATH, "--address", "0.0.0.0"]  # noqa: S104
    args += ["--port", str(names.FRAMES), "--metrics-port", str(names.INTERNAL)]
    mount = {"name": names.CLAIM_TEMPLATE, "mountPath": names.DATA_PATH}
    main = pods.container(namespace, settings, bundle, "host", args, [mount])
    main["ports"] = _ports()
    # The supervisor judges its worker itself, and restarts it in a fraction of a second. Kubelet is the last resort for
    # a supervisor that hangs: it comes after everything that the supervisor and the operator would do.
    main["livenessProbe"] = pods.http_probe("/healthz", periodSeconds=10, timeoutSeconds=5, failureThreshold=12)
    main["readinessProbe"] = pods.http_probe("/readyz", periodSeconds=2, timeoutSeconds=2, failureThreshold=3)
    spec = pods.pod_spec(namespace, settings, bundle, names.host(namespace.name), main, [])
    return pods.template(namespace, settings, names.HOST, pods.spread(namespace, settings, names.HOST) | spec)


def _ports() -> list[Manifest]:
    return [
        {"name": "frames", "containerPort": names.FRAMES, "protocol": "TCP"},
        {"name": "internal", "containerPort": names.INTERNAL, "protocol": "TCP"},
    ]


def access_mode(provisioner: str | None) -> AccessMode:
    """What a claim of that class may ask for.

    ReadWriteOncePod keeps a second pod off the volume, but only provisioners outside of Kubernetes' own tree know it,
    and a static `local` volume offers what its owner wrote.

    Args:
        provisioner: of the StorageClass; None when it is not known.
    """
    return "ReadWriteOncePod" if provisioner and not provisioner.startswith("kubernetes.io/") else "ReadWriteOnce"


def stateful_set(
    namespace: ActorNamespace,
    template: Manifest,
    *,
    replicas: int,
    size: str,
    access_mode: AccessMode,
    last_good: str = "",
) -> Manifest:
    """The StatefulSet of the hosts.

    Args:
        template: what pods made from now on run; `OnDelete`, so running pods stay until the operator restarts them.
        replicas: how many; may differ from the spec's while shards have to be moved first.
        size: of each claim; immutable in a StatefulSet, so it is replaced around its pods when the volumes grew.
        access_mode: immutable too: the operator passes the one that the existing StatefulSet has.
        last_good: JSON of the template that last served on every host.
    """
    name = names.host(namespace.name)
    return make(
        namespace,
        "StatefulSet",
        name,
        names.HOST,
        api="apps/v1",
        annotations={names.LAST_GOOD: last_good} if last_good else None,
        spec={
            "replicas": replicas,
            "serviceName": name,
            "selector": {"matchLabels": names.selector(namespace.name, names.HOST)},
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "minReadySeconds": 0,
            "revisionHistoryLimit": 3,
            # Always: a StatefulSet deleted by hand never takes data with it. `reclaim` is an owner reference.
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "template": template,
            "volumeClaimTemplates": [_claim(namespace, size, access_mode)],
        },
    )


def _claim(namespace: ActorNamespace, size: str, access_mode: AccessMode) -> Manifest:
    storage_class = namespace.spec.hosts.storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": names.CLAIM_TEMPLATE, "labels": names.labels(namespace.name, names.HOST)},
        "spec": {
            "accessModes": [access_mode],
            "resources": {"requests": {"storage": size}},
            **({"storageClassName": storage_class} if storage_class else {}),
        },
    }


def headless_service(namespace: ActorNamespace) -> Manifest:
    """Gives the hosts their DNS names and EndpointSlices, from which everyone learns where a host is.

    Unready hosts are in it: a host whose worker is restarting still takes connections, and calls wait there.
    """
    return make(
        namespace,
        "Service",
        names.host(namespace.name),
        names.HOST,
        spec={
            "type": "ClusterIP",
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector(namespace.name, names.HOST),
            "ports": [
                {"name": "frames", "port": names.FRAMES, "targetPort": "frames", "protocol": "TCP"},
                {"name": "internal", "port": names.INTERNAL, "targetPort": "internal", "protocol": "TCP"},
            ],
        },
    )
