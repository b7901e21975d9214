"""How long the quick faults are felt: 20 runs of each, one after the other, under the load. Printed, never asserted.

The time to the first success is of the shards of the host that is hit. A process dies at a moment that is known:
it is from there to the first success of a call that began later. A pod that is deleted serves for a while yet: it is
the longest time in which none of its accounts was answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tests.cluster.faults import host_pod, kill, processes
from tests.cluster.kube import Space, until
from tests.cluster.load import DEADLINE_S, Depositors, owners
from tests.cluster.nodes import Cluster
from tests.cluster.times import Times

pytestmark = [pytest.mark.kindnodes, pytest.mark.timeout(900)]

RUNS = 20
HOSTS = 3


class Felt:
    """What the owners of the accounts of one host after the other feel."""

    def __init__(self, bank: Space, load: Depositors, times: Times) -> None:
        self.bank = bank
        self.load = load
        self.times = times
        self._owners = owners(bank, load.books.accounts)

    def runs(self, fault: str, count: int, once: Callable[[int, set[str]], tuple[float, float]]) -> None:
        """Measure that often; `once` gets the host's number and its accounts, and tells when it began and was over."""
        for run in range(count):
            number = run % HOSTS
            accounts = {account for account, host in self._owners.items() if host == f"host-{number}"}
            assert accounts
            began, felt_s = once(number, accounts)
            self.load.all_past(1)
            self.times.add(f"{fault}: first success", felt_s)
            self.times.add(f"{fault}: longest call", self.load.books.longest_s(began))

    def success(self, accounts: set[str], since: float) -> float:
        return until(lambda: self.load.books.first_success_s(accounts, since), "a success after the fault", DEADLINE_S)

    def waits(self, pod: str, condition: str) -> None:
        """For the pod, by one command that watches: to ask again and again would cost what is measured CPU."""

        def look() -> str:
            return self.bank.kubectl("wait", f"pod/{pod}", f"--for={condition}", f"--timeout={DEADLINE_S:g}s")

        self.bank.until(look, f"{condition} of {pod}")  # for a moment there may be none


@pytest.fixture
def felt(bank: Space, load: Depositors, times: Times) -> Felt:
    return Felt(bank, load, times)


def test_no_call_fails_when_workers_are_killed(cluster: Cluster, felt: Felt) -> None:
    def once(number: int, accounts: set[str]) -> tuple[float, float]:
        pod = host_pod(felt.bank, number)
        killed = kill(cluster, pod, processes(cluster, pod)[1:])
        return killed, felt.success(accounts, killed)

    felt.runs("worker killed", RUNS, once)


@pytest.mark.parametrize(
    ("fault", "how"),
    [("pod deleted", []), ("pod deleted by force", ["--force", "--grace-period=0"])],
    ids=["gracefully", "by force"],
)
def test_no_call_fails_when_host_pods_are_deleted(felt: Felt, fault: str, how: list[str]) -> None:
    def once(number: int, accounts: set[str]) -> tuple[float, float]:
        pod, began = f"bank-host-{number}", time.time()
        felt.bank.kubectl("delete", "pod", pod, *how)
        felt.waits(pod, "jsonpath={.status.phase}=Running")  # the one before has ended by then, however it was deleted
        felt.success(accounts, time.time())
        return began, felt.load.books.silence_s(accounts, began)

    felt.runs(fault, RUNS, once)


@pytest.mark.parametrize("killed", ["container killed", "all processes of the container killed at once"])
def test_no_call_fails_when_containers_are_killed(cluster: Cluster, felt: Felt, killed: str) -> None:
    """Once each host, and each time in a new pod: from the second crash of a pod on kubelet waits 10 s and longer."""

    def once(number: int, accounts: set[str]) -> tuple[float, float]:
        pod = host_pod(felt.bank, number)
        if pod["status"]["containerStatuses"][0]["restartCount"]:
            felt.bank.kubectl("delete", "pod", pod["metadata"]["name"])
            felt.waits(pod["metadata"]["name"], "condition=Ready")
            pod = host_pod(felt.bank, number)
        running = processes(cluster, pod)
        assert len(running) >= 2, "a supervisor and its worker"
        at = kill(cluster, pod, running if "all" in killed else running[:1])
        return at, felt.success(accounts, at)

    felt.runs(killed, HOSTS, once)
