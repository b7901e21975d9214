"""`kubeactor init`: what it writes and what it refuses. tests/wheel runs it from an installed wheel."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.harness.program import COMMAND, ENVIRONMENT, refused

from kubeactor.project import Project, read_project
from kubeactor.scaffold import ScaffoldError, create

ROOT = Path(__file__).resolve().parents[1]


def printed(*arguments: str, folder: Path) -> str:
    result = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout


def test_it_prints_the_next_steps_and_what_it_wrote_can_be_served(tmp_path: Path) -> None:
    assert printed("init", "bank", folder=tmp_path).splitlines() == ["cd bank", "kubeactor dev", "pytest"]
    folder = tmp_path / "bank"
    assert {path.name for path in folder.iterdir()} == {"bank.py", "test_bank.py", "namespace.yaml", "pyproject.toml"}
    assert read_project(folder) == Project(folder, "bank:Bank")
    assert "ACCOUNT  bank:Account" in printed("check", folder=folder)
    assert sum(len(path.read_text().splitlines()) for path in folder.iterdir()) < 120


@pytest.mark.parametrize(
    ("name", "label", "env"),
    [("my_bank2", "my-bank2", "MyBank2"), ("account", "account", "AccountEnv"), ("key", "key", "KeyEnv")],
)
def test_any_name_gives_a_program_that_can_be_served(tmp_path: Path, name: str, label: str, env: str) -> None:
    create(name, tmp_path)
    project = tomllib.loads((tmp_path / name / "pyproject.toml").read_text())
    assert (project["project"]["name"], project["tool"]["kubeactor"]["env"]) == (label, f"{name}:{env}")
    assert f"ACCOUNT  {name}:Account" in printed("check", folder=tmp_path / name)


def fits(value: Any, schema: dict[str, Any], path: str = "$") -> None:
    """Every field is one that the schema has, of its kind, and none that it wants is missing."""
    if isinstance(value, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        assert set(schema.get("required", [])) <= set(value), path
        for name, item in value.items():
            assert name in schema["properties"], f"{path}.{name}"
            fits(item, schema["properties"][name], f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            fits(item, schema["items"], f"{path}[]")


def test_the_namespace_is_one_that_the_cluster_takes(tmp_path: Path) -> None:
    create("my_bank", tmp_path)
    namespace = yaml.safe_load((tmp_path / "my_bank" / "namespace.yaml").read_text())
    crd = yaml.safe_load((ROOT / "crds" / "actornamespaces.yaml").read_text())
    version = crd["spec"]["versions"][0]
    assert namespace["apiVersion"] == f"{crd['spec']['group']}/{version['name']}"
    assert namespace["kind"] == crd["spec"]["names"]["kind"]
    assert namespace["metadata"]["name"] == "my-bank"
    fits(namespace["spec"], version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    assert namespace["spec"]["actors"] == [{"binding": "ACCOUNT", "class": "my_bank:Account"}]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("My-Bank", "as in 'my_bank'"),
        ("1bank", "as in 'bank'"),
        ("bank/../x", "as in 'bank_x'"),
        ("_", "can't be a module's name"),
        ("", "can't be a module's name"),
        ("a" * 41, "at most 40"),
        ("class", "a meaning of its own"),
        ("match", "a meaning of its own"),
        ("test_bank", "a meaning of its own"),
        ("json", "an installed module"),
        ("msgspec", "an installed module"),
    ],
)
def test_a_name_that_would_not_work_is_refused_and_another_proposed(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ScaffoldError, match=says) as caught:
        create(name, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bank").mkdir()
    assert refused("init", "bank", folder=tmp_path) == (
        "kubeactor: there is a bank here already: choose another name\n"
    )
    assert not list((tmp_path / "bank").iterdir())


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScaffoldError, match="can't be written: No such file"):
        create("bank", tmp_path / "nowhere")
