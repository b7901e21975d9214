"""What the operator writes into a pod is what the programs in it take: arguments, environment, ports, paths."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
import typer
from starlette.applications import Starlette
from tests.operator.user_errors import bank

from kubeactor.cli import app
from kubeactor.errors import ActorShardUnavailableError
from kubeactor.ingress.internal import Unopened, host_routes
from kubeactor.ingress.state import Ingress
from kubeactor.pod.identity import Pod
from kubeactor_operator import names
from kubeactor_operator.children import hosts, ingresses, preflight
from kubeactor_operator.children.manifest import Manifest
from kubeactor_operator.children.pods import Bundle
from kubeactor_operator.main import _settings
from kubeactor_operator.observed import Disk
from kubeactor_operator.pods import _refusal
from kubeactor_operator.spec import ActorNamespace

BUNDLE = Bundle("kubeactor/host:0.1.0", "0a1b2c3d4e")


def namespace(**spec: Any) -> ActorNamespace:
    metadata = {"metadata.namespace": "default", "metadata.uid": "9f0e1c1e-6f7a-4a55-8d4e-3c1d2b0a5f64"}
    return ActorNamespace.of(
        bank(metadata | {f"spec.{name.replace('__', '.')}": value for name, value in spec.items()})
    )


def containers(of: ActorNamespace) -> dict[str, Manifest]:
    pods = {
        "host": hosts.template(of, BUNDLE),
        "ingress": ingresses.template(of, BUNDLE),
        "check": preflight.preflight_pod(of, BUNDLE, "0"),
    }
    return {name: pod["spec"]["containers"][0] for name, pod in pods.items()}


def parsed(arguments: list[str]) -> dict[str, Any]:
    """As `kubeactor` reads its command line, without running it; it raises for what it does not know."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("kubeactor", list(arguments))
    name, sub, rest = command.resolve_command(context, arguments)
    found: dict[str, Any] = sub.make_context(name, rest, parent=context).params
    return found


@pytest.mark.parametrize("api", [None, "Internal", "Public", "Off"])
@pytest.mark.parametrize("door", [None, "bank:app"])
def test_the_command_line_takes_the_arguments(door: str | None, api: str | None) -> None:
    found = containers(namespace(frontDoor=door, ingress__api=api))
    for name, main in found.items():
        assert main["args"][0] == name
        read = parsed(main["args"])
        assert (read["actors"], read["front_door"]) == (["ACCOUNT=bank:Account"], door)
        if name != "check":
            assert read["kubernetes"]
            assert read["address"] == "0.0.0.0"
            ports = {"frames": read["port"], "http": read["port"], "internal": read["metrics_port"]}
            ports["api"] = read.get("api_port")
            assert {one["name"]: one["containerPort"] for one in main["ports"]}.items() <= ports.items()
            mounted = {one["mountPath"] for one in main["volumeMounts"]}
            assert str(read["data"]) in mounted


def test_an_argument_that_the_program_does_not_know_is_seen_here() -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed(["host", "--kubernetes", "--no-such-thing", "ACCOUNT=bank:Account"])


def test_the_environment_tells_a_pod_who_it_is() -> None:
    of = namespace(limits__methodTimeoutSeconds=5, limits__alarmTimeoutSeconds=900)
    for component, pod_name in (("host", "bank-host-2"), ("ingress", "bank-ingress-7d9c-x2k4p")):
        downward = {"metadata.name": pod_name, "metadata.namespace": "default"}
        variables = containers(of)[component]["env"]
        environ = {
            one["name"]: one.get("value") or downward[one["valueFrom"]["fieldRef"]["fieldPath"]] for one in variables
        }
        found = Pod.of(environ, host=component == "host")
        assert (found.name, found.uid, found.shards) == ("bank", of.uid, of.spec.shards)
        assert (found.pod, found.namespace) == (pod_name, "default")
        assert found.host == names.host_id("bank", pod_name)
        assert (found.method_timeout_s, found.alarm_timeout_s) == (5.0, 900.0)
        assert str(found.peer_dir) == names.PEER_PATH


@pytest.mark.asyncio
async def test_how_full_a_volume_is_that_cannot_be_opened_is_read_as_the_host_tells_it() -> None:
    disk = {"used_bytes": 100, "free_bytes": 3, "full": True}
    closed = Unopened("VolumeFull", ActorShardUnavailableError("the volume is not open: No space left"), disk)
    host: Any = SimpleNamespace(inventory=Mock(side_effect=closed))
    nobody: Any = SimpleNamespace(shards=8)
    routes = Starlette(routes=host_routes(Ingress(nobody, bindings=()), lambda: (b"t",), host))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=routes), base_url="http://host") as http:
        answer = await http.get("/_internal/inventory", headers={"Authorization": "Bearer t"})
    error = _refusal(answer.status_code, answer.content)
    assert (error.status, str(error), error.disk) == (503, closed.error.detail, Disk(100, 3, full=True))


@pytest.mark.parametrize("namespaced", [True, False])
def test_kopf_watches_the_pods_that_are_made_and_no_other_and_looks_at_the_cluster_only_when_it_serves_it(
    namespaced: bool,
) -> None:
    settings = _settings(namespaced)
    assert settings.scanning.disabled is namespaced
    assert len(settings.watching.label_selectors) == 1, "an ActorNamespace has the labels of its user"
    label, _, value = settings.watching.label_selectors["pods"].partition("=")
    of = namespace()
    for pod in (hosts.template(of, BUNDLE), ingresses.template(of, BUNDLE), preflight.preflight_pod(of, BUNDLE, "0")):
        assert pod["metadata"]["labels"][label] == value
        assert pod["metadata"]["labels"][names.NAMESPACE_LABEL] == of.name
