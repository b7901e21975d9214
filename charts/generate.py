"""What is made from the chart or for it: a copy of crds/, a README, the schema's descriptions, the table of its rules.

The comments in values.yaml are the one place where a value is documented. `make chart` runs this, tests compare.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

__all__ = ["CHART", "Value", "generated", "values"]

CHART: Final = Path(__file__).parent / "kubeactor"
CRDS: Final = CHART.parents[1] / "crds"
SECURITY: Final = CHART.parents[1] / "docs" / "security.md"

MARK: Final = "<!-- The rules of the chart, written here by `make chart`. -->"
HEAD: Final = """\
# The kubeactor chart

{description}. How to install, upgrade and uninstall it: [docs/helm.md](../../docs/helm.md); what its roles allow:
[docs/security.md](../../docs/security.md).

```sh
helm install kubeactor charts/kubeactor -n kubeactor-system --create-namespace
```

Kubernetes {kubernetes} or newer, Helm 4. Wrong values are refused by `values.schema.json` before anything is sent.

## Values

<!-- Made from the comments in values.yaml by `make chart`. -->

| value | default | what it is |
| --- | --- | --- |
"""


class Value(NamedTuple):
    """One value of the chart."""

    path: tuple[str, ...]
    default: Any
    comment: str


def values(text: str) -> Iterator[Value]:
    """Every value of a values.yaml with the comment above it; a mapping in block style is a section of such.

    Raises:
        ValueError: when a value has no comment.
    """
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    yield from _section(root, (), lines)


def _section(node: yaml.MappingNode, parents: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    for key, value in node.value:
        path = (*parents, str(key.value))
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _section(value, path, lines)
            continue
        comment = _comment(lines, key.start_mark.line)
        if not comment:
            raise ValueError(f"values.yaml: {'.'.join(path)} has no comment above it")
        yield Value(path, _plain(value), comment)


def _plain(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node, Dumper=yaml.SafeDumper))


def _comment(lines: list[str], line: int) -> str:
    """The lines of comment directly above one."""
    first = line
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(each.strip().removeprefix("#").strip() for each in lines[first:line])


def readme(chart: dict[str, Any], found: list[Value]) -> str:
    """The chart's README."""
    kubernetes = re.search(r"\d+\.\d+", chart["kubeVersion"])
    assert kubernetes
    head = HEAD.format(description=chart["description"], kubernetes=kubernetes[0])
    rows = (
        f"| `{'.'.join(each.path)}` | `{json.dumps(each.default)}` | {each.comment.replace('|', chr(92) + '|')} |\n"
        for each in found
    )
    return head + "".join(rows)


def described(schema: dict[str, Any], found: list[Value]) -> str:
    """The schema with the values' comments as descriptions."""
    for value in found:
        part = schema
        for name in value.path:
            part = part["properties"][name]
        part.pop("description", None)
        rest = dict(part)
        part.clear()
        part.update({"description": value.comment}, **rest)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def rules(name: str) -> list[dict[str, list[str]]]:
    """The operator's rules of that name, as the chart's template has them."""
    text = (CHART / "templates" / "_rules.tpl").read_text()
    after = text.partition(f'{{{{- define "kubeactor.{name}" -}}}}\n')[2]
    read: list[dict[str, list[str]]] = yaml.safe_load(after.partition("{{- end }}")[0])
    return read


def security(page: str) -> str:
    """The page with the table of the rules; the mark above it says where."""
    return re.sub(rf"(?<={re.escape(MARK)}\n\n)(\|.*\n)*", _table(), page)


def _table() -> str:
    text = "| resources | group | verbs | in |\n| --- | --- | --- | --- |\n"
    for name, where in (("rules", "each namespace"), ("clusterRules", "a cluster-wide install only")):
        for rule in rules(name):
            cells = (", ".join(rule["resources"]), rule["apiGroups"][0] or "core", ", ".join(rule["verbs"]), where)
            text += f"| {' | '.join(cells)} |\n"
    return text


def generated() -> dict[Path, bytes]:
    """Every file that is made, with what it must hold."""
    found = list(values((CHART / "values.yaml").read_text()))
    schema = CHART / "values.schema.json"
    files = {
        CHART / "README.md": readme(yaml.safe_load((CHART / "Chart.yaml").read_text()), found).encode(),
        SECURITY: security(SECURITY.read_text()).encode(),
        schema: described(json.loads(schema.read_text()), found).encode(),
    }
    return files | {CHART / "files" / "crds" / each.name: each.read_bytes() for each in CRDS.glob("*.yaml")}


def main() -> None:
    """Write them, and remove copies of CRDs that are no more."""
    files = generated()
    for copy in (CHART / "files" / "crds").glob("*.yaml"):
        if copy not in files:
            copy.unlink()
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
