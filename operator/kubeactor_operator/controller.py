"""Looks at namespaces one after the other, a few at a time: observe, plan, execute, and when to look again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from kubeactor_operator import conditions, names
from kubeactor_operator.actions import Plan
from kubeactor_operator.api import Api, ApiError
from kubeactor_operator.execute import Execution, NotLeader
from kubeactor_operator.live import condition, timestamp
from kubeactor_operator.metrics import ERRORS, LAST_SUCCESS_AGE, NAMESPACES, RECONCILE_SECONDS
from kubeactor_operator.observe import Memory, observe
from kubeactor_operator.observed import Object
from kubeactor_operator.plan import plan
from kubeactor_operator.pods import PodError, Pods
from kubeactor_operator.schedule import Key, Schedule
from kubeactor_operator.spec import SpecError

__all__ = ["Controller", "next_look_s"]

AT_ONCE: Final = 8
RELIST_S: Final = 60.0
AFTER_WRITES_S: Final = 0.5
CONTESTED: Final = 60  # looks in a row that write: somebody, such as a webhook, changes what we write
CONTESTED_S: Final = 10.0
INVALID_AGAIN_S: Final = 60.0

_log = logging.getLogger(__name__)


class Controller:
    """Runs until cancelled. Everything it remembers may be lost at any moment."""

    def __init__(
        self,
        api: Api,
        pods: Pods,
        *,
        may_write: Callable[[], bool],
        stock_image: str,
        namespaces: Sequence[str] = (),
    ) -> None:
        """`namespaces`: the Kubernetes namespaces to look after; none for all."""
        self._api = api
        self._pods = pods
        self._execution = Execution(api, pods, may_write)
        self._stock_image = stock_image
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._schedule = Schedule(time.monotonic)
        self._memory: dict[Key, Memory] = {}
        self._succeeded: dict[Key, float] = {}
        self._looked: dict[Key, float] = {}
        self._conditions: dict[Key, list[Object]] = {}

    def wake(self, namespace: str, name: str) -> None:
        """Something of that namespace changed."""
        self._schedule.wake((namespace, name))

    async def run(self) -> None:
        """Look after all of them, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._relist())
            for _ in range(AT_ONCE):
                group.create_task(self._work())

    @property
    def oldest_success_s(self) -> float:
        """The age of the last successful look at the namespace that waited longest; 0 if there is none."""
        return max((time.monotonic() - at for at in self._succeeded.values()), default=0.0)

    @property
    def oldest_look_s(self) -> float:
        """The age of the last look that came to an end, well or not, at the namespace that waited longest."""
        return max((time.monotonic() - at for at in self._looked.values()), default=0.0)

    async def _relist(self) -> None:
        """The timer: what a watch missed is found here. Each namespace also has its own time to be looked at again."""
        while True:
            try:
                for namespace in self._namespaces:
                    for body in await self._api.list(names.KIND, namespace):
                        key = (body["metadata"]["namespace"], body["metadata"]["name"])
                        if key not in self._succeeded:
                            self._succeeded[key] = self._looked[key] = time.monotonic()
                            self._schedule.wake(key)
            except ApiError as error:
                ERRORS.labels("list").inc()
                _log.warning("the namespaces can't be listed: %s", error)
            await asyncio.sleep(RELIST_S)

    async def _work(self) -> None:
        while True:
            key = await self._schedule.next()
            try:
                with RECONCILE_SECONDS.time():
                    again_s = await self.look(key)
            except Exception as error:
                self._failed(key, error)
                continue
            self._schedule.done(key, again_s)
            LAST_SUCCESS_AGE.set(self.oldest_success_s)

    def _failed(self, key: Key, error: Exception) -> None:
        self._looked[key] = time.monotonic()
        kind = "other"
        if isinstance(error, ApiError):
            kind = "stale" if error.stale else "api"
        elif isinstance(error, (PodError, NotLeader)):
            kind = "pod" if isinstance(error, PodError) else "lease"
        ERRORS.labels(kind).inc()
        _log.log(logging.ERROR if kind == "other" else logging.INFO, "%s/%s: %s", *key, error, exc_info=kind == "other")
        self._schedule.failed(key)

    async def look(self, key: Key) -> float | None:
        """One look; in how many seconds the next is due, or None when the namespace is gone."""
        body = await self._api.get(names.KIND, *key)
        if body is None:
            for known in (self._memory, self._succeeded, self._looked, self._conditions):
                known.pop(key, None)
            self._count()
            return None
        memory = self._memory.setdefault(key, Memory())
        refusals = dict(memory.refusals)
        try:
            decided = plan(await observe(self._api, self._pods, body, memory, self._stock_image))
        except SpecError as error:
            decided = Plan((), _invalid(body, str(error)), INVALID_AGAIN_S)
        except ExceptionGroup as group:  # of the questions asked at once: the first says enough
            raise group.exceptions[0] from group
        wrote = await self._execution.run(body, decided, memory)
        self._succeeded[key] = self._looked[key] = time.monotonic()
        self._conditions[key] = decided.status["conditions"]
        self._count()
        memory.writing = memory.writing + 1 if wrote else 0
        return next_look_s(decided.again_s, news=wrote or memory.refusals != refusals, writing=memory.writing)

    def _count(self) -> None:
        NAMESPACES.clear()
        for entries in self._conditions.values():
            for entry in entries:
                NAMESPACES.labels(entry["type"], entry["status"]).inc()


def next_look_s(wanted_s: float, *, news: bool, writing: int) -> float:
    """When to look again.

    Args:
        wanted_s: by the plan, at the latest.
        news: whether something was done, or refused for the first time: soon there is more to do.
        writing: how many looks in a row have written; one that never ends must not become a hot loop.
    """
    if writing > CONTESTED:
        return max(wanted_s, CONTESTED_S)
    return min(wanted_s, AFTER_WRITES_S) if news else wanted_s


def _invalid(body: Object, message: str) -> Object:
    """The status of an object that this release can't read: what runs is left alone."""
    entries = []
    for kind, status, reason in (
        (conditions.READY, "Unknown", conditions.STARTING),
        (conditions.PROGRESSING, "False", conditions.STOPPED),
        (conditions.DEGRADED, "True", conditions.INVALID_SPEC),
        (conditions.STALLED, "True", conditions.INVALID_SPEC),
    ):
        before = condition({"status": body.get("status") or {}}, kind)
        since = before.get("lastTransitionTime") if before.get("status") == status else timestamp(time.time())
        entries.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message[:1000] if reason == conditions.INVALID_SPEC else "",
                "lastTransitionTime": since,
                "observedGeneration": body["metadata"].get("generation", 0),
            }
        )
    return {"conditions": entries}
