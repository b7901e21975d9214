"""When kubelet is told to end the operator."""

from __future__ import annotations

from typing import Any

from kubeactor_operator.api import ApiError
from kubeactor_operator.controller import Controller
from kubeactor_operator.server import State


def test_a_namespace_that_can_not_be_reconciled_does_not_end_the_operator_and_a_look_that_hangs_does() -> None:
    api: Any = None
    key = ("default", "bank")
    controller = Controller(api, api, may_write=lambda: True, stock_image="host:1")
    state = State()
    assert state.health() == (True, {"leader": False})
    state.age_s, state.waited_s = lambda: controller.oldest_success_s, lambda: controller.oldest_look_s
    assert state.health() == (True, {"leader": True, "lastSuccessfulReconcileSeconds": 0.0})
    for ages in (controller._succeeded, controller._looked):
        ages[key] = -1000.0
    assert not state.health()[0]
    controller._failed(key, ApiError(500, "no"))
    well, said = state.health()
    assert well
    assert float(str(said["lastSuccessfulReconcileSeconds"])) >= 1000
