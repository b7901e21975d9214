"""The whole path on a real cluster: the bank's own manifest, real hosts on real volumes, the operator a process here.

It runs beside the engine of the nodes, where pods can be reached, so that its coverage counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.bank import Bank
from tests.cluster.beside import operator
from tests.cluster.kube import KubeError, Space
from tests.cluster.machine import ROOT
from tests.cluster.nodes import Cluster, Images
from tests.cluster.published import Published


@pytest.fixture
def crds(cluster: Cluster) -> Iterator[None]:
    """Those of this checkout, unless a chart brought them: then they stay as they are, and stay."""
    kube, files = cluster.kube, sorted((ROOT / "crds").glob("*.yaml"))
    if "actornamespaces.kubeactor.io" in kube.kubectl("get", "crd", "-o", "name"):
        yield
        return
    kube.apply(*files)
    kube.kubectl("wait", "--for=condition=Established", "crd", "actornamespaces.kubeactor.io", "--timeout=60s")
    yield
    for file in files:
        kube.kubectl("delete", "-f", str(file))


@pytest.fixture
def watched(crds: None, space: Space) -> Iterator[None]:
    """Every version of what is published in that namespace keeps the rules, over deletion and adoption too."""
    with Published(space.kube) as published:
        yield
        published.check(space.name, restarted_by_users=True)


@pytest.mark.kindnodes
@pytest.mark.timeout(900)  # some five minutes on two cores that do nothing else
@pytest.mark.usefixtures("watched")
def test_the_bank_is_applied_changed_hibernated_deleted_and_adopted_with_all_its_money(
    space: Space, images: Images, tmp_path: Path
) -> None:
    kube, bank, log = space.kube, Bank(space), tmp_path / "operator.log"
    hosts = bank.hosts
    with operator(kube, space.name, images, log):
        bank.apply()
        bank.serves()
        accounts = [f"account-{n}" for n in range(8)]
        for n, account in enumerate(accounts):
            bank.deposit(account, 100 + n)

        def all_there() -> None:
            assert [bank.balance(account) for account in accounts] == [100 + n for n in range(8)]

        all_there()
        before = bank.uids()
        bank.patch(actors=[{"binding": "ACCOUNT", "class": "bank:Nobody"}])
        bank.is_("Degraded", "True", "PreflightFailed")
        bank.is_("Ready", "True", "Serving")
        assert bank.uids() == before
        all_there()
        bank.patch(actors=[{"binding": "ACCOUNT", "class": "bank:Account"}], env=[{"name": "LEVEL", "value": "2"}])
        space.until(lambda: not set(bank.uids().values()) & set(before.values()), "all hosts restarted", 300)
        bank.serves()
        all_there()
        space.kubectl("delete", "actorpl", "bank")
        space.until(lambda: space.get("actorpl", "bank")["spec"]["epochs"] == "0-63:1", "the table rebuilt")
        all_there()
        bank.patch(hosts={"replicas": 0})
        bank.is_("Ready", "False", "Hibernated")
        space.until(lambda: _none(space, *hosts), "hosts gone")
        bank.patch(hosts={"replicas": 3})
        bank.serves()
        all_there()
        listed = space.get("all,actorns,actorpl,configmaps,secrets,roles,rolebindings,pdb,networkpolicies,leases")
        assert [one["metadata"]["name"] for one in listed["items"] if one["metadata"].get("finalizers")] == []
    space.kubectl("delete", "actorns", "bank")  # nobody has to allow it
    space.until(lambda: _none(space, *hosts), "garbage collection")
    with operator(kube, space.name, images, log):
        bank.apply()
        bank.is_("Degraded", "True", "VolumesOfAnotherNamespace")
        assert _none(space, *hosts)
        bank.patch(hosts={"storage": {"adopt": True}})
        bank.serves()
        all_there()


def _none(space: Space, *pods: str) -> bool:
    for pod in pods:
        try:
            space.get("pod", pod)
        except KubeError:
            continue
        return False
    return True
