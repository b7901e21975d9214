"""What of the chart is made from something else is current, and nothing in it is undocumented."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "kubeactor"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("charts_generate", ROOT / "charts" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_schema_and_crds_are_as_make_chart_writes_them(generate: ModuleType) -> None:
    for path, content in generate.generated().items():
        assert path.read_bytes() == content, f"run `make chart` and commit {path.relative_to(ROOT)}"


def test_the_chart_carries_the_crds_and_no_other_file_beside_them() -> None:
    ours, theirs = ((each / "crds") for each in (CHART / "files", ROOT))
    assert {path.name: path.read_bytes() for path in ours.glob("*")} == {
        path.name: path.read_bytes() for path in theirs.glob("*.yaml")
    }


def test_a_value_without_a_comment_is_refused(generate: ModuleType) -> None:
    text = "# One.\na: 1\n\nb:\n  # Two.\n  c: {}\n  d: 3\n"
    with pytest.raises(ValueError, match=r"b\.d has no comment"):
        list(generate.values(text))
    assert list(generate.values(text.replace("  d: 3\n", ""))) == [(("a",), 1, "One."), (("b", "c"), {}, "Two.")]


def test_the_schema_describes_every_value_and_knows_no_other(generate: ModuleType) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = {value.path for value in generate.values((CHART / "values.yaml").read_text())}

    def leaves(part: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        assert part["type"] == "object"
        assert part["additionalProperties"] is False
        for name, each in part["properties"].items():
            if "description" in each:
                yield (*path, name)
            else:
                yield from leaves(each, (*path, name))

    assert set(leaves(schema)) == values | {("global",)}


def test_every_verb_of_the_operator_says_what_it_is_for() -> None:
    lines = (CHART / "templates" / "_rules.tpl").read_text().splitlines()
    verbs = [line for line in lines if re.match(r"\s+- [a-z]+\b", line)]
    assert len(verbs) > 50
    assert [line for line in verbs if not re.fullmatch(r" +- [a-z]+ # \S.{8,}", line)] == []
    assert not [line for line in lines if re.search(r"verbs: *\[", line)]
