"""The API server of the tests with our CRDs, and a Kubernetes namespace of its own for each test."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.cluster.api import ApiServer
from tests.harness.rest import Object, Refused, Rest

CRDS = Path(__file__).resolve().parents[2] / "crds"


@pytest.fixture(scope="session")
def rest(apiserver: ApiServer) -> Iterator[Rest]:
    """A client of the API server, with the CRDs of this checkout established."""
    with Rest(apiserver.kubeconfig) as client:
        for path in CRDS.glob("*.yaml"):
            established(client, client.apply(yaml.safe_load(path.read_text())))
        yield client


def established(client: Rest, crd: Object) -> None:
    deadline = time.monotonic() + 60
    path = f"/apis/{crd['spec']['group']}/v1alpha1/{crd['spec']['names']['plural']}"
    while True:
        try:
            client.call("GET", path)
        except Refused:
            assert time.monotonic() < deadline, f"{path} is not served"
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def space(rest: Rest) -> str:
    """A Kubernetes namespace in which pods must keep to the `restricted` standard."""
    name = f"space-{secrets.token_hex(4)}"
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    rest.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": enforce}})
    return name
