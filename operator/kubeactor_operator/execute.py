"""Does what the plan asks for, in its order: the status first, since a pod is deleted only after it was said why."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import Final

from kubeactor_operator import names
from kubeactor_operator.actions import Action, Apply, Create, Delete, Grant, Mark, Patch, Plan, Replace, Tell
from kubeactor_operator.api import Api, ApiError
from kubeactor_operator.children.manifest import digest
from kubeactor_operator.live import timestamp
from kubeactor_operator.metrics import ACTIONS
from kubeactor_operator.observe import Memory
from kubeactor_operator.observed import Object
from kubeactor_operator.pods import Pods

__all__ = ["Execution", "NotLeader"]

MESSAGE_CHARACTERS: Final = 1000

_log = logging.getLogger(__name__)


class NotLeader(RuntimeError):
    """Raised when the Lease ran out in the middle of a plan: nothing more is written."""


class Execution:
    """Applies plans of one namespace after another."""

    def __init__(self, api: Api, pods: Pods, may_write: Callable[[], bool]) -> None:
        self._api = api
        self._pods = pods
        self._may_write = may_write

    async def run(self, body: Object, plan: Plan, memory: Memory) -> bool:
        """Write the status if it changed, then do the actions; whether any of it was done.

        A refusal is noted for the next look, and the other actions go on.

        Raises:
            ApiError: when something changed since it was observed, or the API server does not answer.
            PodError: when a host does not take a grant.
            NotLeader: when the Lease ran out.
        """
        now = await self._write_status(body, plan.status)
        wrote = now is not body
        for action in plan.actions:
            self._check()
            if isinstance(action, Tell):
                await self._tell(body, action)
                continue
            try:
                await self._do(action, now, memory)
                wrote = True
            except ApiError as error:
                if not error.refused or isinstance(action, Grant):
                    raise
                memory.refuse(*_refusal(action, body, error))
                _log.warning("refused: %s", error)
            ACTIONS.labels(type(action).__name__.lower()).inc()
        return wrote

    def _check(self) -> None:
        if not self._may_write():
            raise NotLeader("the lease ran out; the next leader looks again")

    async def _write_status(self, body: Object, status: Object) -> Object:
        """The object as it is then."""
        stored = body.get("status") or {}
        if {key: stored.get(key) for key in status} == status:
            return body
        self._check()
        fields = {"metadata": {"resourceVersion": body["metadata"]["resourceVersion"]}, "status": status}
        written = await self._api.patch(_merged(body, fields), "status")
        ACTIONS.labels("status").inc()
        return written

    async def _do(self, action: Action, body: Object, memory: Memory) -> None:
        match action:
            case Create(manifest):
                await self._api.create(manifest)
                _forget(memory, manifest)
                self._note_table(manifest, memory)
            case Apply(manifest, live):
                await self._apply(manifest, live)
                _forget(memory, manifest)
            case Replace(manifest, live):
                await self._api.replace(_over(manifest, live))
                self._note_table(manifest, memory)
            case Patch(fields, live):
                await self._api.patch(_merged(live, fields))
                _forget(memory, live)
            case Mark(annotations):
                await self._api.patch(_merged(body, {"metadata": {"annotations": annotations}}))
                _forget(memory, body)
            case Delete(live, orphan):
                await self._api.delete(live, orphan=orphan)
            case Grant(_, volume, address, credential, grants):
                await self._pods.grant(address, credential, volume, grants)

    async def _apply(self, manifest: Object, live: Object) -> None:
        """Server-side apply removes only what an apply has written: what `create` wrote is made an apply's first."""
        fields = [dict(one) for one in live["metadata"].get("managedFields") or ()]
        ours = [f for f in fields if f.get("manager") == names.FIELD_MANAGER and not f.get("subresource")]
        if ours and not any(one.get("operation") == "Apply" for one in ours):
            for one in ours:
                one["operation"] = "Apply"
            live = await self._api.patch(_merged(live, {"metadata": {"managedFields": fields}}))
        await self._api.apply(_over(manifest, live), force=True)

    def _note_table(self, manifest: Object, memory: Memory) -> None:
        if manifest["kind"] == names.PLACEMENT_KIND:
            memory.table_written_at = time.time()

    async def _tell(self, body: Object, tell: Tell) -> None:
        meta, now = body["metadata"], timestamp(time.time())
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{secrets.token_hex(8)}", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
            "reason": tell.reason,
            "message": tell.message[:MESSAGE_CHARACTERS],
            "type": "Warning" if tell.warning else "Normal",
            "source": {"component": "kubeactor-operator"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._api.create(event)
        except ApiError as error:
            _log.warning("an event could not be written: %s", error)  # the condition says the same


def _over(manifest: Object, live: Object) -> Object:
    """The manifest, to be written over that very version of the object."""
    metadata = {**manifest["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}
    return {**manifest, "metadata": metadata}


def _merged(live: Object, fields: Object) -> Object:
    """A merge patch of these fields over that very version of the object."""
    meta = live["metadata"]
    metadata = {
        "name": meta["name"],
        "namespace": meta["namespace"],
        "resourceVersion": meta["resourceVersion"],
        **fields.get("metadata", {}),
    }
    return {"apiVersion": live["apiVersion"], "kind": live["kind"], **fields, "metadata": metadata}


def _key(thing: Object) -> str:
    return f"{thing['kind']}/{thing['metadata']['name']}"


def _forget(memory: Memory, thing: Object) -> None:
    memory.refusals.pop(_key(thing), None)


def _refusal(action: Action, body: Object, error: ApiError) -> tuple[str, tuple[int, str, str]]:
    match action:
        case Create(thing) | Apply(thing, _) | Replace(thing, _):
            return _key(thing), (error.status, str(error), digest(thing))
        case Patch(fields, live):
            return _key(live), (error.status, str(error), digest(fields))
        case Delete(live, _):
            return _key(live), (error.status, str(error), "")
        case Mark(annotations):
            return _key(body), (error.status, str(error), digest(annotations))
        case _:
            raise AssertionError(f"{action} is not refused by the API server")
