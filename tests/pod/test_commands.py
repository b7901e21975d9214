"""`kubeactor where` and `kubeactor forget` against an API server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.harness.fake_api import NAMESPACE, NAMESPACES, PLACEMENTS, FakeApi, fake_api, placement
from tests.harness.pods import UID
from tests.harness.program import COMMAND, ENVIRONMENT, refused

from kubeactor.ids import shard_of

OWNERS = ["host-0", "host-1", "host-0", None]
VOLUMES = {"host-0": "vol-0", "host-1": "vol-1"}


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as api:
        api.put(PLACEMENTS, "bank", spec=placement(UID, OWNERS, VOLUMES, epoch=3), metadata={"uid": "table-1"})
        api.put(NAMESPACES, "bank", spec={})
        yield api


def environment(api: FakeApi, folder: Path) -> dict[str, str]:
    return {"KUBECONFIG": str(api.kubeconfig(folder / "kubeconfig"))}


def said(api: FakeApi, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*COMMAND, *arguments], env={**ENVIRONMENT, **environment(api, folder)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def named(shard: int) -> str:
    return next(f"n{i}" for i in range(1000) if shard_of(b"n%d" % i, len(OWNERS)) == shard)


def test_where_tells_shard_host_pod_and_epoch(api: FakeApi, tmp_path: Path) -> None:
    name = named(1)
    told = said(api, tmp_path, "where", "bank", name, "--binding", "ACCOUNT").splitlines()
    assert told == [
        f"instance  ACCOUNT/{name}",
        "shard     1",
        "host      host-1",
        "pod       bank-host-1",
        "epoch     3",
    ]
    assert said(api, tmp_path, "where", "bank", name, "-n", NAMESPACE).splitlines()[1:] == told[1:]


def test_where_tells_that_a_shard_has_no_owner(api: FakeApi, tmp_path: Path) -> None:
    assert "host      none at the moment, its calls wait" in said(api, tmp_path, "where", "bank", named(3))


def test_what_cannot_be_told_is_refused_in_one_sentence(api: FakeApi, tmp_path: Path) -> None:
    settings = environment(api, tmp_path)
    assert '"nobody" not found' in refused("where", "nobody", "alice", environment=settings)
    assert "at most 1024 bytes" in refused("where", "bank", "x" * 2000, environment=settings)
    api.put(PLACEMENTS, "bank", spec={"format": 99, "namespace": UID, "shards": 1, "hosts": {}})
    assert "format 99" in refused("where", "bank", "alice", environment=settings)
    api.stop()
    assert "the API server can't be asked" in refused("where", "bank", "alice", environment=settings)
    (tmp_path / "kubeconfig").unlink()
    (said,) = refused("where", "bank", "alice", environment=settings).splitlines()
    assert f"there is no {tmp_path / 'kubeconfig'}; set KUBECONFIG" in said
    (said,) = refused("where", "bank", "alice", environment={"HOME": str(tmp_path)}).splitlines()
    assert "there is no ~/.kube/config; set KUBECONFIG" in said


def test_forget_says_what_would_be_lost_and_changes_nothing(api: FakeApi, tmp_path: Path) -> None:
    says = refused("forget", "bank", "host-0", environment=environment(api, tmp_path))
    assert "host-0 of bank holds 2 of 4 shards on volume vol-0" in says
    assert "--accept-data-loss" in says
    assert api.patches == []


def test_forget_names_the_recorded_volume_in_the_annotation(api: FakeApi, tmp_path: Path) -> None:
    assert "forget volume vol-1 of host-1" in said(api, tmp_path, "forget", "bank", "host-1", "--accept-data-loss")
    assert api.patches == [("bank", {"metadata": {"annotations": {"kubeactor.io/forget-host-1": "vol-1:table-1/3"}}})]


def test_a_host_that_the_table_does_not_list_can_be_forgotten_too(api: FakeApi, tmp_path: Path) -> None:
    api.put(NAMESPACES, "bank", spec={"hosts": {"replicas": 3}})
    says = refused("forget", "bank", "host-2", environment=environment(api, tmp_path))
    assert "host-2 of bank is not in the table, and might hold 1 that have no owner" in says
    assert "forget whatever host-2 held" in said(api, tmp_path, "forget", "bank", "host-2", "--accept-data-loss")
    assert api.patches == [("bank", {"metadata": {"annotations": {"kubeactor.io/forget-host-2": ":table-1/3"}}})]


def test_forget_of_a_host_that_there_is_not_is_refused(api: FakeApi, tmp_path: Path) -> None:
    says = refused("forget", "bank", "host-7", "--accept-data-loss", environment=environment(api, tmp_path))
    assert "bank has no host-7, it has host-0, host-1" in says
    assert api.patches == []
