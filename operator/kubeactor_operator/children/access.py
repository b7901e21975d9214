"""What the pods may do at the API server: read their own placement table and where the hosts are, nothing else."""

from __future__ import annotations

from kubeactor_operator import names
from kubeactor_operator.children.manifest import Manifest, make
from kubeactor_operator.spec import ActorNamespace

__all__ = ["role", "role_binding", "service_account"]

_RBAC = "rbac.authorization.k8s.io"
_NAMES = {names.HOST: names.host, names.INGRESS: names.ingress}


def service_account(namespace: ActorNamespace, component: str) -> Manifest | None:
    """The account of the hosts or ingresses; None when the user names one of their own."""
    if _own_account(namespace, component):
        return None
    return make(namespace, "ServiceAccount", _NAMES[component](namespace.name), component)


def role(namespace: ActorNamespace, component: str) -> Manifest:
    """A watch by name needs `fieldSelector=metadata.name=...`: the list of all tables is refused."""
    read = ["get", "list", "watch"]
    return make(
        namespace,
        "Role",
        _NAMES[component](namespace.name),
        component,
        api=f"{_RBAC}/v1",
        rules=[
            {
                "apiGroups": [names.GROUP],
                "resources": [names.PLACEMENT_PLURAL],
                "resourceNames": [namespace.name],
                "verbs": read,
            },
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        ],
    )


def role_binding(namespace: ActorNamespace, component: str) -> Manifest:
    """Binds the role to whichever account the pods have: the user's own needs it too."""
    name = _NAMES[component](namespace.name)
    account = _own_account(namespace, component) or name
    return make(
        namespace,
        "RoleBinding",
        name,
        component,
        api=f"{_RBAC}/v1",
        roleRef={"apiGroup": _RBAC, "kind": "Role", "name": name},
        subjects=[{"kind": "ServiceAccount", "name": account, "namespace": namespace.namespace}],
    )


def _own_account(namespace: ActorNamespace, component: str) -> str | None:
    settings = namespace.spec.hosts if component == names.HOST else namespace.spec.ingress
    return settings.service_account_name
