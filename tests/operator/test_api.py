"""What the operator's few verbs send."""

from __future__ import annotations

from typing import Any

import kopf
import pytest

from kubeactor_operator import names
from kubeactor_operator.actions import Plan, Replace
from kubeactor_operator.api import Api
from kubeactor_operator.execute import Execution
from kubeactor_operator.observe import Memory
from kubeactor_operator.observed import Object
from kubeactor_operator.pods import Pods

META = {"name": "bank-host-0", "namespace": "team-a", "uid": "u1", "resourceVersion": "7"}


class Sent(Api):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__(kopf.ConnectionInfo(server="http://127.0.0.1:1"))
        self.requests: list[tuple[str, str, Object | None]] = []

    async def _ask(self, method: str, path: str, body: Object | None = None, **_: Any) -> Object:
        self.requests.append((method, path, body))
        return {}


@pytest.mark.asyncio
@pytest.mark.parametrize(("orphan", "policy"), [(False, "Background"), (True, "Orphan")])
async def test_a_pod_is_given_its_grace_period_and_deleted_only_as_it_was_observed(orphan: bool, policy: str) -> None:
    """Grace period 0 would start its successor while it may still have the volume open."""
    api = Sent()
    await api.delete({"kind": "Pod", "metadata": META}, orphan=orphan)
    ((method, path, body),) = api.requests
    assert (method, path) == ("DELETE", "api/v1/namespaces/team-a/pods/bank-host-0")
    assert body == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": "u1", "resourceVersion": "7"},
        "propagationPolicy": policy,
    }


@pytest.mark.asyncio
async def test_a_table_is_written_by_a_plain_update_over_the_version_that_was_read() -> None:
    api = Sent()
    named = {"name": "bank", "namespace": "team-a"}
    table = {"apiVersion": names.API_VERSION, "kind": names.PLACEMENT_KIND, "metadata": named, "spec": {"format": 1}}
    live = {**table, "metadata": {**named, "uid": "u1", "resourceVersion": "7"}, "spec": {"format": 1, "shards": 8}}
    execution = Execution(api, Pods(), lambda: True)
    await execution.run({"status": {}}, Plan((Replace(table, live),), {}), Memory())
    path = f"apis/{names.API_VERSION}/namespaces/team-a/{names.PLACEMENT_PLURAL}/bank"
    assert api.requests == [("PUT", path, {**table, "metadata": {**named, "resourceVersion": "7"}})]
    with pytest.raises(AssertionError, match="what was observed decides"):
        await api.replace(table)
