"""The CRDs and the spec model are one truth: names, types, defaults, bounds; and the CRDs keep to the rules of CRDs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import inspect as shape

from kubeactor import limits
from kubeactor.ids import BINDING
from kubeactor.pod.identity import NAME
from kubeactor_operator import names, spec

CRDS = Path(__file__).resolve().parents[2] / "crds"
FILES = {path.stem: path for path in CRDS.glob("*.yaml")}
Schema = dict[str, Any]


def crd(plural: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILES[plural].read_text())
    return loaded


def schema(plural: str) -> Schema:
    (version,) = crd(plural)["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]
    return found


def walk(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    for inner, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if inner in node:
            yield from walk(node[inner], path + mark)


ROOT = schema("actornamespaces")
NODES = dict(walk(ROOT))


def test_there_are_two_and_their_names_are_those_of_the_code() -> None:
    assert FILES.keys() == {"actornamespaces", "actorplacements"} == {names.PLURAL, names.PLACEMENT_PLURAL}
    for plural, kind in ((names.PLURAL, names.KIND), (names.PLACEMENT_PLURAL, names.PLACEMENT_KIND)):
        wanted = crd(plural)["spec"]
        assert (wanted["group"], wanted["names"]["kind"], wanted["names"]["plural"]) == (names.GROUP, kind, plural)
        assert [version["name"] for version in wanted["versions"]] == [names.VERSION]
        assert wanted["scope"] == "Namespaced"


@pytest.mark.parametrize("plural", FILES)
def test_a_crd_fits_into_the_annotation_of_a_plain_kubectl_apply(plural: str) -> None:
    assert len(msgspec.json.encode(crd(plural))) < 200_000
    assert FILES[plural].stat().st_size < 200_000


@pytest.mark.parametrize("plural", FILES)
def test_every_field_is_described(plural: str) -> None:
    silent = [path for path, node in walk(schema(plural)) if "description" not in node and path[-1:] not in ("]", "}")]
    assert silent == [".metadata"]


@pytest.mark.parametrize("plural", FILES)
def test_every_column_is_described(plural: str) -> None:
    for column in crd(plural)["spec"]["versions"][0]["additionalPrinterColumns"]:
        assert column["description"].endswith(".")


def test_every_list_map_text_and_number_has_a_bound() -> None:
    for path, node in NODES.items():
        if node["type"] == "array":
            assert "maxItems" in node, path
        if node["type"] == "string" and path not in (".apiVersion", ".kind"):
            assert {"maxLength", "enum", "format"} & node.keys(), path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path
        if node["type"] == "integer":
            assert "minimum" in node, path
            assert "maximum" in node or path.startswith(".status"), path


def test_every_rule_has_a_message_that_says_what_to_do() -> None:
    rules = [rule for node in NODES.values() for rule in node.get("x-kubernetes-validations", ())]
    assert len(rules) > 15
    assert all(len(rule["message"]) > 30 for rule in rules)


def test_a_rule_that_compares_with_the_old_object_stands_on_spec_and_compares_has() -> None:
    """On a field it would not be evaluated when the field is removed: removing it and setting it anew would pass."""
    for path, node in NODES.items():
        for rule in node.get("x-kubernetes-validations", ()):
            if "oldSelf" in rule["rule"]:
                assert path == ".spec"
                assert "has(" in rule["rule"] or ".size" in rule["rule"]  # which has a default at each of its levels


def test_only_the_image_and_code_and_their_like_are_without_default() -> None:
    assert ROOT["required"] == ["spec"]
    assert NODES[".spec"]["required"] == ["actors"]
    for path in (".spec.hosts", ".spec.hosts.storage", ".spec.ingress", ".spec.ingress.service"):
        assert NODES[path]["default"] == {}


def test_hosts_and_ingresses_have_the_same_pod_settings() -> None:
    def settings(path: str) -> dict[str, Schema]:
        return {name: strip(NODES[f"{path}.{name}"]) for name in shared}

    def strip(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: strip(value) for key, value in node.items() if key != "description"}
        return node

    shared = set(NODES[".spec.hosts"]["properties"]) & set(NODES[".spec.ingress"]["properties"]) - {"replicas"}
    assert len(shared) == len(spec.PodSettings.__struct_fields__)
    assert settings(".spec.hosts") == settings(".spec.ingress")


# The model -----------------------------------------------------------------------------------------------------------

KINDS = {
    shape.StrType: "string",
    shape.IntType: "integer",
    shape.BoolType: "boolean",
    shape.DictType: "object",
    shape.StructType: "object",
    shape.VarTupleType: "array",
    shape.LiteralType: "string",
}
BOUNDS = {
    "string": {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"},
    "integer": {"ge": "minimum", "le": "maximum"},
    "array": {"min_length": "minItems", "max_length": "maxItems"},
    "object": {"max_length": "maxProperties"},
}


def compare(path: str, model: shape.Type, node: Schema, *, bounds: bool = True) -> list[str]:
    """Where they differ; empty when they agree."""
    if isinstance(model, shape.UnionType):
        (model,) = (one for one in model.types if not isinstance(one, shape.NoneType))
    kind = KINDS[type(model)]
    if node["type"] != kind:
        return [f"{path}: {kind} in the model, {node['type']} in the CRD"]
    found = []
    for ours, theirs in BOUNDS.get(kind, {}).items() if bounds else ():
        if getattr(model, ours, None) != node.get(theirs):
            found.append(
                f"{path}: {theirs} is {getattr(model, ours, None)} in the model, {node.get(theirs)} in the CRD"
            )
    if isinstance(model, shape.LiteralType) and set(model.values) != set(node["enum"]):
        found.append(f"{path}: enum")
    if isinstance(model, shape.DictType):
        raw = isinstance(model.value_type, shape.AnyType)
        if raw != node.get("x-kubernetes-preserve-unknown-fields", False):
            found.append(f"{path}: a nested Kubernetes type in one of them only")
        if not raw:
            found += compare(path + "{}", model.value_type, node["additionalProperties"], bounds=bounds)
    if isinstance(model, shape.VarTupleType):
        found += compare(path + "[]", model.item_type, node["items"], bounds=bounds)
    if isinstance(model, shape.StructType):
        found += compare_fields(path, model, node, bounds=bounds)
    return found


def compare_fields(path: str, model: shape.StructType, node: Schema, *, bounds: bool) -> list[str]:
    fields = {field.encode_name: field for field in model.fields}
    found = [f"{path}.{name}: in one of them only" for name in fields.keys() ^ node["properties"].keys()]
    if bounds and {name for name, field in fields.items() if field.required} != set(node.get("required", ())):
        found.append(f"{path}: required")
    for name in fields.keys() & node["properties"].keys():
        field, theirs = fields[name], node["properties"][name]
        found += compare(f"{path}.{name}", field.type, theirs, bounds=bounds)
        nullable = isinstance(field.type, shape.UnionType) and field.default is not None
        if nullable != theirs.get("nullable", False):
            found.append(f"{path}.{name}: nullable")
        if bounds and default_of(field) != theirs.get("default"):
            found.append(f"{path}.{name}: default is {default_of(field)!r}, in the CRD {theirs.get('default')!r}")
    return found


def default_of(field: shape.Field) -> Any:
    """As the CRD writes it: nothing for what may be absent, {} for what is made of the defaults within."""
    if isinstance(field.default, msgspec.Struct):
        return {}
    return None if field.default in (msgspec.NODEFAULT, (), {}, None) else field.default


def test_the_spec_is_the_model_field_by_field() -> None:
    assert compare(".spec", shape.type_info(spec.Spec), NODES[".spec"]) == []


def test_the_status_is_the_model_field_by_field() -> None:
    assert compare(".status", shape.type_info(spec.Status), NODES[".status"], bounds=False) == []


def test_the_comparison_sees_a_difference_in_every_respect() -> None:
    def differences(path: str, **change: Any) -> list[str]:
        changed = yaml.safe_load(yaml.safe_dump(NODES[".spec"]))
        node = changed
        for name in path.split("."):
            node = node["properties"][name]
        node |= change
        return compare(".spec", shape.type_info(spec.Spec), changed)

    for path, change in {
        "shards": {"maximum": 5},
        "hosts.replicas": {"default": 2},
        "image": {"maxLength": 1},
        "limits": {"properties": {}},
        "frontDoor": {"type": "integer"},
        "ingress.api": {"enum": ["Off"]},
        "ingress.replicas": {"nullable": False},
        "code": {"required": []},
        "actors": {"maxItems": 1},
        "hosts.affinity": {"x-kubernetes-preserve-unknown-fields": False},
        "hosts.podLabels": {"additionalProperties": {"type": "string", "maxLength": 1}},
    }.items():
        assert differences(path, **change), path
    assert differences("shards") == []


def test_bounds_that_the_library_has_too_are_the_same() -> None:
    assert NODES[".spec.shards"]["maximum"] == limits.SHARDS_MAX
    assert NODES[".spec.shards"]["default"] == limits.SHARDS_DEFAULT
    assert NODES[".spec.limits.methodTimeoutSeconds"]["default"] == limits.METHOD_TIMEOUT_S
    assert NODES[".spec.limits.methodTimeoutSeconds"]["maximum"] == limits.CALL_MAX_S
    binding = NODES[".spec.actors[].binding"]
    assert f"{binding['pattern'].strip('^$').removesuffix('*')}{{0,{binding['maxLength'] - 1}}}" == BINDING.pattern


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        *((name, True) for name in ("a", "bank", "bank-2", "b" * 40)),
        *((name, False) for name in ("", "-a", "a-", "2a", "A", "a.b", "a_b", "b" * 41)),
    ],
)
def test_a_name_that_the_crd_takes_is_one_that_a_pod_takes(name: str, valid: bool) -> None:
    (rule,) = ROOT["x-kubernetes-validations"]
    found = re.search(r"matches\('(.*)'\) && size\(self.metadata.name\) <= (\d+)", rule["rule"])
    assert found is not None
    by_crd = bool(re.fullmatch(found[1], name)) and len(name) <= int(found[2])
    assert by_crd is bool(NAME.fullmatch(name)) is valid


def test_a_table_is_not_pruned_and_needs_nothing_but_its_format() -> None:
    table = schema("actorplacements")["properties"]["spec"]
    assert table["x-kubernetes-preserve-unknown-fields"]
    assert table["required"] == ["format"] == list(table["properties"])
