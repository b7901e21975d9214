"""The power of a node goes off: no FIN, no RST, nobody who says that it is gone."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from tests.cluster.faults import ingress_pods
from tests.cluster.kube import Space, until
from tests.cluster.load import DEADLINE_S, Depositors, owners, placement, post, ready
from tests.cluster.nodes import Cluster
from tests.cluster.times import Times
from tests.harness.client import Answer, Client

from kubeactor.ids import identity_of_name, shard_of

pytestmark = pytest.mark.kindnodes

PATIENCE_S: Final = 1  # of who wants to be told: the call of anybody else waits for its host, up to its deadline
FUNDS: Final = 7
HTTP: Final = 8080


class Site:
    """Which node to turn off, so that hosts and an ingress are left, and an account in each shard.

    Attributes:
        node: its name; uids: those of its host pods.
        address: of an ingress on another node, since some of the calls to the Service go to the node that is gone.
        lost, kept: accounts of the hosts on it, and of all others.
    """

    def __init__(self, bank: Space) -> None:
        pods = bank.get("pods", "-l", "app.kubernetes.io/component=host")["items"]
        nodes = [pod["spec"]["nodeName"] for pod in pods]
        left = {node: [one for one in ingress_pods(bank) if one["spec"]["nodeName"] != node] for node in nodes}
        chosen = [node for node in left if left[node] and nodes.count(node) < len(nodes)]
        assert chosen, "the hosts are on two nodes, and an ingress is left"
        self.node = min(chosen, key=nodes.count)
        self.address = left[self.node][0]["status"]["podIP"], HTTP
        here = [pod for pod in pods if pod["spec"]["nodeName"] == self.node]
        self.uids = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in here}
        owned = owners(bank, one_a_shard(placement(bank).shards))
        self.lost = [account for account, host in owned.items() if f"bank-{host}" in self.uids]
        self.kept = [account for account in owned if account not in self.lost]

    def asked(self, accounts: Iterable[str], patience_s: int | None = None) -> list[Answer]:
        """The balances of all these accounts, asked for at once."""

        async def one(account: str) -> Answer:
            header = f"Kubeactor-Timeout: {patience_s}\r\n" if patience_s else ""
            client = Client(self.address[1], host=self.address[0])
            try:
                request = f"GET /accounts/{account}/balance HTTP/1.1\r\nHost: t\r\n{header}\r\n"
                return await client.connection.request(request.encode(), DEADLINE_S)
            finally:
                client.close()

        async def main() -> list[Answer]:
            return list(await asyncio.gather(*map(one, accounts)))

        return asyncio.run(main())


def one_a_shard(shards: int) -> list[str]:
    prefix, found = uuid.uuid4().hex[:6], dict[int, str]()
    number = 0
    while len(found) < shards:
        name = f"{prefix}-{number}"
        found.setdefault(shard_of(identity_of_name(name), shards), name)
        number += 1
    return list(found.values())


@contextmanager
def off(cluster: Cluster, node: str) -> Iterator[None]:
    """No power from here to the end of the block."""
    cluster.run("docker", "kill", node)
    try:
        yield
    finally:
        cluster.run("docker", "start", node)
        cluster.kube.kubectl("wait", f"node/{node}", "--for=condition=Ready", "--timeout=120s")


def unavailable(answer: Answer) -> bool:
    return answer.status == 503 and answer.value["name"] == "ActorShardUnavailableError"


def test_without_power_only_the_shards_of_that_node_are_unavailable_and_then_serve_with_their_data(
    cluster: Cluster, bank: Space, times: Times
) -> None:
    ready(bank)
    site = Site(bank)
    for account in site.lost:
        post(f"/accounts/{account}/deposit", FUNDS, f"open-{account}")
    with Depositors(site.address, site.kept) as load:
        load.all_past(2)
        killed = time.time()
        with off(cluster, site.node):
            until(lambda: all(map(unavailable, site.asked(site.lost, PATIENCE_S))), "503 of each shard", DEADLINE_S)
            times.add("power off: 503 for a caller who waits 1 s, of all shards of the node", time.time() - killed)
            load.all_past(2)
            bank.kube.kubectl("wait", f"node/{site.node}", "--for=condition=Ready=Unknown", "--timeout=120s")
            times.add("power off: Kubernetes says that the node is not ready", time.time() - killed)
            answers = site.asked(site.lost, PATIENCE_S)
            assert all(unavailable(answer) and b"\r\nretry-after: " in answer.head.lower() for answer in answers)
            load.all_past(2)
        back = time.time()
        for pod, uid in site.uids.items():
            metadata = bank.get("pod", pod)["metadata"]
            assert (metadata["uid"], "deletionTimestamp" in metadata) == (uid, False), "nobody deleted it"
        answers = site.asked(site.lost)
        times.add("power on: all shards serve after the node is Ready", time.time() - back)
        assert [(answer.status, answer.value["balance"]) for answer in answers] == [(200, FUNDS)] * len(site.lost)
        load.all_past(2)
    load.settle()
    cluster.kube.kubectl("-n", "kube-system", "wait", "pod", "--all", "--for=condition=Ready", "--timeout=100s")
    ready(bank)
