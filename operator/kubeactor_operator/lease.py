"""Who of the replicas is the operator: a Lease of 15 s, renewed every 2 s, given up when that failed for 10 s.

The deadline is by this process's monotonic clock, from before the renewal was sent: a process that was stopped for a
minute finds its deadline passed before it writes anything more. What it sent just then is refused by the API server,
since each write carries what it was decided on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from kubeactor_operator.api import Api, ApiError
from kubeactor_operator.observed import Object

__all__ = ["DURATION_S", "Lease"]

DURATION_S: Final = 15.0
RENEW_DEADLINE_S: Final = 10.0
RETRY_S: Final = 2.0

_log = logging.getLogger(__name__)


class Lease:
    """This replica's view of the Lease."""

    def __init__(
        self, api: Api, namespace: str, name: str, identity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._deadline = float("-inf")
        self._tried_at = clock()
        self._seen: tuple[object, object] | None = None
        self._seen_at = 0.0

    @property
    def held(self) -> bool:
        """Whether this replica may write."""
        return self._clock() < self._deadline

    @property
    def tried_s(self) -> float:
        """Since a try to take or renew it came to an end, well or not; grows once this replica does neither."""
        return self._clock() - self._tried_at

    async def acquire(self) -> None:
        """Wait until this replica holds it."""
        while not await self._tried():  # noqa: ASYNC110 (another replica gives it up, no event tells)
            await asyncio.sleep(RETRY_S)
        _log.info("this replica is the leader: %s", self._identity)

    async def keep(self) -> None:
        """Renew it for ever; returns when it is lost."""
        while True:
            await asyncio.sleep(RETRY_S)
            if not self.held:
                break
            # A question that hangs must not keep up a replica that may write nothing any more.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._deadline - self._clock()):
                    await self._tried()
            if not self.held:
                break
        _log.error("the lease could not be renewed for %s s: this replica ends", RENEW_DEADLINE_S)

    async def release(self) -> None:
        """Let another replica take over at once. Best effort."""
        if not self.held:
            return
        self._deadline = float("-inf")
        try:
            live = await self._api.get("Lease", self._namespace, self._name)
            if live and live["spec"].get("holderIdentity") == self._identity:
                live["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._api.replace(live)
        except ApiError as error:
            _log.warning("the lease was not released: %s", error)

    async def _tried(self) -> bool:
        """Take or renew it once; whether it is held now."""
        sent = self._clock()
        try:
            live = await self._api.get("Lease", self._namespace, self._name)
            if live is None:
                await self._api.create(self._manifest(None))
            elif self._free(live):
                await self._api.replace(self._manifest(live))
            else:
                self._deadline = float("-inf")
                return False
        except ApiError as error:
            if not error.stale:
                _log.warning("the lease can't be renewed: %s", error)
            return False
        finally:
            self._tried_at = self._clock()
        self._deadline = sent + RENEW_DEADLINE_S
        return True

    def _free(self, live: Object) -> bool:
        """Ours, given up, or not renewed for its duration by our own clock (those of two machines may differ)."""
        spec = live["spec"]
        holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
        if (holder, renewed) != self._seen:
            self._seen, self._seen_at = (holder, renewed), self._clock()
        if holder in (self._identity, "", None):
            return True
        return self._clock() - self._seen_at >= float(spec.get("leaseDurationSeconds") or DURATION_S)

    def _manifest(self, live: Object | None) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict((live or {}).get("spec") or {})
        if spec.get("holderIdentity") != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + bool(live)}
        spec |= {"holderIdentity": self._identity, "leaseDurationSeconds": int(DURATION_S), "renewTime": now}
        metadata = live["metadata"] if live else {"name": self._name, "namespace": self._namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
