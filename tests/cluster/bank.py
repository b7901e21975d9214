"""A bank of examples/01-bank/namespace.yaml in a namespace of the test's own: who runs it, and who uses it.

It is called by the addresses of its ingress pods, so any number of them may be there at the same time.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from typing import Any, Final

import yaml
from tests.cluster.kube import KubeError, Space, until
from tests.cluster.machine import ROOT

from kubeactor.ids import identity_of_name, shard_of

__all__ = ["POD", "SMALL", "Bank", "Callers", "Refused", "accounts"]

DEADLINE_S: Final = 60.0
ADDRESS_S: Final = 10.0
PAUSE_S: Final = 0.1  # between a thread's calls: they shall notice what fails, not use up the machine
POD: Final = {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}}

# What a test that needs no more asks for: two hosts, so that one is another's neighbour.
SMALL: Final[dict[str, Any]] = {
    "shards": 8,
    "hosts": {"replicas": 2, "storage": {"size": "64Mi"}, **POD},
    "ingress": {"replicas": 1, **POD},
}


class Refused(Exception):
    """Raised when a call was answered with an error."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(f"{status}: {problem}")
        self.status = status
        self.problem = problem


class Bank:
    """One ActorNamespace; `spec` is what differs from the example's."""

    def __init__(self, space: Space, name: str = "bank", spec: Mapping[str, Any] | None = None) -> None:
        self.space = space
        self.name = name
        self._address, self._asked_at = "", float("-inf")
        self._asking = threading.Lock()
        config, self.manifest = yaml.safe_load_all((ROOT / "examples/01-bank/namespace.yaml").read_text())
        self.code: dict[str, Any] = config
        del self.manifest["spec"]["ingress"]["service"]  # the node port may be in use by another namespace
        self.manifest["metadata"]["name"] = name
        self.manifest["spec"] |= spec or {}

    @property
    def hosts(self) -> list[str]:
        """The names of its host pods."""
        return [f"{self.name}-host-{n}" for n in range(self.manifest["spec"]["hosts"]["replicas"])]

    def apply(self) -> None:
        self.space.apply(self.code, self.manifest)

    def patch(self, **spec: Any) -> None:
        self.space.kubectl("patch", "actorns", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def condition(self, type: str) -> dict[str, Any]:
        """As it is for the spec of now; empty before the operator has looked at that."""
        found = self.space.get("actorns", self.name)
        status = found.get("status", {})
        if found["metadata"]["generation"] != status.get("observedGeneration"):
            return {}
        return next((one for one in status["conditions"] if one["type"] == type), {})

    def is_(self, type: str, status: str, reason: str, timeout_s: float = 240) -> dict[str, Any]:
        """Wait for that condition."""

        def look() -> dict[str, Any] | None:
            one = self.condition(type)
            return one if (one.get("status"), one.get("reason")) == (status, reason) else None

        return self.space.until(look, f"{self.name}: {type}={status} {reason}", timeout_s)

    def serves(self) -> None:
        self.is_("Ready", "True", "Serving")
        self.is_("Progressing", "False", "UpToDate")
        self.is_("Degraded", "False", "AsExpected")

    def uids(self) -> dict[str, str]:
        return {name: self.space.get("pod", name)["metadata"]["uid"] for name in self.hosts}

    def table(self) -> dict[str, Any]:
        """The published placement table."""
        spec: dict[str, Any] = self.space.get("actorpl", self.name)["spec"]
        return spec

    def deposit(self, account: str, amount: int, key: str = "") -> int:
        return int(self.call(f"{account}/deposit", amount=amount, key=key or uuid.uuid4().hex))

    def balance(self, account: str, timeout_s: float = DEADLINE_S) -> int:
        return int(self.call(f"{account}/balance", timeout_s=timeout_s))

    def call(self, path: str, *, key: str = "", timeout_s: float = DEADLINE_S, **arguments: Any) -> Any:
        """As a client does it: after a connection error again, on a new connection, under the same key.

        Raises Refused when it is answered with an error.
        """
        headers = {"Content-Type": "application/json", "Kubeactor-Timeout": f"{timeout_s:g}"}
        headers |= {"Idempotency-Key": key} if key else {}
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                url = f"http://{self._ingress()}:8081/v1/actors/ACCOUNT/{path}"
                request = urllib.request.Request(url, json.dumps(arguments).encode(), headers)
                with urllib.request.urlopen(request, timeout=timeout_s + 10) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                raise Refused(error.code, error.read().decode()) from error
            except (OSError, http.client.HTTPException, KubeError):
                self._asked_at = float("-inf")
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def _ingress(self) -> str:
        """The address of an ingress pod. Not for long: another namespace's pod may get it."""
        with self._asking:
            if time.monotonic() > self._asked_at + ADDRESS_S:
                labels = f"kubeactor.io/namespace={self.name},app.kubernetes.io/component=ingress"
                pods = self.space.get("pods", "-l", labels)["items"]
                there = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
                found = [address for pod in there if (address := pod["status"].get("podIP"))]
                if not found:
                    raise OSError(f"{self.name} has no ingress at the moment")
                self._address, self._asked_at = found[0], time.monotonic()
            return self._address


def accounts(prefix: str = "account", shards: int = SMALL["shards"]) -> dict[int, str]:
    """An account in each shard."""
    found: dict[int, str] = {}
    for n in range(100 * shards):
        name = f"{prefix}-{n}"
        found.setdefault(shard_of(identity_of_name(name), shards), name)
    assert len(found) == shards
    return found


class Callers:
    """A thread for each shard, which deposits 1 into an account of its own, call after call; nothing may fail."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.acknowledged = dict.fromkeys(accounts(f"caller-{uuid.uuid4().hex[:6]}").values(), 0)
        self.errors: list[BaseException] = []
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._deposit, args=(account,)) for account in self.acknowledged]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        self.all_past(1)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """All shards serve once more, nothing failed, and every balance is what was acknowledged."""
        try:
            if kind is None:
                self.all_past(2)
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
        if kind is None:
            assert not self.errors, self.errors
            assert {one: self.bank.balance(one) for one in self.acknowledged} == self.acknowledged
        print(f"{self.bank.name}: longest of {sum(self.acknowledged.values())} calls {self.longest_s:.1f} s")

    def _deposit(self, account: str) -> None:
        try:
            while not self._stop.wait(PAUSE_S):
                started = time.monotonic()
                balance = self.bank.deposit(account, 1)
                self.longest_s = max(self.longest_s, time.monotonic() - started)
                self.acknowledged[account] += 1
                assert balance == self.acknowledged[account], f"a deposit into {account} was lost or applied twice"
        except BaseException as error:
            self.errors.append(error)

    def all_past(self, more: int) -> None:
        """Wait until each account had so many acknowledgements more: all shards serve."""
        wanted = {account: count + more for account, count in self.acknowledged.items()}

        def past() -> bool:
            assert not self.errors, self.errors
            return all(self.acknowledged[account] >= count for account, count in wanted.items())

        until(past, f"{more} more deposits in every shard of {self.bank.name}", 2 * DEADLINE_S)
