"""When kubelet is told to end the operator, and how it ends by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from tests.harness.dev import free_port

from kubeactor_operator import main
from kubeactor_operator.api import ApiError
from kubeactor_operator.controller import Controller
from kubeactor_operator.server import State, serve


def test_a_namespace_that_can_not_be_reconciled_does_not_end_the_operator_and_a_look_that_hangs_does() -> None:
    api: Any = None
    key = ("default", "bank")
    controller = Controller(api, api, may_write=lambda: True, stock_image="host:1")
    state = State()
    assert state.health()[0]
    state.age_s, state.waited_s = lambda: controller.oldest_success_s, lambda: controller.oldest_look_s
    assert state.health()[0]
    for ages in (controller._succeeded, controller._looked):
        ages[key] = -1000.0
    assert not state.health()[0]
    controller._failed(key, ApiError(500, "no"))
    well, said = state.health()
    assert well
    assert float(str(said["lastSuccessfulReconcileSeconds"])) >= 1000


@pytest.mark.asyncio
@pytest.mark.parametrize("leads", [True, False])
async def test_a_replica_that_neither_leads_nor_waits_for_its_turn_is_unwell(leads: bool) -> None:
    state, port = State(), free_port()
    runner = await serve(state, port, "127.0.0.1")

    async def told(path: str) -> tuple[int, Any]:
        async with http.get(f"http://127.0.0.1:{port}/{path}") as response:
            return response.status, await response.json()

    try:
        async with aiohttp.ClientSession() as http:
            assert (await told("healthz"))[0] == 200
            assert await told("readyz") == (503, {"started": False, "leader": False, "leaseTriedSeconds": 0.0})
            tried_s = [30.0]
            state.tried_s = lambda: tried_s[0]
            expected: dict[str, Any] = {"started": True, "leader": leads, "leaseTriedSeconds": 30.0}
            if leads:
                state.age_s, state.waited_s = (lambda: 12.34), (lambda: 1.0)
                expected["lastSuccessfulReconcileSeconds"] = 12.3
            assert await told("readyz") == (200, expected)
            assert (await told("healthz"))[0] == 200
            async with http.get(f"http://127.0.0.1:{port}/metrics") as response:
                age = f"kubeactor_operator_last_successful_reconcile_age_seconds {12.34 if leads else 0.0}"
                assert age in (await response.text()).splitlines()
            tried_s[0] = 61.0
            assert await told("readyz") == (503, {**expected, "leaseTriedSeconds": 61.0})
            assert (await told("healthz"))[0] == 500
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("error", "code"), [(None, main.LOST_LEASE), (KeyError("spec"), main.FAILED)])
def test_a_replica_whose_work_is_over_ends_though_something_of_it_does_not(
    error: Exception | None, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released: list[asyncio.Event] = []
    tasks: list[asyncio.Task[None]] = []
    left: list[int] = []

    async def deaf() -> None:
        while not released[0].is_set():
            try:
                await released[0].wait()
            except asyncio.CancelledError:
                continue

    async def operate(*_: object) -> int:
        released.append(asyncio.Event())
        tasks.append(asyncio.create_task(deaf()))
        await asyncio.sleep(0)
        if error:
            raise error
        return main.LOST_LEASE

    def leave(code: int) -> None:
        left.append(code)
        released[0].set()

    monkeypatch.setattr(main, "ENDS_S", 0.05)
    monkeypatch.setattr(main, "operate", operate)
    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr("sys.argv", ["kubeactor-operator"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert left == [code]
    assert ended.value.code == code
    assert "deaf" in caplog.text
