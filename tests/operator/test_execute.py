"""What counts as done on an API server that refuses, and when the operator looks again."""

from __future__ import annotations

from typing import Any

import pytest

from kubeactor_operator.actions import Delete, Patch, Plan, Tell
from kubeactor_operator.api import ApiError
from kubeactor_operator.controller import next_look_s
from kubeactor_operator.execute import Execution
from kubeactor_operator.observe import Memory

CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data-bank-host-0", "namespace": "default", "resourceVersion": "1"},
}


class Refusing:
    """Refuses the first `refusals` writes."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals

    async def patch(self, manifest: Any, subresource: str = "") -> Any:
        self.refusals -= 1
        if self.refusals >= 0:
            raise ApiError(422, "only dynamically provisioned pvc can be resized")
        return manifest


@pytest.mark.asyncio
async def test_what_is_refused_again_and_again_is_no_news_that_asks_for_another_look_at_once() -> None:
    api: Any = Refusing(2)
    execution, memory = Execution(api, api, lambda: True), Memory()
    plan = Plan((Patch({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}, CLAIM),), {})
    assert not await execution.run({"status": {}}, plan, memory)
    noted = dict(memory.refusals)
    assert noted["PersistentVolumeClaim/data-bank-host-0"][0] == 422
    assert not await execution.run({"status": {}}, plan, memory)
    assert memory.refusals == noted
    assert await execution.run({"status": {}}, plan, memory)
    assert memory.refusals == {}


class Noting:
    """Notes in which order things are written."""

    def __init__(self) -> None:
        self.written: list[str] = []

    async def patch(self, manifest: Any, subresource: str = "") -> Any:
        self.written.append(subresource or "patch")
        return manifest

    async def create(self, manifest: Any) -> Any:
        self.written.append(f"{manifest['kind']}: {manifest['reason']} {manifest['message']}")
        return manifest

    async def delete(self, live: Any, *, orphan: bool) -> None:
        self.written.append(f"delete {live['kind']}")


@pytest.mark.asyncio
async def test_why_a_pod_is_deleted_stands_in_the_conditions_and_in_an_event_before_it_is() -> None:
    api: Any = Noting()
    meta = {"name": "bank", "namespace": "default", "uid": "u1", "resourceVersion": "1"}
    body = {"apiVersion": "kubeactor.io/v1alpha1", "kind": "ActorNamespace", "metadata": meta, "status": {}}
    pod = {**CLAIM, "kind": "Pod"}
    plan = Plan((Tell("HealingHost", "exit code 1"), Delete(pod)), {"conditions": []})
    assert await Execution(api, api, lambda: True).run(body, plan, Memory())
    assert api.written == ["status", "Event: HealingHost exit code 1", "delete Pod"]


def test_what_is_written_in_every_look_is_written_seldom() -> None:
    assert next_look_s(20.0, news=False, writing=0) == 20.0
    assert next_look_s(20.0, news=True, writing=1) == 0.5
    assert next_look_s(0.05, news=True, writing=60) == 0.05
    assert next_look_s(0.05, news=True, writing=61) == 10.0
    assert next_look_s(20.0, news=True, writing=61) == 20.0
