"""A load that meets full disks: what is refused for want of room is counted, everything else has to succeed."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from tests.cluster.kube import until

__all__ = ["Payers", "call"]

ANSWER_S = 90.0  # the ingress answers within 60
PAUSE_S = 0.02
UNKNOWN = (503, 504)  # the host is away, or the deadline passed: the same call again, under its key


def call(url: str, body: Mapping[str, Any] | None = None, **headers: str) -> tuple[int, Any]:
    """Status and answer, as JSON if it is; a POST if there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode()


class Payers:
    """A thread for each account, which deposits 1 into it, call after call.

    Attributes:
        acknowledged, refused: by account, how many deposits were; refused is for want of room, with 507.
        longest_s: the longest wait for an answer.
    """

    def __init__(self, url: str, accounts: Sequence[str]) -> None:
        self.accounts = list(accounts)
        self.acknowledged = dict.fromkeys(accounts, 0)
        self.refused = dict.fromkeys(accounts, 0)
        self.errors: list[BaseException] = []
        self.longest_s = 0.0
        self._url = f"{url}/accounts"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._pay, args=(account,)) for account in accounts]

    def __enter__(self) -> Payers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _pay(self, account: str) -> None:
        try:
            while not self._stop.wait(PAUSE_S):
                self._deposit(account)
        except BaseException as error:
            self.errors.append(error)

    def _deposit(self, account: str) -> None:
        key, status = uuid.uuid4().hex, UNKNOWN[0]
        while status in UNKNOWN:
            started = time.monotonic()
            status, answer = call(f"{self._url}/{account}/deposit", {"amount": 1}, **{"Idempotency-Key": key})
            self.longest_s = max(self.longest_s, time.monotonic() - started)
        if status == 507:
            assert answer["name"] == "StorageLimitError", answer
            self.refused[account] += 1
            return
        assert status == 200, answer
        self.acknowledged[account] += 1
        assert answer["balance"] == self.acknowledged[account], "a deposit was lost or applied twice"

    def balance(self, account: str) -> int:
        """As the bank tells it."""
        status, answer = call(f"{self._url}/{account}/balance")
        assert status == 200, answer
        return int(answer["balance"])

    def all_past(self, more: int) -> None:
        """Wait until every account had so many acknowledgements more."""
        self._until(self.acknowledged, self.accounts, more)

    def all_refused(self, accounts: Sequence[str]) -> None:
        """Wait until each of these accounts was refused a few times in a row."""
        self._until(self.refused, accounts, 3)

    def _until(self, counts: Mapping[str, int], accounts: Sequence[str], more: int) -> None:
        wanted = {account: counts[account] + more for account in accounts}

        def past() -> bool:
            assert not self.errors, self.errors
            return all(counts[account] >= count for account, count in wanted.items())

        until(past, f"{more} more of each of {counts}", ANSWER_S * 2)

    def settle(self) -> None:
        """Nothing failed, and every balance is what was acknowledged."""
        assert not self.errors, self.errors
        assert {account: self.balance(account) for account in self.accounts} == self.acknowledged
