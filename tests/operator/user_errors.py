"""What users get wrong in an ActorNamespace, and what admission answers. docs/user-errors.md has a row for each."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
from tests.harness.rest import Object

BANK: Object = {
    "apiVersion": "kubeactor.io/v1alpha1",
    "kind": "ActorNamespace",
    "metadata": {"name": "bank"},
    "spec": {"image": "bank:1", "actors": [{"binding": "ACCOUNT", "class": "bank:Account"}], "shards": 64},
}
GONE = object()


def bank(changes: dict[str, Any] | None = None, base: Object = BANK, space: str | None = None) -> Object:
    """The bank with fields changed, given as `spec.hosts.replicas`; GONE takes a field out."""
    made = copy.deepcopy(base)
    if space:
        made["metadata"]["namespace"] = space
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        node = made
        for name in parents:
            node = node.setdefault(name, {})
        if value is GONE:
            node.pop(last, None)
        else:
            node[last] = copy.deepcopy(value)
    return made


class Mistake(msgspec.Struct, frozen=True):
    """One change that admission refuses: what is set, and words of the answer.

    Attributes:
        title: of its row in the docs; several changes may be of one row.
        changes: made at once to the bank.
        says: what the answer contains.
        before: made to the bank that exists already; None when creating refuses it too.
    """

    title: str
    changes: dict[str, Any]
    says: str
    before: dict[str, Any] | None = None


def mount(path: str, pods: str = "hosts") -> dict[str, Any]:
    return {
        f"spec.{pods}.volumes": [{"name": "certificates", "emptyDir": {}}],
        f"spec.{pods}.volumeMounts": [{"name": "certificates", "mountPath": path}],
    }


STORAGE = "spec.hosts.storage"
SERVICE = "spec.ingress.service"
SHARDS = "shards never changes for the life of a namespace"
GROW = "hosts.storage.size may only grow"
CLASS = "hosts.storage.storageClassName never changes"
BALANCER = "loadBalancerClass can't change while the type is LoadBalancer"
A, B = ({"type": "LoadBalancer", "loadBalancerClass": f"example.com/{name}"} for name in "ab")

ALWAYS = [
    *(
        Mistake("A name that children can't begin with", {"metadata.name": name}, says)
        for name, says in [
            ("2nd", "begins with a lower-case letter"),
            ("my.bank", "begins with a lower-case letter"),
            ("b" * 41, "at most 40 characters"),
        ]
    ),
    Mistake("No spec", {"spec": GONE}, "spec: Required value"),
    Mistake("No actors", {"spec.actors": GONE}, "spec.actors: Required value"),
    Mistake("No actors", {"spec.actors": []}, "should have at least 1 items"),
    Mistake("A binding twice", {"spec.actors": BANK["spec"]["actors"] * 2}, "Duplicate value"),
    *(
        Mistake("A binding or class that is no name", {"spec.actors": [{"binding": binding, "class": target}]}, says)
        for binding, target, says in [
            ("account", "bank:Account", "should match '^[A-Z][A-Z0-9_]*$'"),
            ("ACCOUNT", "bank.Account", "class in body should match"),
            ("ACCOUNT", "bank:", "class in body should match"),
            ("ACCOUNT", "bank/account:Account", "class in body should match"),
        ]
    ),
    Mistake("A binding or class that is no name", {"spec.frontDoor": "app"}, "frontDoor in body should match"),
    Mistake("Neither image nor code", {"spec.image": GONE}, "set image to an image with kubeactor and your code"),
    Mistake("`version` beside `image`", {"spec.version": "0.1.0"}, "version picks the stock image"),
    Mistake(
        "`version` beside `image`",
        {"spec.image": GONE, "spec.code": {"configMap": "x"}, "spec.version": "newest"},
        "version in body should match",
    ),
    Mistake(
        "`version` beside `image`",
        {"spec.image": GONE, "spec.code": {"configMap": "x"}, "spec.version": "0.1.0+mine"},  # no tag of an image has +
        "version in body should match",
    ),
    Mistake("An image or ConfigMap that is no name", {"spec.image": "bank: 1"}, "image in body should match"),
    Mistake(
        "An image or ConfigMap that is no name", {"spec.code": {"configMap": "My_Code"}}, "configMap in body should"
    ),
    Mistake("An image or ConfigMap that is no name", {"spec.code": {}}, "spec.code.configMap: Required value"),
    Mistake("More hosts than shards", {"spec.shards": 2}, "hosts.replicas may be at most shards"),
    Mistake("More hosts than shards", {"spec.hosts.replicas": 65}, "hosts.replicas may be at most shards"),
    Mistake("`ingress.api` without a front door", {"spec.ingress.api": "Internal"}, "without frontDoor the API is all"),
    Mistake("`ingress.api` without a front door", {"spec.ingress.api": "Off"}, "without frontDoor the API is all"),
    *(
        Mistake("A size that is none", {f"{STORAGE}.size": size}, "size is a quantity of at least 32Mi")
        for size in ("big", "1 Gi", "31Mi", "-1Gi", "1GiB")
    ),
    Mistake("A Service that can't be", {f"{SERVICE}.loadBalancerClass": "x"}, "loadBalancerClass is for type LoadBal"),
    Mistake("A Service that can't be", {f"{SERVICE}.ports.http.nodePort": 30080}, "nodePort is for type NodePort"),
    Mistake("A Service that can't be", {f"{SERVICE}.ports.http.port": 65536}, "less than or equal to 65535"),
    *(
        Mistake("A label or annotation of ours", {f"spec.{pods}.{field}": {key: "x"}}, says)
        for pods in ("hosts", "ingress")
        for field, key, says in [
            ("podLabels", "kubeactor.io/namespace", "are the operator's labels"),
            ("podLabels", "app.kubernetes.io/component", "are the operator's labels"),
            ("podAnnotations", "kubeactor.io/template", "are the operator's annotations"),
        ]
    ),
    Mistake(
        "A label or annotation of ours", {f"{SERVICE}.annotations": {"kubeactor.io/applied": "x"}}, "operator's annotat"
    ),
    *(
        Mistake("A variable of ours", {"spec.env": [{"name": name, "value": "x"}]}, "are set by the operator")
        for name in ("KUBEACTOR_UID", "POD_NAME", "POD_NAMESPACE")
    ),
    Mistake("A variable twice", {"spec.env": [{"name": "FEE", "value": "1"}] * 2}, "Duplicate value"),
    Mistake("A volume or mount of ours", {"spec.hosts.volumes": [{"name": "data"}]}, "are the operator's volumes"),
    Mistake("A volume or mount of ours", {"spec.ingress.volumes": [{"name": "tmp"}]}, "are the operator's volumes"),
    Mistake("A volume or mount of ours", mount("/var/lib/kubeactor/x", "ingress"), "mountPath is absolute, and not"),
    *(
        Mistake("A volume or mount of ours", mount(path), "mountPath is absolute, and not")
        for path in ("/", "/tmp", "/data", "/data/x", "/code/", "/etc/kubeactor/peer", "/var/lib/kubeactor", "tls")
    ),
    *(
        Mistake(
            "A mount without its volume",
            {f"spec.{pods}.volumeMounts": [{"name": "x", "mountPath": "/x"}]},
            "each of volumeMounts names one of volumes",
        )
        for pods in ("hosts", "ingress")
    ),
]

UPDATES = [
    Mistake("Another number of shards", {"spec.shards": 128}, SHARDS, before={}),
    Mistake("Another number of shards", {"spec.shards": GONE}, SHARDS, before={}),
    Mistake("Another number of shards", {"spec.shards": 64}, SHARDS, before={"spec.shards": GONE}),
    Mistake("A smaller volume", {f"{STORAGE}.size": "9Gi"}, GROW, before={f"{STORAGE}.size": "10Gi"}),
    Mistake("A smaller volume", {f"{STORAGE}.size": "9999Mi"}, GROW, before={f"{STORAGE}.size": "10Gi"}),
    Mistake("A smaller volume", {f"{STORAGE}.size": GONE}, GROW, before={f"{STORAGE}.size": "10Gi"}),
    Mistake("A smaller volume", {STORAGE: GONE}, GROW, before={f"{STORAGE}.size": "10Gi"}),
    Mistake("A smaller volume", {"spec.hosts": GONE}, GROW, before={f"{STORAGE}.size": "10Gi"}),
    Mistake("Another storage class", {f"{STORAGE}.storageClassName": "b"}, CLASS, {f"{STORAGE}.storageClassName": "a"}),
    Mistake(
        "Another storage class", {f"{STORAGE}.storageClassName": GONE}, CLASS, {f"{STORAGE}.storageClassName": "a"}
    ),
    Mistake("Another storage class", {STORAGE: GONE}, CLASS, {f"{STORAGE}.storageClassName": "a"}),
    Mistake("Another storage class", {f"{STORAGE}.storageClassName": "a"}, CLASS, before={}),
    Mistake("Another class of load balancer", {SERVICE: B}, BALANCER, before={SERVICE: A}),
    Mistake("Another class of load balancer", {f"{SERVICE}.loadBalancerClass": GONE}, BALANCER, before={SERVICE: A}),
    Mistake("Another class of load balancer", {SERVICE: A}, BALANCER, before={SERVICE: {"type": "LoadBalancer"}}),
]

# For each title: how it is mended. And what admission can't see: what the user did, the reason of the condition.
MENDS = {
    "A name that children can't begin with": "At most 40 lower-case letters, digits and `-`, a letter first.",
    "No spec": "Give at least `spec.actors`, and `spec.image` or `spec.code`.",
    "No actors": "List at least one binding with its class.",
    "A binding twice": "Give the second one another name.",
    "A binding or class that is no name": "`binding: ACCOUNT`, `class: bank:Account`, `frontDoor: bank:app`.",
    "Neither image nor code": "Set `image`, or `code.configMap` to run your code in the stock image.",
    "`version` beside `image`": "Remove one of them; `version` is a release such as `0.1.0`.",
    "An image or ConfigMap that is no name": "Write it as `kubectl get configmap` or the registry shows it.",
    "More hosts than shards": "Lower `hosts.replicas`; in a new namespace you may raise `shards`.",
    "`ingress.api` without a front door": "Remove `ingress.api`, or set `frontDoor`.",
    "A size that is none": "A quantity of at least `32Mi`, such as `10Gi`.",
    "A Service that can't be": "Set `type` to what the other field is for, or remove that field.",
    "A label or annotation of ours": "Use a key of your own.",
    "A variable of ours": "Use another name.",
    "A variable twice": "Remove one of them.",
    "A volume or mount of ours": "Use another name; mount elsewhere.",
    "A mount without its volume": "Add the volume of that name beside it.",
    "Another number of shards": "Set it back. Another number needs a new namespace, since names would move.",
    "A smaller volume": "Set it back; a volume can't shrink.",
    "Another storage class": "Set it back; a volume keeps its class.",
    "Another class of load balancer": "Set `type: ClusterIP`, then the other class.",
}

CONDITIONS = {
    "A class or front door that can't be imported, or is none": "PreflightFailed",
    "A setting of the Env that is missing or wrong": "PreflightFailed",
    "An image that can't be pulled": "ImagePullFailed",
    "An image with a release of kubeactor that the operator does not speak": "UnsupportedVersion",
    "A code ConfigMap that does not exist": "CodeMissing",
    "Pod settings that Kubernetes refuses (a toleration, an affinity, a volume)": "InvalidPodSettings",
    "An object of a child's name that is not ours": "NameConflict",
    "Volumes that an earlier namespace of this name left": "VolumesOfAnotherNamespace",
    "A bigger volume of a class that can't expand": "ExpansionUnsupported",
    "New code that starts, but ends again and again": "RolloutStopped",
    "Other hosts than now, which needs shards to move": "WaitingForMoves",
    "Pods that no node takes, or a class that makes no volume": "HostUnschedulable",
    "A quota, policy or webhook that refuses a child": "RefusedByCluster",
    "Data that fills a volume": "DiskFull",
}
