"""The bank of the README: what `kubectl apply -f examples/01-bank/namespace.yaml` sends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from kubeactor.application import Application
from kubeactor_operator import names
from kubeactor_operator.children import ingresses
from kubeactor_operator.spec import ActorNamespace

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "01-bank"


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / "namespace.yaml").read_text()))


def read() -> ActorNamespace:
    body = documents()[1]
    return ActorNamespace.of(body | {"metadata": body["metadata"] | {"namespace": "default", "uid": "5a7c"}})


def test_its_code_is_the_examples_to_the_byte() -> None:
    code = documents()[0]
    assert code["kind"] == "ConfigMap"
    assert code["data"] == {"bank.py": (FOLDER / "bank.py").read_text()}, "run: make docs"


def test_it_runs_that_code_in_the_stock_image() -> None:
    spec = read().spec
    assert spec.image is None
    assert spec.code is not None
    assert spec.code.config_map == documents()[0]["metadata"]["name"]


def test_what_it_names_can_be_served(monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    spec = read().spec
    loaded = Application.load([actor.argument for actor in spec.actors], spec.front_door)
    assert loaded.bindings.keys() == {"ACCOUNT"}


def test_the_image_is_made_of_the_stock_image_of_this_release_where_the_code_is_looked_for() -> None:
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    commands = [line for line in (FOLDER / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    assert commands == [f"FROM kubeactor/host:{version[1]}", f"COPY bank.py {names.APP_PATH}/"]
    _, _, host = (ROOT / "Dockerfile").read_text().partition("\nFROM base AS host\n")
    assert {f"ENV PYTHONPATH={names.APP_PATH}", f"WORKDIR {names.APP_PATH}"} <= set(host.splitlines())


def test_it_is_served_at_the_port_that_kind_config_opens() -> None:
    (port,) = ingresses.public_service(read())["spec"]["ports"]
    mappings = yaml.safe_load((ROOT / "kind-config.yaml").read_text())["nodes"][0]["extraPortMappings"]
    assert port["nodePort"] in {mapping["containerPort"] for mapping in mappings}
