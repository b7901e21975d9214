"""`/metrics`, `/healthz` and `/readyz` of the operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from kubeactor_operator.metrics import LAST_SUCCESS_AGE, LEADER, REGISTRY

__all__ = ["State", "serve"]

STUCK_S: Final = 300.0
IDLE_S: Final = 60.0  # the Lease is asked for every 2 s; a question that hangs ends after 30 s
ENDS_S: Final = 1.0  # for answers under way when the process ends


class State:
    """What the paths tell.

    Attributes:
        tried_s: since this replica last tried to take or renew the Lease, whatever came of it: one that neither leads
            nor waits for its turn is of no use.

    And only while it is the leader:
        age_s: of the last successful reconcile, of the namespace that waited longest.
        waited_s: the same of the last one that came to an end, well or not.
    """

    def __init__(self) -> None:
        self.tried_s: Callable[[], float] | None = None
        self.age_s: Callable[[], float] | None = None
        self.waited_s: Callable[[], float] | None = None

    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether kubelet should leave the process alone, and what it does."""
        tried_s = self.tried_s() if self.tried_s else 0.0
        said: dict[str, object] = {"leader": self.age_s is not None, "leaseTriedSeconds": round(tried_s, 1)}
        if self.age_s is None or self.waited_s is None:
            return tried_s < IDLE_S, said
        # One namespace that can't be reconciled is no reason to end the operator of all others; a look that hangs is.
        age_s, waited_s = self.age_s(), self.waited_s()
        said["lastSuccessfulReconcileSeconds"] = round(age_s, 1)
        return tried_s < IDLE_S and waited_s < STUCK_S, said


async def serve(state: State, port: int, address: str = "0.0.0.0") -> web.AppRunner:  # noqa: S104
    """Listen; `cleanup()` the runner to end it."""

    async def metrics(_: web.Request) -> web.Response:
        LEADER.set(state.age_s is not None)
        LAST_SUCCESS_AGE.set(state.age_s() if state.age_s else 0.0)
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        well, said = state.health()
        return _json(200 if well else 500, said)

    async def readyz(_: web.Request) -> web.Response:
        well, said = state.health()
        started = state.tried_s is not None
        return _json(200 if well and started else 503, {"started": started, **said})

    app = web.Application(client_max_size=1024)
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=ENDS_S)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner


def _json(status: int, said: dict[str, object]) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(said), content_type="application/json")
