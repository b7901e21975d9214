"""What pods mount: the copied code and the peer credentials."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from kubeactor_operator import names
from kubeactor_operator.children.manifest import Manifest, digest, make, present
from kubeactor_operator.spec import ActorNamespace

__all__ = ["code_config_map", "code_hash", "peer_credentials", "peer_secret"]


def code_hash(source: Mapping[str, Any]) -> str:
    """Tells one content of the user's code ConfigMap from another; nothing but its data counts."""
    return digest(_content(source))


def code_config_map(namespace: ActorNamespace, source: Mapping[str, Any]) -> Manifest:
    """The immutable copy that a template names: code changes by a rollout only, and goes back with it."""
    name = names.code_config_map(namespace.name, code_hash(source))
    return make(namespace, "ConfigMap", name, immutable=True, **_content(source))


def _content(source: Mapping[str, Any]) -> Manifest:
    return present(data=source.get("data"), binaryData=source.get("binaryData"))


def peer_secret(namespace: ActorNamespace, current: str, previous: str) -> Manifest:
    """The credentials that hosts and ingresses present (`current`) and accept (both). Created once."""
    values = {"current": current, "previous": previous}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return make(namespace, "Secret", names.peer_secret(namespace.name), type="Opaque", data=data)


def peer_credentials(secret: Mapping[str, Any]) -> tuple[str, str]:
    """(current, previous) of the Secret; empty text for a key that is missing or no base64."""
    return _decoded(secret, "current"), _decoded(secret, "previous")


def _decoded(secret: Mapping[str, Any], key: str) -> str:
    try:
        return base64.b64decode((secret.get("data") or {}).get(key, ""), validate=True).decode()
    except ValueError:  # binascii.Error and UnicodeDecodeError are both
        return ""
