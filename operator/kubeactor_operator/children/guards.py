"""What keeps others from harming the pods: disruption budgets and the network policy of the hosts."""

from __future__ import annotations

from kubeactor_operator import names
from kubeactor_operator.children.manifest import Manifest, make
from kubeactor_operator.spec import ActorNamespace

__all__ = ["host_budget", "ingress_budget", "network_policy"]


def host_budget(namespace: ActorNamespace, replicas: int) -> Manifest | None:
    """Drains take one host at a time; None with one replica, which a budget could only get stuck."""
    return _budget(namespace, names.host(namespace.name), names.HOST) if replicas > 1 else None


def ingress_budget(namespace: ActorNamespace) -> Manifest | None:
    """The same for ingresses; an autoscaler's number is not known, so then there is one."""
    replicas = namespace.spec.ingress.replicas
    if replicas is not None and replicas < 2:
        return None
    return _budget(namespace, names.ingress(namespace.name), names.INGRESS)


def _budget(namespace: ActorNamespace, name: str, component: str) -> Manifest:
    return make(
        namespace,
        "PodDisruptionBudget",
        name,
        component,
        api="policy/v1",
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",  # a host that crashes in a loop must not block a drain
            "selector": {"matchLabels": names.selector(namespace.name, component)},
        },
    )


def network_policy(namespace: ActorNamespace) -> Manifest | None:
    """Frames come from this namespace's hosts and ingresses only; None when the user switched it off.

    The internal port is open to all: Prometheus and the operator may live anywhere, and all but the metrics and the
    health paths asks for the peer credentials.
    """
    if not namespace.spec.hosts.network_policy:
        return None
    peers = {
        "matchLabels": {names.NAMESPACE_LABEL: namespace.name},
        "matchExpressions": [
            {"key": "app.kubernetes.io/component", "operator": "In", "values": [names.HOST, names.INGRESS]}
        ],
    }
    return make(
        namespace,
        "NetworkPolicy",
        names.host(namespace.name),
        names.HOST,
        api="networking.k8s.io/v1",
        spec={
            "podSelector": {"matchLabels": names.selector(namespace.name, names.HOST)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": peers}], "ports": [{"protocol": "TCP", "port": "frames"}]},
                {"ports": [{"protocol": "TCP", "port": "internal"}]},
            ],
        },
    )
