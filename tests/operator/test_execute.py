"""What counts as done on an API server that refuses, and when the operator looks again."""

from __future__ import annotations

from typing import Any

import pytest

from kubeactor_operator.actions import Patch, Plan
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


def test_what_is_written_in_every_look_is_written_seldom() -> None:
    assert next_look_s(20.0, news=False, writing=0) == 20.0
    assert next_look_s(20.0, news=True, writing=1) == 0.5
    assert next_look_s(0.05, news=True, writing=60) == 0.05
    assert next_look_s(0.05, news=True, writing=61) == 10.0
    assert next_look_s(20.0, news=True, writing=61) == 20.0
