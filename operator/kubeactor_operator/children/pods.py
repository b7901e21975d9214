"""What the pods of hosts, ingresses and the preflight share: security, environment, code, the user's settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from kubeactor_operator import names
from kubeactor_operator.children.manifest import Manifest, digest, present
from kubeactor_operator.spec import ActorNamespace, PodSettings

__all__ = ["Bundle", "container", "http_probe", "pod_spec", "template", "template_hash"]

TMP_LIMIT: Final = "1Gi"


class Bundle(msgspec.Struct, frozen=True):
    """What hosts, ingresses and the preflight pod run: one image, and the hash of the copied code if there is any."""

    image: str
    code: str | None = None


def template(namespace: ActorNamespace, settings: PodSettings, component: str, spec: Manifest) -> Manifest:
    """A pod template, with its hash in an annotation, so that each pod tells which template it runs."""
    labels = settings.pod_labels | names.labels(namespace.name, component)
    annotations = dict(settings.pod_annotations)
    made: Manifest = {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}
    annotations[names.TEMPLATE] = digest(made)
    return made


def template_hash(template: Manifest) -> str:
    """The hash of a template or of a pod made from it; empty when it has none."""
    found: str = template.get("metadata", {}).get("annotations", {}).get(names.TEMPLATE, "")
    return found


def pod_spec(
    namespace: ActorNamespace,
    settings: PodSettings,
    bundle: Bundle,
    account: str,
    main: Manifest,
    volumes: Sequence[Manifest],
) -> Manifest:
    """The pod around one container, under the `restricted` pod security standard."""
    code = names.code_config_map(namespace.name, bundle.code) if bundle.code else None
    return {
        "serviceAccountName": settings.service_account_name or account,
        "automountServiceAccountToken": True,  # also of a user's account that says otherwise: the table is read by it
        "enableServiceLinks": False,  # else each Service of the namespace sets variables, which an Env may read by name
        "terminationGracePeriodSeconds": settings.termination_grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": names.USER_ID,
            "runAsGroup": names.USER_ID,
            "fsGroup": names.USER_ID,  # a CSI disk comes owned by root; local-path hides that
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [main],
        "volumes": [
            {"name": "peer", "secret": {"secretName": names.peer_secret(namespace.name), "defaultMode": 0o440}},
            {"name": "tmp", "emptyDir": {"sizeLimit": TMP_LIMIT}},
            *([{"name": "code", "configMap": {"name": code}}] if code else []),
            *volumes,
            *settings.volumes,
        ],
        **_scheduling(settings),
    }


def _scheduling(settings: PodSettings) -> Manifest:
    return present(
        nodeSelector=settings.node_selector,
        affinity=settings.affinity,
        tolerations=list(settings.tolerations),
        topologySpreadConstraints=list(settings.topology_spread_constraints),
        priorityClassName=settings.priority_class_name,
        runtimeClassName=settings.runtime_class_name,
        imagePullSecrets=[{"name": secret.name} for secret in settings.image_pull_secrets],
    )


def spread(namespace: ActorNamespace, settings: PodSettings, component: str) -> Manifest:
    """Over the nodes where that is possible, unless the user says otherwise: one lost node takes one host."""
    if settings.topology_spread_constraints or settings.affinity:
        return {}
    constraint = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": names.selector(namespace.name, component)},
    }
    return {"topologySpreadConstraints": [constraint]}


def container(
    namespace: ActorNamespace,
    settings: PodSettings,
    bundle: Bundle,
    name: str,
    args: Sequence[str],
    mounts: Sequence[Manifest],
) -> Manifest:
    """The one container of a pod, which runs `kubeactor` with those arguments and the user's code, env and mounts."""
    code = [{"name": "code", "mountPath": names.CODE_PATH, "readOnly": True}] if bundle.code else []
    return {
        "name": name,
        "image": bundle.image,
        "args": [*args, *namespace.spec.program],
        "env": _environment(namespace, bundle),
        "volumeMounts": [
            {"name": "peer", "mountPath": names.PEER_PATH, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  (of the container, whose root is read-only)
            *code,
            *mounts,
            *settings.volume_mounts,
        ],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **present(
            workingDir=names.CODE_PATH if bundle.code else None,
            envFrom=list(namespace.spec.env_from),
            imagePullPolicy=settings.image_pull_policy,
            resources=settings.resources,
        ),
    }


def _environment(namespace: ActorNamespace, bundle: Bundle) -> list[Manifest]:
    """Ours first, so that the user's may refer to it by `$(POD_NAME)`; of PYTHONPATH the user's own is taken."""
    limits = namespace.spec.limits
    values = {
        "KUBEACTOR_NAME": namespace.name,
        "KUBEACTOR_UID": namespace.uid,
        "KUBEACTOR_SHARDS": str(namespace.spec.shards),
        "KUBEACTOR_PEER_DIR": names.PEER_PATH,
        "KUBEACTOR_METHOD_TIMEOUT_S": str(limits.method_timeout_seconds),
        "KUBEACTOR_ALARM_TIMEOUT_S": str(limits.alarm_timeout_seconds),
    }
    if namespace.spec.hosts.storage.adopt:
        values["KUBEACTOR_ADOPT"] = "true"
    if bundle.code and not any(one.get("name") == "PYTHONPATH" for one in namespace.spec.env):
        values["PYTHONPATH"] = f"{names.CODE_PATH}:{names.APP_PATH}"
    pod = [_field("POD_NAME", "metadata.name"), _field("POD_NAMESPACE", "metadata.namespace")]
    return [*pod, *({"name": name, "value": value} for name, value in values.items()), *namespace.spec.env]


def _field(name: str, path: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def http_probe(path: str, **settings: Any) -> Manifest:
    """A probe of the internal port."""
    return {"httpGet": {"path": path, "port": "internal"}, **settings}
