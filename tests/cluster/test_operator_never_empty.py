"""Whatever is deleted, emptied or put back by hand: the balances are what they were, or 503 with the reason.

One small bank with an account in each shard; what a test gives up it says.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.chart.helm import CHART, previous_chart
from tests.cluster.bank import SMALL, Bank, Callers, Refused, accounts
from tests.cluster.conftest import HOME, lasting_space
from tests.cluster.nodes import Cluster
from tests.cluster.published import Published

pytestmark = pytest.mark.kindnodes

LOST = "bank-host-1"
CLAIM = f"data-{LOST}"
ACCOUNTS = accounts()
BACKUP = "/var/kubeactor-backup"


@pytest.fixture(scope="module")
def vault(cluster: Cluster, operator: None, published: Published) -> Iterator[Bank]:
    """A bank whose account of shard n has 100 + n."""
    with lasting_space(cluster, "empty") as space:
        made = Bank(space, spec=SMALL)
        made.apply()
        made.serves()
        for shard, account in ACCOUNTS.items():
            made.deposit(account, 100 + shard)
        yield made
        published.check(space.name, restarted_by_users=True)


def owned(vault: Bank, host: str = LOST) -> set[int]:
    """The shards that the table gives to a host."""
    text = vault.table()["hosts"][host.removeprefix("bank-")]["shards"]
    ends = [part.partition("-") for part in text.split(",")]
    return {shard for first, _, last in ends for shard in range(int(first), int(last or first) + 1)}


def all_there(vault: Bank, but: set[int] | None = None, otherwise: int = 0) -> None:
    """The balances; those of some shards are another one."""
    wanted = {shard: otherwise if shard in (but or ()) else 100 + shard for shard in ACCOUNTS}
    assert {shard: vault.balance(account) for shard, account in ACCOUNTS.items()} == wanted


def refused(vault: Bank, shards: set[int]) -> None:
    """Calls of these are answered with 503 and why; all others with the balance."""
    for shard, account in ACCOUNTS.items():
        if shard not in shards:
            assert vault.balance(account) == 100 + shard
            continue
        with pytest.raises(Refused) as error:
            vault.balance(account, timeout_s=2)
        assert error.value.status == 503
        assert json.loads(error.value.problem)["name"] == "ActorShardUnavailableError"


def volume(cluster: Cluster, vault: Bank) -> tuple[str, str]:
    """Node and folder of the host's volume."""
    name = vault.space.get("pvc", CLAIM)["spec"]["volumeName"]
    spec = cluster.kube.get("pv", name)["spec"]
    (term,) = spec["nodeAffinity"]["required"]["nodeSelectorTerms"]
    path = (spec.get("hostPath") or spec.get("local"))["path"]
    assert path.startswith("/var/local-path-provisioner/"), path
    return term["matchExpressions"][0]["values"][0], path


@contextmanager
def away(cluster: Cluster, vault: Bank) -> Iterator[tuple[str, str]]:
    """The host's pod can't run meanwhile, on the one node that has its volume."""
    node, path = volume(cluster, vault)
    before = vault.space.get("pod", LOST)["metadata"]["uid"]
    cluster.kube.kubectl("cordon", node)
    try:
        vault.space.kubectl("delete", "pod", LOST, "--wait=false")

        def pending() -> bool:
            pod = vault.space.get("pod", LOST)
            return pod["metadata"]["uid"] != before and not pod["spec"].get("nodeName")

        vault.space.until(pending, f"{LOST} waits for its node")
        yield node, path
    finally:
        cluster.kube.kubectl("uncordon", node)


def test_a_stateful_set_that_is_deleted_by_hand_comes_back_with_its_data(vault: Bank) -> None:
    before = vault.uids()
    with Callers(vault):
        vault.space.kubectl("delete", "statefulset", "bank-host", "--wait=false")
        vault.space.until(lambda: not set(before.values()) & set(vault.uids().values()), "both hosts are made anew")
        vault.serves()
    all_there(vault)


def test_an_emptied_volume_serves_nothing_until_it_is_restored(cluster: Cluster, vault: Bank) -> None:
    lost = owned(vault)
    assert 0 < len(lost) < len(ACCOUNTS)
    with away(cluster, vault) as (node, path):
        cluster.on_node(node, "rm", "-rf", BACKUP)
        cluster.on_node(node, "cp", "-a", path, BACKUP)
        cluster.on_node(node, "find", path, "-mindepth", "1", "-delete")
    told = vault.is_("Degraded", "True", "VolumeLost")
    assert f"kubeactor forget bank {LOST.removeprefix('bank-')} --accept-data-loss" in told["message"]
    refused(vault, lost)
    vault.is_("Ready", "False", "HostsNotServing")
    with away(cluster, vault) as (node, path):
        cluster.on_node(node, "find", path, "-mindepth", "1", "-delete")
        cluster.on_node(node, "cp", "-a", f"{BACKUP}/.", path)
    vault.serves()
    all_there(vault)


def test_a_claim_that_is_made_anew_serves_nothing_until_its_data_is_given_up_and_no_older_table_brings_that_back(
    cluster: Cluster, published: Published, vault: Bank
) -> None:
    space, lost, before = vault.space, owned(vault), vault.table()
    published.given_up.add((space.name, CLAIM))
    uid = space.get("pvc", CLAIM)["metadata"]["uid"]
    with away(cluster, vault):
        space.kubectl("delete", "pvc", CLAIM, "--wait=false")
        space.until(lambda: space.get("pvc", CLAIM)["metadata"]["uid"] != uid, "a new claim")
    vault.is_("Degraded", "True", "VolumeLost")
    refused(vault, lost)
    command = [sys.executable, "-m", "kubeactor", "forget", "bank", LOST.removeprefix("bank-"), "-n", space.name]
    subprocess.run([*command, "--accept-data-loss"], env=cluster.kube.environment, check=True, timeout=60)
    vault.serves()
    all_there(vault, lost, 0)
    for shard in lost:
        assert vault.deposit(ACCOUNTS[shard], 7) == 7
    now = vault.table()
    assert now["hosts"]["host-0"] == before["hosts"]["host-0"]
    assert now["epochs"] != before["epochs"]
    first = published.of(space.name, "ActorPlacement")[0].object["spec"]
    assert first["epochs"] == "", "of the moment before the shards were granted"
    for older in (before, first):
        with Callers(vault):
            put_back(published, vault, older)
            space.until(lambda: vault.table() == now, "the table that the volumes tell of")
        vault.serves()
        all_there(vault, lost, 7)


def put_back(published: Published, vault: Bank, spec: dict[str, Any]) -> None:
    """Over the table of now, as from a backup."""
    whole = vault.space.get("actorpl", "bank")
    whole["spec"] = spec
    told = vault.space.kubectl("replace", "--force=false", "-o", "json", "-f", "-", stdin=json.dumps(whole))
    published.by_hand.add((vault.space.name, int(json.loads(told)["metadata"]["resourceVersion"])))


def test_an_upgrade_of_chart_and_crds_under_load_changes_no_balance_and_restarts_no_host(
    cluster: Cluster, vault: Bank, tmp_path: Path
) -> None:
    before, balances = vault.uids(), {account: vault.balance(account) for account in ACCOUNTS.values()}
    crd = ("get", "crd", "actornamespaces.kubeactor.io", "-o", "jsonpath={.metadata.generation}")
    with Callers(vault):
        generation = int(cluster.kube.kubectl(*crd))
        for chart in (previous_chart(tmp_path), CHART):
            command = ["helm", "upgrade", "kubeactor", str(chart), "--namespace", HOME, "--force-conflicts"]
            marked = ["--set", f"podAnnotations.chart={'now' if chart == CHART else 'before'}"]
            cluster.run(*command, *marked, "--wait", "--timeout", "5m", timeout_s=400)
        assert int(cluster.kube.kubectl(*crd)) >= generation
        vault.patch(ingress={"podLabels": {"upgraded": "yes"}})
        vault.serves()
    assert vault.uids() == before
    assert {account: vault.balance(account) for account in ACCOUNTS.values()} == balances
