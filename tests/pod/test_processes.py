"""Hosts and ingresses in pods, as real processes: placed, killed, at other addresses, without their API server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.harness.fake_api import PLACEMENTS, SLICES, fake_api
from tests.harness.pods import NAME, SHARDS, Pod, Pods, bearer, eventually, get, inventory

from kubeactor.ids import shard_of


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    with fake_api() as api:
        yield Pods(tmp_path, api)


def names(host: int, count: int = 2) -> list[str]:
    """Names of instances that live on that host of two."""
    found = (f"n{i}" for i in range(1000) if shard_of(b"n%d" % i, SHARDS) % 2 == host)
    return [next(found) for _ in range(count)]


def add(ingress: Pod, name: str, key: str | None = None) -> int:
    headers = {"Idempotency-Key": key} if key else {}
    answer = ingress.public.post(f"/v1/actors/LAB/{name}/add", headers=headers)
    assert answer.status_code == 200, answer.text
    return int(answer.json())


def gone(ingress: Pod, probe: str) -> bool:
    return get(ingress, probe).status_code == 503


EVERYBODY = [*names(0), *names(1)]


def test_a_new_namespace_is_granted_published_and_served(pods: Pods) -> None:
    with pods.placed() as (ingress, hosts):
        assert [add(ingress, name) for name in EVERYBODY] == [1, 1, 1, 1]
        assert [state for _, _, state in inventory(hosts[0])["states"]] == ["owned"] * (SHARDS // 2)


def test_a_killed_host_that_comes_back_at_another_address_is_found(pods: Pods) -> None:
    with pods.placed() as (ingress, hosts):
        assert [add(ingress, name) for name in EVERYBODY] == [1, 1, 1, 1]
        old = pods.frames["host-1"]
        hosts[1].kill()
        with pods.host(1) as again:
            assert pods.frames["host-1"] != old
            assert [add(ingress, name) for name in EVERYBODY] == [2, 2, 2, 2]
            assert again.ready()


def test_without_the_api_server_calls_go_on_and_so_does_a_restarted_worker(pods: Pods) -> None:
    with pods.placed() as (ingress, hosts):
        assert [add(ingress, name) for name in EVERYBODY] == [1, 1, 1, 1]
        pods.api.stop()
        eventually(lambda: "the API server can't be asked" in get(ingress, "/readyz").text, "a note in /readyz")
        assert get(ingress, "/readyz").status_code == 200
        assert [add(ingress, name) for name in EVERYBODY] == [2, 2, 2, 2]
        os.kill(hosts[0].workers()[0], signal.SIGKILL)
        assert [add(ingress, name) for name in EVERYBODY] == [3, 3, 3, 3]
        os.kill(ingress.program.workers()[0], signal.SIGKILL)
        eventually(lambda: get(ingress, "/readyz").text.startswith("ready"), "the ingress's next worker")
        assert [add(ingress, name, key=name) for name in EVERYBODY] == [4, 4, 4, 4]


def test_all_processes_start_from_the_kept_table_without_the_api_server(pods: Pods) -> None:
    with pods.placed() as (ingress, hosts):
        assert [add(ingress, name) for name in EVERYBODY] == [1, 1, 1, 1]
        for pod in (f"{NAME}-ingress-a", f"{NAME}-host-0", f"{NAME}-host-1"):
            eventually(lambda pod=pod: pods.kept(pod)["table"]["epochs"] == "0-7:1", "the table in a file")  # type: ignore[misc]
        for program in (ingress.program, *hosts):
            program.kill()
    ports = dict(pods.frames)
    pods.api.stop()
    with pods.host_at(0, ports["host-0"]), pods.host_at(1, ports["host-1"]), pods.ingress() as ingress:
        assert ingress.program.ready()
        assert [add(ingress, name) for name in EVERYBODY] == [2, 2, 2, 2]


def test_without_any_host_calls_are_told_when_to_come_again(pods: Pods) -> None:
    """As when the namespace hibernates: the pods are gone, the table stays."""
    with pods.placed() as (ingress, hosts):
        assert add(ingress, "a") == 1
        for number, host in enumerate(hosts):
            host.kill()
            pods.api.delete(SLICES, f"{NAME}-host-{number}")
        for probe in ("/_internal/probe/host-0", "/_internal/probe/host-1"):
            eventually(partial(gone, ingress, probe), "a host that is gone")
        answer = ingress.public.post("/v1/actors/LAB/a/add", headers={"Kubeactor-Timeout": "1"})
        assert (answer.status_code, answer.json()["name"]) == (503, "ActorShardUnavailableError")
        assert int(answer.headers["Retry-After"]) > 0


def test_a_placement_that_comes_later_is_picked_up_without_a_restart(pods: Pods) -> None:
    with pods.host(0) as host, pods.ingress() as ingress:
        missing = f"there is no ActorPlacement {NAME} yet"
        eventually(lambda: get(ingress, "/readyz").text.startswith(missing), "an ingress that says what is missing")
        assert get(ingress, "/readyz").status_code == 503
        pods.grant([host])
        assert add(ingress, "a") == 1
        assert "restarted" not in get(ingress, "/readyz").text + host.http.get("/readyz").text
        pods.api.delete(PLACEMENTS, NAME)
        eventually(lambda: "its ActorPlacement is gone" in get(ingress, "/readyz").text, "a note")
        assert add(ingress, "a") == 2


def test_the_probe_of_an_ingress_writes_and_reads_in_a_shard_of_the_host(pods: Pods) -> None:
    with pods.placed() as (ingress, hosts):
        answer = get(ingress, "/_internal/probe/host-1")
        eventually(lambda: get(ingress, "/_internal/probe/host-1").status_code == 200, "a connected host")
        answer = get(ingress, "/_internal/probe/host-1").json()
        assert (answer["host"], answer["shard"] % 2, answer["epoch"]) == ("host-1", 1, 1)
        assert answer["ms"] > 0
        assert get(ingress, "/_internal/probe/host-7").status_code == 404
        assert ingress.internal.get("/_internal/probe/host-1").status_code == 401
        assert ingress.public.get("/_internal/probe/host-1", headers=bearer()).status_code == 404
        hosts[1].kill()
        eventually(lambda: get(ingress, "/_internal/probe/host-1").status_code == 503, "a host that is gone")
        assert "host-1 " in get(ingress, "/_internal/probe/host-1").json()["detail"]
        assert get(ingress, "/_internal/probe/host-0").status_code == 200
