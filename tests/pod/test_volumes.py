"""Volumes of pods that are lost, another's, or still held by a predecessor: nothing is ever served empty."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.harness.fake_api import PLACEMENTS, fake_api
from tests.harness.pods import NAME, SHARDS, UID, Pod, Pods, bearer, eventually, inventory
from tests.harness.program import Program
from tests.pod.test_processes import EVERYBODY, add, names

from kubeactor.placement import Table
from kubeactor.placement_file import load


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    with fake_api() as api:
        yield Pods(tmp_path, api)


def asked(ingress: Pod, name: str) -> tuple[int, Any]:
    answer = ingress.public.post(f"/v1/actors/LAB/{name}/count", headers={"Kubeactor-Timeout": "1"})
    return answer.status_code, answer.json()


def unopened(program: Program) -> dict[str, Any]:
    """Wait for an inventory that says why the volume is not open."""
    program.says("/healthz", 200)
    found: dict[str, Any] = {"reason": "Starting"}

    def told() -> bool:
        nonlocal found
        answer = program.http.get("/_internal/inventory", headers=bearer())
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        found = answer.json()
        return found["reason"] != "Starting"

    eventually(told, "the reason")
    return found


def test_a_lost_volume_is_told_and_serves_nothing_until_it_is_granted_anew(pods: Pods) -> None:
    with pods.placed() as (ingress, hosts):
        assert [add(ingress, name) for name in EVERYBODY] == [1, 1, 1, 1]
        old = inventory(hosts[1])["volume"]
        kept = inventory(hosts[0])["volume"]
        hosts[1].kill()
        shutil.rmtree(pods.folder / f"{NAME}-host-1" / "host-1" / "db")
        with pods.host(1) as again:
            again.says("/healthz", 200)
            assert "VolumeLost: the placement table records volume " in again.says("/readyz", 503)
            report = again.http.get("/_internal/inventory", headers=bearer()).json()
            assert report["volume"] != old
            assert report["states"] == []
            assert report["trouble"].startswith("VolumeLost")
            status, problem = asked(ingress, names(1)[0])
            assert (status, problem["name"], problem["started"]) == (503, "ActorShardUnavailableError", "no")
            assert problem["retry_after_s"] == 5
            assert "the table records volume" in problem["detail"]
            assert asked(ingress, names(0)[0]) == (200, 1)
            # What the operator does when a user says `kubeactor forget`.
            grants = [[shard, 2] for shard in range(1, SHARDS, 2)]
            wish = {"volume": report["volume"], "grants": grants}
            answer = again.http.post("/_internal/grant", json=wish, headers=bearer())
            assert answer.status_code == 200
            owners: list[str | None] = [f"host-{shard % 2}" for shard in range(SHARDS)]
            pods.publish(owners, {"host-0": kept, "host-1": report["volume"]}, epoch=2)
            assert add(ingress, names(1)[0]) == 1
            assert add(ingress, names(0)[0]) == 2
            eventually(lambda: again.http.get("/readyz").text == "ready\n", "a host without trouble")


def test_a_table_that_names_a_host_which_does_not_hold_the_shard_is_no_reason_to_serve_it(pods: Pods) -> None:
    with pods.host(0) as host, pods.ingress() as ingress:
        volume = inventory(host)["volume"]
        pods.publish(["host-0"] * SHARDS, {"host-0": volume})
        assert f"gives host-0 {SHARDS} shards that its volume does not hold" in host.says("/readyz", 503)
        status, problem = asked(ingress, "a")
        assert (status, problem["name"]) == (503, "ActorShardUnavailableError")
        assert "is not served here" in problem["detail"]


def test_an_older_table_is_not_followed(pods: Pods) -> None:
    with pods.placed(1) as (ingress, hosts):
        volumes = {"host-0": inventory(hosts[0])["volume"]}
        owners: list[str | None] = ["host-0"] * SHARDS
        pods.publish(owners, volumes, epoch=3)
        assert add(ingress, "a") == 1
        eventually(lambda: inventory(hosts[0])["states"][0][1] == 3, "the lifted epoch")
        for uid, epoch, says in ((UID, 1, "it is older than what is known here"), ("other", 3, "namespace uid other")):
            pods.publish(owners, volumes, epoch=epoch, uid=uid)
            eventually(lambda says=says: says in ingress.internal.get("/readyz").text, says)  # type: ignore[misc]
            eventually(lambda says=says: says in hosts[0].http.get("/readyz").text, says)  # type: ignore[misc]
            assert ingress.internal.get("/readyz").status_code == 200
        assert add(ingress, "a") == 2
        assert inventory(hosts[0])["states"][0][1] == 3


def test_a_host_that_lost_shards_begins_anew_once_with_the_table_that_says_so(pods: Pods) -> None:
    def told() -> str:
        try:
            return hosts[0].http.get("/readyz").text
        except httpx.TransportError:  # of the worker that ends
            return ""

    def kept() -> set[tuple[str, int] | None]:
        table = load(pods.folder / f"{NAME}-host-0" / "placement.json").table
        return {table.owner(shard) for shard in range(SHARDS)}

    with pods.placed() as (_, hosts):
        volumes = {f"host-{n}": inventory(host)["volume"] for n, host in enumerate(hosts)}
        lost: list[str | None] = ["host-1"] * SHARDS
        pods.publish(lost, volumes, epoch=2)
        eventually(lambda: "worker restarted" in told(), "a new worker")
        assert kept() == {("host-1", 2)}
        pods.publish(lost, volumes, epoch=3)
        eventually(lambda: kept() == {("host-1", 3)}, "the next table")
        assert "worker restarted 1 times" in told()


def test_no_alarm_of_a_volume_that_was_given_up_and_restored_runs_before_the_table_is_known(pods: Pods) -> None:
    """Its own kept table still calls it the owner."""
    one, other = names(0)[0], names(1)[0]
    folder, aside = pods.folder / f"{NAME}-host-1", pods.folder / "aside"
    with pods.placed() as (ingress, hosts):
        assert add(ingress, one) == add(ingress, other) == 1
        url = f"/v1/actors/LAB/{other}/remind"
        assert ingress.public.post(url, json={"other": one, "after_s": 2.0}).status_code == 200
        due = time.monotonic() + 2.0
        eventually((pods.folder / f"{NAME}-host-1" / "placement.json").exists, "a file for the table")
        eventually(lambda: pods.kept(f"{NAME}-host-1")["table"]["epochs"] == "0-7:1", "the table in its file")
        hosts[1].kill()
        folder.rename(aside)
        volumes = {"host-0": inventory(hosts[0])["volume"], "host-1": "another"}
        owners = [f"host-{shard % 2}" for shard in range(SHARDS)]
        epochs = [1 + shard % 2 for shard in range(SHARDS)]  # as after `kubeactor forget`
        table = Table(UID, volumes=volumes, owners=owners, epochs=epochs)
        pods.api.put(PLACEMENTS, NAME, spec=json.loads(table.to_json()))
        eventually(lambda: load(pods.folder / f"{NAME}-host-0" / "placement.json").table == table, "the new table")
        aside.rename(folder)
        eventually(lambda: time.monotonic() > due, "the alarm's time")
        with pods.host(1) as restored:
            assert "VolumeLost" in restored.says("/readyz", 503)
            eventually(lambda: "worker restarted 1 times" in restored.http.get("/readyz").text, "a new worker")
            assert asked(ingress, one) == (200, 1)


def test_without_the_api_server_a_host_that_starts_runs_its_alarms_by_the_kept_table(pods: Pods) -> None:
    with pods.placed() as (ingress, hosts):
        one, other = names(0)[0], names(1)[0]
        eventually((pods.folder / f"{NAME}-host-1" / "placement.json").exists, "a file for the table")
        eventually(lambda: pods.kept(f"{NAME}-host-1")["table"]["epochs"] == "0-7:1", "the table in its file")
        pods.api.stop()
        url = f"/v1/actors/LAB/{other}/remind"
        assert ingress.public.post(url, json={"other": one, "after_s": 0.5}).status_code == 200
        os.kill(hosts[1].workers()[0], signal.SIGKILL)
        eventually(lambda: asked(ingress, one) == (200, 1), "the alarm")


def test_a_volume_of_an_earlier_namespace_is_refused_and_taken_over_only_with_adopt(pods: Pods) -> None:
    with pods.placed(1) as (ingress, _):
        assert add(ingress, "a") == 1
    later = "11111111-7c1d-4f3e-9d53-0a8f5f0b8a11"
    with pods.host(0, KUBEACTOR_UID=later) as host:
        problem = unopened(host)
        assert problem["reason"] == "VolumeOfAnotherNamespace"
        assert f"holds namespace {UID}, not {later}" in problem["detail"]
        assert f"holds namespace {UID}" in host.says("/readyz", 503)
        grant = host.http.post("/_internal/grant", json={"volume": "v", "grants": [[0, 1]]}, headers=bearer())
        assert grant.status_code == 503
    with (
        pods.host(0, KUBEACTOR_UID=later, KUBEACTOR_ADOPT="true") as host,
        pods.ingress(name="b", KUBEACTOR_UID=later) as ingress,
    ):
        report = inventory(host)
        assert (report["namespace"], len(report["states"])) == (later, SHARDS)
        pods.publish(["host-0"] * SHARDS, {"host-0": report["volume"]}, uid=later)
        assert add(ingress, "a") == 2


def test_another_hosts_volume_is_told_and_not_touched(pods: Pods) -> None:
    with pods.placed(1):
        pass
    folder = pods.folder / f"{NAME}-host-0"
    (folder / "host-0").rename(folder / "host-1")
    with pods.host(1, volume=f"{NAME}-host-0") as host:
        assert unopened(host)["reason"] == "VolumeOfAnotherHost"
        assert host.process.poll() is None


def test_a_pod_waits_for_its_force_deleted_predecessor_and_that_is_no_death(pods: Pods) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(pods.host(0))
        ingress = stack.enter_context(pods.ingress())
        pods.grant([first])
        assert add(ingress, "a") == 1
        second = stack.enter_context(pods.host(0))
        assert unopened(second)["reason"] == "VolumeInUse"
        assert "is in use by another process" in second.says("/readyz", 503)
        assert second.workers()
        first.kill()
        eventually(lambda: second.http.get("/readyz").text == "ready\n", "a host without a death on record")
        assert add(ingress, "a") == 2
