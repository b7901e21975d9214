"""Credentials, ports, environment and the end of pods, as real processes."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.harness.dev import free_port
from tests.harness.fake_api import fake_api
from tests.harness.pods import NAME, SHARDS, TOKEN, UID, Pods, bearer, eventually, get, inventory
from tests.harness.program import refused
from tests.pod.test_processes import add

from kubeactor.placement import Document, Table


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    with fake_api() as api:
        yield Pods(tmp_path, api)


def replace(path: Path, text: str) -> None:
    """As kubelet does it: the new file is whole when it appears."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_a_rotated_secret_breaks_no_connection(pods: Pods) -> None:
    with pods.placed(1) as (ingress, [host]):
        assert add(ingress, "a") == 1
        assert len(inventory(host)["credentials"]) == 1
        replace(pods.peers / "previous", "token-2")  # what comes is accepted before anybody says it
        eventually(lambda: len(inventory(host)["credentials"]) == 2, "both tokens")
        assert host.http.get("/_internal/inventory", headers=bearer("token-2")).status_code == 200
        replace(pods.peers / "current", "token-2")
        replace(pods.peers / "previous", TOKEN)
        probe = "/_internal/probe/host-0"
        eventually(lambda: ingress.internal.get(probe, headers=bearer("token-2")).status_code == 200, "the new one")
        assert add(ingress, "a") == 2
        replace(pods.peers / "previous", "token-2")
        eventually(lambda: ingress.internal.get(probe, headers=bearer()).status_code == 401, "the end of the old one")
        eventually(lambda: host.http.get("/_internal/inventory", headers=bearer()).status_code == 401, "the same")
        assert add(ingress, "a") == 3
        assert "host-0 at 127.0.0.1" not in ingress.program.output  # what a link says when it is lost
        os.kill(ingress.program.workers()[0], signal.SIGKILL)  # a new connection says the new token
        eventually(lambda: get(ingress, "/readyz").status_code == 200, "the next worker")
        assert add(ingress, "a", key="4") == 4
        assert "wrong credentials" not in ingress.program.output + host.output


def test_hosts_and_ingresses_tell_which_table_and_which_credential_they_go_by(pods: Pods) -> None:
    def known() -> dict[str, Any]:
        found: dict[str, Any] = ingress.internal.get("/_internal/known", headers=bearer()).json()
        return found

    def first(told: dict[str, Any]) -> bool:
        return bool(told["credentials"][0] == hashlib.sha256(b"token-2").hexdigest()[:16])

    with pods.placed(1) as (ingress, [host]):
        published = Table(
            UID, volumes={"host-0": inventory(host)["volume"]}, owners=["host-0"] * SHARDS, epochs=[1] * SHARDS
        )
        for told in (known(), inventory(host)):
            assert Table.of(msgspec.convert(told["table"], Document)) == published
            assert not first(told)
        replace(pods.peers / "previous", TOKEN)
        replace(pods.peers / "current", "token-2")
        eventually(lambda: first(known()) and first(inventory(host)), "the new one is presented")


def test_wrong_credentials_are_told_in_a_clear_line(pods: Pods) -> None:
    with pods.placed(1) as (ingress, [host]):
        other = pods.folder / "others"
        other.mkdir()
        (other / "current").write_text("another")
        with pods.ingress(name="b", KUBEACTOR_PEER_DIR=str(other)) as second:
            line = "host-0 can't be reached: refused: wrong credentials: the peer secret of the two differs\n"
            eventually(lambda: line in get(second, "/readyz").text, line)
        for headers in ({}, bearer("x"), {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer é"}):
            raw = {name: value.encode() for name, value in headers.items()}
            answer = host.http.get("/_internal/inventory", headers=raw)
            assert (answer.status_code, answer.json()["name"]) == (401, "ActorUnauthenticatedError")
        assert add(ingress, "a") == 1


def test_a_secret_that_vanishes_is_told_and_changes_nothing(pods: Pods) -> None:
    with pods.placed(1) as (ingress, [host]):
        (pods.peers / "current").unlink()
        eventually(lambda: "the last good ones stay in use" in host.http.get("/readyz").text, "a line")
        assert host.http.get("/readyz").status_code == 200
        assert inventory(host)["trouble"] is None
        assert add(ingress, "a") == 1


def test_grants_are_idempotent_bounded_and_never_change_an_epoch(pods: Pods) -> None:
    with pods.placed(1) as (_, [host]):
        volume = inventory(host)["volume"].encode()

        def grant(content: bytes) -> httpx.Response:
            content = content.replace(b"VOLUME", volume)
            return host.http.post("/_internal/grant", content=content, headers=bearer())

        assert grant(b'{"volume": "VOLUME", "grants": [[0, 1]]}').status_code == 200
        for content, status in (
            (b'{"volume": "VOLUME", "grants": [[0, 2]]}', 409),
            (b'{"volume": "another", "grants": [[0, 1]]}', 409),
            (b'{"volume": "VOLUME", "grants": [[%d, 1]]}' % SHARDS, 409),
            (b'{"volume": "VOLUME", "grants": [[0]]}', 400),
            (b"[]", 400),
            (b"{" * 1000, 400),
            (b'{"grants": [' + b"[0, 1], " * 40_000 + b"[0, 1]]}", 413),
        ):
            answer = grant(content)
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
            assert answer.json()["status"] == status
        assert inventory(host)["states"][0] == [0, 1, "owned"]


def test_whatever_else_is_asked_for_is_a_problem_document_too(pods: Pods) -> None:
    with pods.placed(1) as (ingress, [host]):
        for http, method, path in (
            (host.http, "DELETE", "/_internal/inventory"),
            (host.http, "GET", "/_internal/probe/host-0"),
            (ingress.internal, "GET", "/_internal/inventory"),
            (ingress.internal, "POST", "/_internal/probe/host-0"),
        ):
            answer = http.request(method, path, headers=bearer())
            assert (answer.status_code, answer.json()["name"]) == (404, "ActorUnknownMethodError")
            assert http.request(method, path).status_code == 401


def test_an_inventory_tells_all_that_the_operator_asks_for(pods: Pods) -> None:
    with pods.placed(1) as (_, [host]):
        report = inventory(host)
        assert (report["host"], report["shards"], report["protocol"], report["format"]) == ("host-0", SHARDS, 1, 1)
        assert (report["parked"], report["quarantined"], report["trouble"]) == (0, 0, None)
        assert report["states"] == [[shard, 1, "owned"] for shard in range(SHARDS)]
        assert report["disk"]["free_bytes"] > 0
        assert report["disk"]["full"] in (True, False)


def test_the_api_has_a_port_of_its_own_beside_a_front_door_or_none(pods: Pods) -> None:
    api = free_port()
    door = ["--front-door", "lab:fetch"]
    with pods.placed(1):
        with pods.ingress("--api-port", str(api), *door, name="b") as ingress:
            eventually(lambda: get(ingress, "/readyz").status_code == 200, "a table")
            assert ingress.public.post("/a/add", json={}).json() == 1
            assert ingress.public.post("/v1/actors/LAB/a/add").status_code == 404
            assert ingress.public.get("/readyz").status_code == 200
            call = f"http://127.0.0.1:{api}/v1/actors/LAB/a/add"
            assert httpx.post(call).json() == 2
            assert httpx.get(f"http://127.0.0.1:{api}/metrics").status_code == 404
            assert "kubeactor_router_calls_total 2.0" in get(ingress, "/metrics").text
            assert ingress.internal.post("/v1/actors/LAB/a/add").status_code == 404
        with pods.ingress("--api-port", "0", *door, name="c") as ingress:
            eventually(lambda: get(ingress, "/readyz").status_code == 200, "a table")
            assert ingress.public.post("/a/add", json={}).json() == 3
            assert ingress.public.post("/v1/actors/LAB/a/add").status_code == 404
        with pods.ingress(*door, name="d") as ingress:
            eventually(lambda: get(ingress, "/readyz").status_code == 200, "a table")
            assert add(ingress, "a") == 4
            assert ingress.public.post("/a/add", json={}).json() == 5


def test_budgets_come_from_the_environment(pods: Pods) -> None:
    with pods.host(0, KUBEACTOR_METHOD_TIMEOUT_S="0.2") as host, pods.ingress() as ingress:
        pods.grant([host])
        answer = ingress.public.post("/v1/actors/LAB/a/slow", json=[30])
        assert (answer.status_code, answer.json()["name"]) == (504, "ActorMethodTimeoutError")


def test_an_ingress_that_is_told_to_end_turns_no_busy_client_away(pods: Pods) -> None:
    with pods.placed(1) as (first, [host]), pods.ingress(name="b") as second:
        eventually(lambda: get(second, "/readyz").status_code == 200, "a table")
        errors: list[Exception] = []
        closed = threading.Event()
        answers = [0] * 8

        def load(number: int) -> None:
            # A client goes to another ingress only when its connection told it that it ends.
            with httpx.Client(base_url=second.public.base_url, timeout=30) as client:
                try:
                    while True:
                        answer = client.post(f"/v1/actors/LAB/n{number}/add")
                        assert answer.json() == answers[number] + 1
                        answers[number] += 1
                        if answer.headers.get("connection") == "close":
                            closed.set()
                            return
                except Exception as error:
                    errors.append(error)

        clients = [threading.Thread(target=load, args=(number,)) for number in range(8)]
        for client in clients:
            client.start()
        eventually(lambda: min(answers) >= 5, "some load")
        assert get(second, "/readyz").status_code == 200
        second.program.process.send_signal(signal.SIGTERM)
        eventually(lambda: get(second, "/readyz").text.startswith("going down"), "readiness that ends first")
        for client in clients:
            client.join(30)
        assert second.program.process.wait(30) == 0
        assert errors == []
        assert closed.is_set()
        assert add(first, "n0") == answers[0] + 1
        assert host.stop()[0] == 0


@pytest.mark.parametrize("command", ["host", "ingress"])
def test_a_process_outside_of_a_pod_is_refused_with_all_that_is_missing(tmp_path: Path, command: str) -> None:
    arguments = [command, "--kubernetes", "--data", str(tmp_path / "data"), "--port", str(free_port()), "lab:Lab"]
    says = refused(*arguments)
    for name in ("KUBEACTOR_NAME", "KUBEACTOR_UID", "KUBEACTOR_SHARDS", "POD_NAME", "POD_NAMESPACE"):
        assert f"{name} is missing" in says
    assert says.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_pod_without_its_secret_is_refused(tmp_path: Path) -> None:
    with fake_api() as api:
        pods = Pods(tmp_path, api)
        (pods.peers / "current").unlink()
        arguments = ["host", "--kubernetes", "--data", str(tmp_path / "data"), "--port", str(free_port()), "lab:Lab"]
        says = refused(*arguments, environment=pods.environment(f"{NAME}-host-0"))
        assert "the peer credentials in" in says


def test_an_api_port_without_a_front_door_is_refused(tmp_path: Path) -> None:
    arguments = ["ingress", "--data", str(tmp_path), "--port", str(free_port()), "--api-port", "1", "lab:Lab"]
    assert "--api-port is for /v1 beside a front door" in refused(*arguments)
