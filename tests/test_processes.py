"""`kubeactor host` and `kubeactor ingress` run apart, by hand: started in any order, killed, healthy or not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.harness.dev import free_port
from tests.harness.program import Program, refused, running


class Apart:
    """The commands of one namespace with a host and an ingress."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.frames = free_port()

    @contextmanager
    def host(self, *options: str, name: str = "host-0", port: int | None = None) -> Iterator[Program]:
        arguments = ["host", "lab:Lab", "--data", str(self.data), "--name", name, "--port", str(port or self.frames)]
        with running(self.folder / f"{name}.log", *arguments, "--metrics-port", "{port}", *options) as program:
            yield program

    @contextmanager
    def ingress(self, *hosts: str) -> Iterator[Program]:
        arguments = ["ingress", "lab:Lab", "--data", str(self.data), "--port", "{port}", "--front-door", "lab:fetch"]
        for host in hosts:
            arguments += ["--host", host]
        with running(self.folder / "ingress.log", *arguments) as program:
            yield program

    @property
    def placed(self) -> str:
        return f"host-0=127.0.0.1:{self.frames}"


@pytest.fixture
def apart(tmp_path: Path) -> Apart:
    return Apart(tmp_path)


def add(program: Program, name: str = "a") -> int:
    answer = program.http.post(f"/v1/actors/LAB/{name}/add")
    assert answer.status_code == 200, answer.text
    return int(answer.json())


def test_the_host_may_start_first(apart: Apart) -> None:
    with apart.host() as host, apart.ingress(apart.placed) as ingress:
        assert host.ready().says("/readyz", 200) == "ready\n"
        assert add(ingress.ready()) == 1
        assert ingress.http.post("/a/add", json={}).json() == 2


def test_the_ingress_may_start_first_and_its_calls_wait(apart: Apart) -> None:
    with apart.ingress(apart.placed) as ingress, ThreadPoolExecutor(1) as pool:
        assert ingress.says("/readyz", 503) == "waiting for host-0 to tell what they hold\n"
        assert ingress.says("/healthz", 200) == "ok\n"
        waiting = pool.submit(add, ingress)
        with apart.host():
            assert waiting.result() == 1
            assert ingress.says("/readyz", 200) == "ready\n"


def test_an_ingress_without_hosts_waits_for_somebody_elses_table(apart: Apart) -> None:
    with apart.host() as host, apart.ingress() as second:
        assert second.says("/readyz", 503) == f"there is no placement table in {apart.data} yet\n"
        with apart.ingress(apart.placed) as first:
            assert add(first.ready()) == 1
            assert add(second.ready()) == 2
        assert host.http.get("/readyz").text == "ready\n"


def test_a_host_that_is_away_costs_time_and_readyz_names_it(apart: Apart) -> None:
    with apart.ingress(apart.placed) as ingress, ThreadPoolExecutor(1) as pool:
        with apart.host() as host:
            assert add(ingress.ready()) == 1
            assert host.stop()[0] == 0
        waiting = pool.submit(add, ingress)
        while "host-0 can't be reached: " not in (told := ingress.says("/readyz", 200)):
            assert told == "ready\n"
        with apart.host():
            assert waiting.result() == 2
        assert ingress.stop()[0] == 0
    assert "Traceback" not in ingress.output


def test_both_may_be_killed_again_and_again(apart: Apart) -> None:
    count = 0
    with apart.host() as host, apart.ingress(apart.placed) as ingress:
        for killed in (host, ingress, host, ingress):
            ingress.ready()
            os.kill(killed.workers()[0], signal.SIGKILL)
            count += 1
            assert repeated(ingress, str(count)) == count
        assert "worker restarted 2 times, last: killed by SIGKILL" in host.says("/readyz", 200)


def repeated(program: Program, key: str) -> int:
    """Add under a key; again when the connection breaks, as it does when an ingress is killed."""
    for _ in range(3):
        try:
            return int(program.http.post("/v1/actors/LAB/a/add", headers={"Idempotency-Key": key}).json())
        except httpx.TransportError:
            continue
    raise AssertionError("each connection broke")


def test_a_host_serves_no_calls_over_http(apart: Apart) -> None:
    with apart.host() as host, apart.ingress(apart.placed) as ingress:
        add(ingress.ready())
        answer = host.ready().http.post("/v1/actors/LAB/a/add")
        assert (answer.status_code, answer.json()["name"]) == (404, "ActorUnknownBindingError")
        assert add(ingress) == 2


def metrics(program: Program) -> dict[str, float]:
    text = program.http.get("/metrics").text
    return {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples if not s.labels}


def test_metrics_of_both_tell_what_happened(apart: Apart) -> None:
    with apart.host() as host, apart.ingress(apart.placed) as ingress:
        ingress.ready()
        for _ in range(3):
            add(ingress)
        assert ingress.http.post("/v1/actors/LAB/a/fail").status_code == 500
        of_host, of_ingress = metrics(host), metrics(ingress)
        assert of_host["kubeactor_turns_total"] == 4
        assert of_host["kubeactor_commits_total"] >= 3
        assert of_host["kubeactor_wal_syncs_total"] >= 1
        assert of_host["kubeactor_instances"] == 1
        assert of_ingress["kubeactor_router_calls_total"] == 4
        assert of_ingress["kubeactor_ingress_call_seconds_count"] == 4
        assert of_ingress["kubeactor_worker_restarts_total"] == 0


def test_an_emptied_volume_is_refused_and_not_served_as_new(apart: Apart) -> None:
    with apart.host() as host, apart.ingress(apart.placed) as ingress:
        add(ingress.ready())
        host.stop()
        ingress.stop()
    shutil.rmtree(apart.data / "host-0" / "db")
    says = refused("host", "lab:Lab", "--data", str(apart.data), "--port", str(apart.frames))
    assert "VolumeLost" in says
    assert "restore the folder from a backup" in says


def test_another_hosts_volume_is_refused(apart: Apart) -> None:
    second = free_port()
    with (
        apart.host() as host,
        apart.host(name="host-1", port=second) as other,
        apart.ingress(apart.placed, f"host-1=127.0.0.1:{second}") as ingress,
    ):
        add(ingress.ready())
        for program in (host, other, ingress):
            program.stop()
    (apart.data / "host-0" / "db").rename(apart.data / "aside")
    (apart.data / "host-1" / "db").rename(apart.data / "host-0" / "db")
    assert "host-1" in refused("host", "lab:Lab", "--data", str(apart.data), "--port", str(apart.frames))


def test_a_client_that_goes_away_stops_nothing(apart: Apart) -> None:
    with apart.host(), apart.ingress(apart.placed) as ingress:
        ingress.ready()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{ingress.http.base_url}/v1/actors/LAB/a/slow", json=[0.3], timeout=0.1)
        answer = ingress.http.post("/v1/actors/LAB/a/count")
        assert answer.json() == 1  # it waited behind the slow turn, which nobody cancelled


UNREADABLE = """
import asyncio, os
from types import SimpleNamespace
from kubeactor.engine.store import StoreError
from kubeactor.processes import _run

def fail(reason):
    print(reason, flush=True)
    os._exit(70)

def read():
    raise StoreError("a read failed: EIO")

async def main(stop):
    asyncio.get_running_loop().call_soon(read)
    await stop.wait()

quiet = SimpleNamespace(tick=lambda: None, refresh=lambda: None)
_run(SimpleNamespace(fail=fail, page=quiet, quarantine=quiet, supervisor_gone=os.pipe()[0], leave_orphaned=None), main)
"""


def test_a_disk_that_cannot_be_read_replaces_the_worker_wherever_it_shows() -> None:
    done = subprocess.run([sys.executable, "-c", UNREADABLE], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (70, "a read failed: EIO\n"), done.stderr
