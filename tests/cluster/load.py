"""The load under which faults are made: calls as a client makes them, and what must be true of them afterwards."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from typing import Any

from tests.cluster.kube import Space, until

__all__ = ["DEADLINE_S", "Depositors", "get", "post", "ready"]

URL = "http://127.0.0.1:30080"  # kind-config.yaml and namespace.yaml
DEADLINE_S = 60.0


def post(path: str, amount: int, key: str) -> dict[str, Any]:
    """A call as a client makes it: after a connection error again, on a new connection, under the same key."""
    body = json.dumps({"amount": amount}).encode()
    headers = {"content-type": "application/json", "idempotency-key": key}
    return send(urllib.request.Request(URL + path, body, headers))


def get(path: str) -> dict[str, Any]:
    return send(urllib.request.Request(URL + path))


def send(request: urllib.request.Request) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
                result: dict[str, Any] = json.load(answer)
                return result
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{error.code}: {error.read().decode()}") from error
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Depositors:
    """Threads that each deposit 1 into accounts of their own, call after call, and count what was acknowledged."""

    def __init__(self, count: int = 8) -> None:
        self.prefix = uuid.uuid4().hex[:8]
        self.acknowledged = [0] * count
        self.errors: list[BaseException] = []
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._deposit, args=(index,)) for index in range(count)]

    def __enter__(self) -> Depositors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def account(self, index: int) -> str:
        return f"{self.prefix}-{index}"

    def _deposit(self, index: int) -> None:
        try:
            while not self._stop.is_set():
                started = time.monotonic()
                answer = post(f"/accounts/{self.account(index)}/deposit", 1, uuid.uuid4().hex)
                self.longest_s = max(self.longest_s, time.monotonic() - started)
                self.acknowledged[index] += 1
                assert answer["balance"] == self.acknowledged[index], "a deposit was lost or applied twice"
        except BaseException as error:
            self.errors.append(error)

    def all_past(self, more: int) -> None:
        """Wait until every thread had so many acknowledgements more: all of their shards serve."""
        wanted = [count + more for count in self.acknowledged]

        def past() -> bool:
            assert not self.errors, self.errors
            return all(have >= want for have, want in zip(self.acknowledged, wanted, strict=True))

        until(past, f"{more} more deposits in every account", DEADLINE_S * 2)

    def settle(self) -> None:
        """Nothing failed, and every balance is what was acknowledged."""
        assert not self.errors, self.errors
        for index, count in enumerate(self.acknowledged):
            assert get(f"/accounts/{self.account(index)}/balance")["balance"] == count


def ready(bank: Space) -> None:
    """The condition that is earned: every host answered a probe through an ingress."""

    def look() -> bool:
        conditions = bank.get("actornamespace", "bank").get("status", {}).get("conditions", [])
        status = {condition["type"]: condition["status"] for condition in conditions}
        return status.get("Ready") == "True" and status.get("Progressing") == "False"

    bank.until(look, "ActorNamespace bank Ready", 300)
