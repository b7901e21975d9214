"""The images of the Dockerfile, built by it and run in the cluster."""

from __future__ import annotations

import json
import re

import pytest
from tests.cluster.bank import SMALL, Bank
from tests.cluster.kube import Space
from tests.cluster.machine import ROOT
from tests.cluster.nodes import Cluster, Images
from tests.cluster.test_nodes import RESTRICTED


def run_pod(space: Space, image: str, *command: str) -> str:
    """What a command printed that ran in a pod which the restricted profile admits."""
    container = {"name": "it", "image": image, "imagePullPolicy": "IfNotPresent", "securityContext": RESTRICTED}
    spec = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container | {"command": list(command)}],
    }
    space.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "it"}, "spec": spec})

    def ended() -> bool:
        return space.get("pod", "it")["status"].get("phase") in ("Succeeded", "Failed")

    space.until(ended, "the pod ended")
    log = space.kubectl("logs", "it")
    assert space.get("pod", "it")["status"]["phase"] == "Succeeded", log
    return log


@pytest.mark.cluster
def test_the_host_image_runs_kubeactor_as_nobody_of_the_machine(images: Images, space: Space) -> None:
    assert re.match(r"kubeactor \d+\.\d+\.\d+", run_pod(space, images.host, "kubeactor", "--version"))


@pytest.mark.cluster
def test_the_host_image_has_what_a_host_needs_and_no_operator(images: Images, space: Space) -> None:
    code = "import importlib.util as u, json; "
    code += "print(json.dumps([bool(u.find_spec(m)) for m in ('kubernetes', 'rocksdict', 'kopf', 'hatchling', 'pip')]))"
    found = run_pod(space, images.host, "/opt/kubeactor/bin/python", "-c", code)
    assert json.loads(found) == [True, True, False, False, False]


@pytest.mark.cluster
def test_the_operator_image_has_kopf(images: Images, space: Space) -> None:
    run_pod(space, images.operator, "/opt/kubeactor/bin/python", "-c", "import kopf, kubeactor_operator")


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("name", "modules"),
    [("host", "kubeactor.processes, kubernetes.aio.client"), ("operator", "kubeactor_operator.main")],
)
def test_a_start_compiles_nothing(images: Images, space: Space, name: str, modules: str) -> None:
    """A pod can't keep what it compiled, its root is read-only; of the host that was half of the time of a start."""
    code = f"import os, sys, {modules}\n"
    code += "files = [getattr(module, '__cached__', None) for module in list(sys.modules.values())]\n"
    code += "print(len(files), [file for file in files if file and not os.path.exists(file)])"
    count, _, compiled = run_pod(space, getattr(images, name), "/opt/kubeactor/bin/python", "-c", code).partition(" ")
    assert int(count) > 300
    assert compiled.strip() == "[]"


@pytest.mark.kindnodes
@pytest.mark.parametrize("name", ["host", "operator"])
def test_an_image_runs_as_65532_has_no_compiler_and_a_bounded_size(cluster: Cluster, images: Images, name: str) -> None:
    image = getattr(images, name)
    (about,) = json.loads(cluster.run("docker", "image", "inspect", image))
    print(f"{image}: {about['Size'] / 1e6:.0f} MB")
    assert about["Config"]["User"] == "65532:65532"
    assert about["Size"] < 330e6
    look = "for c in cc gcc make; do if command -v $c; then exit 1; fi; done"
    cluster.run("docker", "run", "--rm", "--network=none", "--entrypoint", "sh", image, "-c", look)


@pytest.mark.kindnodes
@pytest.mark.usefixtures("operator", "images")
def test_a_users_image_is_the_hosts_with_their_code_and_is_served(cluster: Cluster, space: Space) -> None:
    image = "bank-of-a-user:1"
    cluster.run("docker", "build", "--tag", image, str(ROOT / "examples" / "01-bank"))
    cluster.run("kind", "load", "docker-image", "--name", "kubeactor", image)
    bank = Bank(space, spec=SMALL | {"image": image, "hosts": {**SMALL["hosts"], "replicas": 1}})
    del bank.manifest["spec"]["code"]
    bank.apply()
    bank.serves()
    assert bank.deposit("alice", 5) == 5


def test_the_dockerfile_pins_its_base_and_asks_for_hashes() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON=python:3\.\d+-slim-\w+$", text, re.MULTILINE)
    assert text.count("--require-hashes") == text.count("-r /requirements/") == 2
    assert "# syntax=" not in text
