"""How long the quick faults are felt: 20 runs of each, one after the other, under the load. Printed, never asserted.

The time to the first success is of the shards of the host that is hit: the longest time, since the fault, in which none
of its accounts was answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tests.cluster.faults import host_pod, kill, processes
from tests.cluster.kube import Space
from tests.cluster.load import DEADLINE_S, Depositors, owners
from tests.cluster.nodes import Cluster
from tests.cluster.times import Times

pytestmark = [pytest.mark.kindnodes, pytest.mark.measures, pytest.mark.timeout(900)]

RUNS = 20
HOSTS = 3


class Felt:
    """What the owners of the accounts of one host after the other feel."""

    def __init__(self, bank: Space, load: Depositors, times: Times) -> None:
        self.bank = bank
        self.load = load
        self.times = times
        self._owners = owners(bank, load.books.accounts)

    def runs(self, fault: str, count: int, once: Callable[[int], float]) -> None:
        """Measure that often; `once` makes the fault at the host of that number, and tells when it began."""
        for run in range(count):
            number = run % HOSTS
            accounts = {account for account, host in self._owners.items() if host == f"host-{number}"}
            began = once(number)
            self.load.all_past(2)  # the second of these calls began after the fault
            self.times.add(f"{fault}: first success", self.load.books.silence_s(accounts, began))
            self.times.add(f"{fault}: longest call", self.load.books.longest_s(began))

    def waits(self, pod: str, condition: str) -> None:
        """For the pod, by one command that watches: to ask again and again would cost what is measured CPU."""

        def look() -> str:
            return self.bank.kubectl("wait", f"pod/{pod}", f"--for={condition}", f"--timeout={DEADLINE_S:g}s")

        self.bank.until(look, f"{condition} of {pod}")  # for a moment there may be none


@pytest.fixture
def felt(bank: Space, load: Depositors, times: Times) -> Felt:
    return Felt(bank, load, times)


def test_no_call_fails_when_workers_are_killed(cluster: Cluster, felt: Felt) -> None:
    def once(number: int) -> float:
        pod = host_pod(felt.bank, number)
        return kill(cluster, pod, processes(cluster, pod)[1:])

    felt.runs("worker killed", RUNS, once)


@pytest.mark.parametrize(
    ("fault", "how"),
    [("pod deleted", []), ("pod deleted by force", ["--force", "--grace-period=0"])],
    ids=["gracefully", "by force"],
)
def test_no_call_fails_when_host_pods_are_deleted(felt: Felt, fault: str, how: list[str]) -> None:
    def once(number: int) -> float:
        pod, began = f"bank-host-{number}", time.time()
        felt.bank.kubectl("delete", "pod", pod, *how)
        felt.waits(pod, "jsonpath={.status.phase}=Running")  # the one before has ended by then, however it was deleted
        return began

    felt.runs(fault, RUNS, once)


@pytest.mark.parametrize("killed", ["container killed", "all processes of the container killed at once"])
def test_no_call_fails_when_containers_are_killed(cluster: Cluster, felt: Felt, killed: str) -> None:
    """Once each host, and each time in a new pod: from the second crash of a pod on kubelet waits 10 s and longer."""

    def once(number: int) -> float:
        pod = host_pod(felt.bank, number)
        if pod["status"]["containerStatuses"][0]["restartCount"]:
            felt.bank.kubectl("delete", "pod", pod["metadata"]["name"])
            felt.waits(pod["metadata"]["name"], "condition=Ready")
            pod = host_pod(felt.bank, number)
        running = processes(cluster, pod)
        assert len(running) >= 2, "a supervisor and its worker"
        return kill(cluster, pod, running if "all" in killed else running[:1])

    felt.runs(killed, HOSTS, once)
