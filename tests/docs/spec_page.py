# ruff: noqa: E501 (its lines are those of a page)
"""docs/kubernetes-spec.md, made from the CRDs and the reasons of conditions: `python -m tests.docs.spec_page`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from kubeactor_operator.conditions import REASONS, TYPES
from kubeactor_operator.spec import PodSettings

__all__ = ["PAGE", "render"]

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "kubernetes-spec.md"
Schema = dict[str, Any]
POD_SETTINGS: Final = frozenset(field for field in PodSettings.__struct_encode_fields__)

TEXT: Final = """# ActorNamespace

Made from `crds/` and `kubeactor_operator/conditions.py` by `make docs`; do not edit it here.

```yaml
{example}```

`kubectl explain actorns.spec.hosts` shows the same in a terminal, `kubectl get actorns` whether it is well, and
`kubectl describe actorns bank` why not. What can be wrong with it: [user-errors.md](user-errors.md). Bold fields are required.
`kubectl scale actorns bank --replicas=5` sets `hosts.replicas`.

## spec
| field | type | default | |
| --- | --- | --- | --- |
{spec}

### Pod settings
In `hosts` and in `ingress`.

| field | type | default | |
| --- | --- | --- | --- |
{pods}

- `ingress.replicas: null` leaves the number to an autoscaler. Give it when the namespace is made, or by `kubectl apply --server-side`:
  a plain `kubectl apply` of an existing one takes null for "remove the field", and the default comes back.
- The annotation `kubeactor.io/paused: "true"` stops the operator from changing anything.
- Labels of the ActorNamespace are not copied to its children; `podLabels` and `podAnnotations` are.

## status
| field | type | |
| --- | --- | --- |
{status}

## Conditions
| type | meaning |
| --- | --- |
{types}

### Reasons
| reason | condition | meaning | what to do |
| --- | --- | --- | --- |
{reasons}

# ActorPlacement
{placement} `kubectl get actorpl -o wide` shows it.
"""


def render() -> str:
    """The page's text."""
    root = _schema("actornamespaces")
    fields = dict(_fields(root["properties"]["spec"]))
    spec = [_row(*one) for one in fields.items() if not _is_pod_setting(one[0])]
    pods = [
        _row(path.removeprefix("hosts."), one).replace("the host pods", "the pods")
        for path, one in fields.items()
        if path.startswith("hosts.") and _is_pod_setting(path)
    ]
    status = [
        f"| `{path}` | {_type(node)} | {node['description']} |"
        for path, (node, _) in _fields(root["properties"]["status"])
    ]
    return TEXT.format(
        example=_example(),
        spec="\n".join(spec),
        pods="\n".join(pods),
        status="\n".join(status),
        types="\n".join(f"| `{name}` | {meaning} |" for name, meaning in TYPES.items()),
        reasons="\n".join(
            f"| `{one.name}` | `{one.type}={one.status}` | {one.meaning} | {one.mend} |" for one in REASONS.values()
        ),
        placement=_schema("actorplacements")["description"],
    )


def _example() -> str:
    """The namespace of the example bank, without the ConfigMap that has its code."""
    return (ROOT / "examples" / "01-bank" / "namespace.yaml").read_text().split("---\n")[-1]


def _schema(plural: str) -> Schema:
    crd = yaml.safe_load((ROOT / "crds" / f"{plural}.yaml").read_text())
    found: Schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def _fields(node: Schema, path: str = "") -> Iterator[tuple[str, tuple[Schema, bool]]]:
    for name, child in node.get("properties", {}).items():
        yield path + name, (child, name in node.get("required", ()))
        inner = child["items"] if child["type"] == "array" else child
        yield from _fields(inner, f"{path}{name}{'[]' if inner is not child else ''}.")


def _is_pod_setting(path: str) -> bool:
    parts = path.replace("[]", "").split(".")
    return len(parts) > 1 and parts[0] in ("hosts", "ingress") and parts[1] in POD_SETTINGS


def _row(path: str, field: tuple[Schema, bool]) -> str:
    node, required = field
    name = f"**`{path}`**" if required else f"`{path}`"
    default = node.get("default")
    shown = "" if default in (None, {}) else f"`{yaml.safe_dump(default).partition(chr(10))[0]}`"
    return f"| {name} | {_type(node)} | {shown} | {node['description']} |"


def _type(node: Schema) -> str:
    if "enum" in node:
        return ", ".join(f"`{one}`" for one in node["enum"])
    if "additionalProperties" in node:
        return f"map of text, at most {node['maxProperties']}"
    if node["type"] == "array":
        return f"list, at most {node['maxItems']}"
    if node["type"] == "integer":
        low, high = node.get("minimum"), node.get("maximum")
        text = "integer" if high is None else f"integer, {low} to {high}"
        return text + (", or null" if node.get("nullable") else "")
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return "as in Kubernetes"
    return {"string": "text", "boolean": "boolean", "object": ""}[node["type"]]


if __name__ == "__main__":
    PAGE.write_text(render())
