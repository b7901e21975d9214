"""What all connections of an ingress share: the way to the actors, request ids, counters, repeated calls."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Collection
from typing import Any, Final, Protocol

from kubeactor.call import CLIENT, DAY, LOCAL, Call, CallId, Dispatcher
from kubeactor.errors import ActorError, ActorReentrancyError
from kubeactor.ingress.problem import Answer, problem_of, result_of

__all__ = ["Ingress", "IngressStats", "Route"]

# A broken cycle is tried again after a random wait within [0.5, 1.5) of this, doubled each time up to the bound.
CYCLE_WAIT_S: Final = 0.01
CYCLE_WAIT_MAX_S: Final = 1.0

LATENCY_BUCKETS: Final = 32  # powers of two of microseconds: the last but one ends above an hour
BUCKET_S: Final = 600


class Route(Dispatcher, Protocol):
    """A dispatcher that also knows the epoch of each shard: the engine of a host, the router of an ingress."""

    def epoch_of(self, shard: int) -> int:
        """The epoch under which the shard is served now."""


class IngressStats:
    """Plain counters, read when metrics are scraped.

    Attributes:
        ok: answers with status 200 of the fast path; codes: all other answers, by status.
        latency: actor calls by the bit length of their time in microseconds; latency_us: the sum of those times.
        dropped: replies whose client had gone; cycles: calls that were repeated since a cycle was broken.
    """

    __slots__ = ("codes", "connections", "cycles", "dropped", "expired", "latency", "latency_us", "ok")

    def __init__(self) -> None:
        self.ok = 0
        self.codes: dict[int, int] = {}
        self.latency = [0] * LATENCY_BUCKETS
        self.latency_us = 0
        self.dropped = 0
        self.cycles = 0
        self.expired = 0
        self.connections = 0

    def count(self, status: int) -> None:
        """Note an answer."""
        self.codes[status] = self.codes.get(status, 0) + 1

    def took(self, seconds: float) -> None:
        """Note how long an actor call took."""
        microseconds = int(seconds * 1_000_000)
        self.latency_us += microseconds
        self.latency[min(microseconds.bit_length(), LATENCY_BUCKETS - 1)] += 1


class Ingress:
    """One per process and set of ports.

    Args:
        dispatcher: takes the calls.
        bindings: the application's, to refuse unknown ones at once; None where the application is not loaded.
        dev: whether the text of unexpected exceptions goes to the client.
    """

    def __init__(self, dispatcher: Route, bindings: Collection[str] | None = None, *, dev: bool = False) -> None:
        self.dispatcher = dispatcher
        self.bindings = None if bindings is None else frozenset(bindings)
        self.dev = dev
        self.stats = IngressStats()
        self.requests = 0
        self._session = secrets.token_bytes(8)
        self.session = self._session.hex()

    def next_request(self) -> int:
        """The number of a new request."""
        self.requests += 1
        return self.requests

    def request_id(self, number: int) -> str:
        """The id that the client sees: the process's random part and the request's number, as 32 hex digits."""
        return f"{self.session}{number:016x}"

    def root(self, number: int) -> bytes:
        """The root token of a request: the youngest in a cycle has the highest, and gives way."""
        return self._session + number.to_bytes(8, "big")

    def call_id(self, root: bytes, key: bytes | None) -> tuple[CallId, int]:
        """The call id of a request, by its root token and the client's key, and the bucket of results below it."""
        if key is None:
            return CallId(LOCAL, root), int(time.time()) // BUCKET_S
        return CallId(CLIENT, key), DAY

    def answer(self, outcome: bytes | ActorError, number: int, shard: int, instance: str) -> Answer:
        """The response to a call that has its outcome."""
        epoch = self.dispatcher.epoch_of(shard)
        if isinstance(outcome, ActorError):
            request_id = self.request_id(number)
            return problem_of(outcome, request_id=request_id, instance=instance, epoch=epoch, dev=self.dev)
        return result_of(outcome, request_id=self.request_id(number), epoch=epoch)

    def response(self, packed: dict[str, Any], number: int, shard: int) -> Answer:
        """The response that an instance's `fetch` made."""
        epoch, body = self.dispatcher.epoch_of(shard), packed["body"]
        headers = [(name, value) for name, value in packed["headers"] if name.lower() != b"content-length"]
        headers += [
            (b"kubeactor-epoch", b"%d" % epoch),
            (b"kubeactor-request-id", self.request_id(number).encode()),
            (b"content-length", b"%d" % len(body)),
        ]
        return Answer(packed["status"], headers, body)

    def refuse(
        self, error: ActorError, number: int | None = None, status: int | None = None, allow: str | None = None
    ) -> Answer:
        """The response to a request that did not become a call; see `problem_of`."""
        request_id = self.request_id(self.next_request() if number is None else number)
        return problem_of(error, request_id=request_id, status=status, allow=allow, dev=self.dev)

    def repeat_later(self, call: Call, error: ActorError, number: int, attempt: int) -> bool:
        """Submit the root call of that request again when it fell victim to a cycle and has time left.

        It keeps its id, so that what it called before is not applied twice. A router may have put an id and a reply
        of its own into the call: the id is put back here, the reply by the caller, who counts the attempts.
        """
        wait_s = cycle_wait_s(error, attempt)
        if wait_s is None or time.monotonic() + wait_s >= call.deadline:
            return False
        self.stats.cycles += 1
        if call.id is None or call.id.kind != CLIENT:
            call.id = CallId(LOCAL, self.root(number))
        call.repeat = True
        asyncio.get_running_loop().call_later(wait_s, self.dispatcher.submit, call)
        return True


def cycle_wait_s(error: object, attempt: int) -> float | None:
    """How long to wait before a root call is made again; None when its error is no broken cycle."""
    if not (isinstance(error, ActorReentrancyError) and error.retryable):
        return None
    return min(CYCLE_WAIT_S * 2.0 ** min(attempt, 10), CYCLE_WAIT_MAX_S) * (0.5 + random.random())
