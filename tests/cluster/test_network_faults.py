"""Ways between pods that are cut on the nodes: calls go on over the others, and what was sent arrives later."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
from tests.cluster.conftest import HOME
from tests.cluster.faults import host_pod, kill, new_operator, processes
from tests.cluster.kube import Space, until
from tests.cluster.load import DEADLINE_S, Depositors, get, owners, post, transfer
from tests.cluster.nodes import Cluster
from tests.cluster.times import Times

pytestmark = pytest.mark.kindnodes

API_AWAY_S = 60.0
HOSTS_AWAY_S = 15.0
API_PORT = 6443


@contextmanager
def dropped(cluster: Cluster, rules: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """What matches these rules of iptables, by node, is dropped until the end of the block."""

    def change(how: str) -> None:
        for node, matches in rules.items():
            commands = [f"iptables --wait {how} {match} --jump DROP" for match in matches]
            cluster.on_node(node, "sh", "-c", " && ".join(commands))

    change("--insert")
    try:
        yield
    finally:
        change("--delete")


def test_the_api_server_is_cut_off_from_all_pods_for_a_minute_and_workers_are_killed(
    cluster: Cluster, bank: Space, load: Depositors
) -> None:
    """The nodes themselves still reach it. Neither calls nor the restart of a worker ask for it."""

    def renewed() -> str:
        (lease,) = bank.kube.get("leases", "-n", HOME)["items"]
        return str(lease["spec"]["renewTime"])

    rules = {}
    for node in cluster.kube.get("nodes")["items"]:
        there, back = f"--source {node['spec']['podCIDR']}", f"--destination {node['spec']['podCIDR']}"
        port = f"--protocol tcp --dport {API_PORT}", f"--protocol tcp --sport {API_PORT}"
        rules[node["metadata"]["name"]] = [
            *(f"{chain} {there} {port[0]}" for chain in ("FORWARD", "INPUT")),
            *(f"{chain} {back} {port[1]}" for chain in ("FORWARD", "OUTPUT")),
        ]
    with dropped(cluster, rules):
        end, last, number = time.monotonic() + API_AWAY_S, renewed(), 0
        while time.monotonic() < end:
            pod = host_pod(bank, number % 3)
            kill(cluster, pod, processes(cluster, pod)[1:])
            load.all_past(12)
            number += 1
        assert renewed() == last, "no pod reached the API server"
        cluster.kube.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=1s")
    new_operator(bank.kube, HOME)


def test_a_host_that_reaches_neither_other_hosts_nor_the_api_server_serves_and_what_it_sent_arrives_later(
    cluster: Cluster, bank: Space, load: Depositors, times: Times
) -> None:
    pod = host_pod(bank)
    address = pod["status"]["podIP"]
    others = [host_pod(bank, number)["status"]["podIP"] for number in (0, 2)]
    rules = [f"FORWARD --source {address} --protocol tcp --dport {API_PORT}"]
    for other in others:
        rules += [f"FORWARD --source {a} --destination {b}" for a, b in ((address, other), (other, address))]
    placed = owners(bank, [f"{load.books.accounts[0]}-{number}" for number in range(100)])
    payer = next(account for account, host in placed.items() if host == "host-1")
    payee = next(account for account, host in placed.items() if host == "host-0")
    post(f"/accounts/{payer}/deposit", 30, f"open-{payer}")
    with dropped(cluster, {pod["spec"]["nodeName"]: rules}):
        end = time.monotonic() + HOSTS_AWAY_S
        assert transfer(payer, payee, 30)["ok"], "the debit is on disk, the deposit is on its way"
        while time.monotonic() < end:
            load.all_past(4)
            assert get(f"/accounts/{payee}/balance")["balance"] == 0
        healed = time.time()
    until(lambda: get(f"/accounts/{payee}/balance")["balance"] == 30, "the deposit has arrived", DEADLINE_S)
    times.add("a host cut off from the others: what it sent arrives after the way is back", time.time() - healed)
