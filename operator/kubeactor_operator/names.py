"""Every name, label, annotation and port by which the operator and its children know each other.

One place, since they are part of what an upgrade must keep: a StatefulSet's selector and a claim's name never change.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "API_VERSION",
    "APPLIED",
    "FORGET",
    "GROUP",
    "KIND",
    "LAST_GOOD",
    "NAMESPACE_LABEL",
    "PAUSED",
    "PLACED",
    "PLACEMENT_KIND",
    "TEMPLATE",
    "VERSION",
    "api_service",
    "claim",
    "code_config_map",
    "host",
    "host_id",
    "ingress",
    "labels",
    "peer_secret",
    "pod",
    "preflight",
    "selector",
    "service",
]

GROUP: Final = "kubeactor.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "ActorNamespace"
PLURAL: Final = "actornamespaces"
PLACEMENT_KIND: Final = "ActorPlacement"
PLACEMENT_PLURAL: Final = "actorplacements"
FIELD_MANAGER: Final = "kubeactor"

# Annotations of an ActorNamespace, written by users and by `kubeactor forget`: one for each host, `...forget-host-1`.
PAUSED: Final = "kubeactor.io/paused"
FORGET: Final = "kubeactor.io/forget-"
# Of an ActorNamespace too, written by us: its uid, once its shards were granted or are about to be.
PLACED: Final = "kubeactor.io/placed"
# Of a pod template: its hash. Of the StatefulSet: the template that last served on every host, as JSON.
TEMPLATE: Final = "kubeactor.io/template"
LAST_GOOD: Final = "kubeactor.io/last-good-template"
# Of every child that is applied: the hash of the manifest, so that a field taken out of it is noticed too.
APPLIED: Final = "kubeactor.io/applied"
# Of the StatefulSet: a template on which a host did not come back, and when each host's pod was deleted to heal it.
FAILED: Final = "kubeactor.io/failed-template"
# Of the StatefulSet: a hash of what its template was made from. Another release may make another template of the same.
MADE_FROM: Final = "kubeactor.io/made-from"
HEALED: Final = "kubeactor.io/healed"
# Of the Deployment, since it outlives a StatefulSet that somebody deletes: the hash of the template that last served on
# every host.
SERVED: Final = "kubeactor.io/served-template"
# Of an ActorNamespace: any new text rotates the peer credentials. Of the Secret: which text is under way, and done.
ROTATE: Final = "kubeactor.io/rotate-peer"
ROTATING: Final = "kubeactor.io/rotating"
ROTATED: Final = "kubeactor.io/rotated"

NAMESPACE_LABEL: Final = "kubeactor.io/namespace"
HOST: Final = "host"
INGRESS: Final = "ingress"
PREFLIGHT: Final = "preflight"

FRAMES: Final = 7000
HTTP: Final = 8080
API: Final = 8081
INTERNAL: Final = 9090
API_SERVICE_PORT: Final = 8081  # of the Service `<name>-api`: what clients connect to

CLAIM_TEMPLATE: Final = "data"
DATA_PATH: Final = "/data"
TABLE_PATH: Final = "/var/lib/kubeactor"
CODE_PATH: Final = "/code"
APP_PATH: Final = "/app"
PEER_PATH: Final = "/etc/kubeactor/peer"
USER_ID: Final = 65532

_HOST_POD: Final = re.compile(r"(?P<name>.+)-host-(?P<ordinal>0|[1-9][0-9]{0,3})")


def host(name: str) -> str:
    """The StatefulSet, headless Service, ServiceAccount, Role, PodDisruptionBudget and NetworkPolicy of the hosts."""
    return f"{name}-host"


def ingress(name: str) -> str:
    """The Deployment, ServiceAccount, Role and PodDisruptionBudget of the ingresses."""
    return f"{name}-ingress"


def service(name: str) -> str:
    """The Service that the outside calls."""
    return name


def api_service(name: str) -> str:
    """The Service of the actor API, when a front door has the public one."""
    return f"{name}-api"


def peer_secret(name: str) -> str:
    """The Secret with the credentials that hosts, ingresses and the operator accept from each other."""
    return f"{name}-peer"


def code_config_map(name: str, digest: str) -> str:
    """The immutable copy of the user's code ConfigMap."""
    return f"{name}-code-{digest}"


def preflight(name: str, digest: str) -> str:
    """The pod that tries a template."""
    return f"{name}-preflight-{digest}"


def pod(name: str, host_id: str) -> str:
    """The pod of a host: `host-2` of `bank` is `bank-host-2`."""
    return f"{name}-{host_id}"


def claim(name: str, host_id: str) -> str:
    """The PersistentVolumeClaim of a host: `data-bank-host-2`."""
    return f"{CLAIM_TEMPLATE}-{pod(name, host_id)}"


def host_id(name: str, pod_name: str) -> str | None:
    """The host id of a pod (`host-2` for `bank-host-2`); None when it is no host of that namespace."""
    match = _HOST_POD.fullmatch(pod_name)
    return f"host-{match['ordinal']}" if match and match["name"] == name else None


def labels(name: str, component: str | None = None) -> dict[str, str]:
    """The labels of a child; those of the ActorNamespace are not copied, since GitOps tools would claim the child."""
    return {
        "app.kubernetes.io/name": "kubeactor",
        "app.kubernetes.io/instance": name,
        **({"app.kubernetes.io/component": component} if component else {}),
        "app.kubernetes.io/managed-by": "kubeactor",
        NAMESPACE_LABEL: name,
    }


def selector(name: str, component: str) -> dict[str, str]:
    """The labels by which Services, budgets and workloads find the pods. Immutable in a StatefulSet: never change."""
    return {NAMESPACE_LABEL: name, "app.kubernetes.io/component": component}


def selector_text(name: str, component: str) -> str:
    """The same as the API takes it in a query, and as `status.selector` has it for `scale`."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector(name, component).items()))
