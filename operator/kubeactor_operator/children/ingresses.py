"""The ingresses: pod template, Deployment, and the Services that the outside calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kubeactor_operator import names
from kubeactor_operator.children import pods
from kubeactor_operator.children.manifest import Manifest, make, present
from kubeactor_operator.spec import ActorNamespace

__all__ = ["api_service", "deployment", "public_service", "template", "url"]

# Between "is deleted" and "gets no new connections" every node has to hear of it; until then it goes on listening.
DRAIN_S: Final = 5
# From its readiness until every node sends connections of the Service to a pod.
ROUTED_S: Final = 2
TABLE_LIMIT: Final = "64Mi"


def template(namespace: ActorNamespace, bundle: pods.Bundle) -> Manifest:
    """The pod template of the ingresses, which run the same image and code as the hosts: they run the front door."""
    settings = namespace.spec.ingress
    args = ["ingress", "--kubernetes", "--data", names.TABLE_PATH, "--address", "0.0.0.0"]  # noqa: S104
    args += ["--port", str(names.HTTP), *_api_arguments(namespace), "--metrics-port", str(names.INTERNAL)]
    mount = {"name": "table", "mountPath": names.TABLE_PATH}
    main = pods.container(namespace, settings, bundle, "ingress", args, [mount])
    main["ports"] = [
        {"name": "http", "containerPort": names.HTTP, "protocol": "TCP"},
        *([{"name": "api", "containerPort": names.API, "protocol": "TCP"}] if _has_api_port(namespace) else []),
        {"name": "internal", "containerPort": names.INTERNAL, "protocol": "TCP"},
    ]
    main["livenessProbe"] = pods.http_probe("/healthz", periodSeconds=10, timeoutSeconds=5, failureThreshold=6)
    main["readinessProbe"] = pods.http_probe("/readyz", periodSeconds=2, timeoutSeconds=2, failureThreshold=3)
    if drain := min(DRAIN_S, settings.termination_grace_period_seconds // 2):
        main["lifecycle"] = {"preStop": {"sleep": {"seconds": drain}}}
    table = {"name": "table", "emptyDir": {"sizeLimit": TABLE_LIMIT}}
    spec = pods.pod_spec(namespace, settings, bundle, names.ingress(namespace.name), main, [table])
    return pods.template(namespace, settings, names.INGRESS, pods.spread(namespace, settings, names.INGRESS) | spec)


def _has_api_port(namespace: ActorNamespace) -> bool:
    return namespace.spec.front_door is not None and namespace.spec.api == "Internal"


def _api_arguments(namespace: ActorNamespace) -> list[str]:
    """Without a front door, or when the API is public too, `/v1` is on the public port. Off is port 0."""
    if namespace.spec.front_door is None or namespace.spec.api == "Public":
        return []
    return ["--api-port", str(names.API if namespace.spec.api == "Internal" else 0)]


def deployment(namespace: ActorNamespace, template: Manifest) -> Manifest:
    """The Deployment of the ingresses. Without `replicas` in the spec the field is an autoscaler's."""
    replicas = namespace.spec.ingress.replicas
    return make(
        namespace,
        "Deployment",
        names.ingress(namespace.name),
        names.INGRESS,
        api="apps/v1",
        spec={
            **({} if replicas is None else {"replicas": replicas}),
            "selector": {"matchLabels": names.selector(namespace.name, names.INGRESS)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "minReadySeconds": ROUTED_S,
            "revisionHistoryLimit": 3,
            "template": template,
        },
    )


def public_service(namespace: ActorNamespace) -> Manifest:
    """The Service of the front door, or of the API where there is none."""
    wanted = namespace.spec.ingress.service
    port = present(nodePort=wanted.ports.http.node_port)
    return make(
        namespace,
        "Service",
        names.service(namespace.name),
        names.INGRESS,
        annotations=wanted.annotations,
        spec={
            "type": wanted.type,
            "selector": names.selector(namespace.name, names.INGRESS),
            "ports": [
                {"name": "http", "port": wanted.ports.http.port, "targetPort": "http", "protocol": "TCP", **port}
            ],
            **present(loadBalancerClass=wanted.load_balancer_class),
        },
    )


def api_service(namespace: ActorNamespace) -> Manifest | None:
    """The Service of the actor API beside a front door; None when the API is public or off."""
    if not _has_api_port(namespace):
        return None
    return make(
        namespace,
        "Service",
        names.api_service(namespace.name),
        names.INGRESS,
        spec={
            "type": "ClusterIP",
            "selector": names.selector(namespace.name, names.INGRESS),
            "ports": [{"name": "api", "port": names.API_SERVICE_PORT, "targetPort": "api", "protocol": "TCP"}],
        },
    )


def url(namespace: ActorNamespace, service: Mapping[str, Any] | None = None) -> str:
    """Where the public Service is reached: its load balancer once that has an address, else its name in the cluster."""
    port = namespace.spec.ingress.service.ports.http.port
    end = "" if port == 80 else f":{port}"
    balancer = (service or {}).get("status", {}).get("loadBalancer", {}).get("ingress") or [{}]
    host = balancer[0].get("hostname") or balancer[0].get("ip") or ""
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host or f'{names.service(namespace.name)}.{namespace.namespace}.svc'}{end}"
