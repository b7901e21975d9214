"""A replica that has lost the Lease, or can't ask for it any more, does not sit there doing nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubeactor_operator import lease
from kubeactor_operator.api import ApiError
from kubeactor_operator.lease import Lease
from kubeactor_operator.observed import Object

pytestmark = pytest.mark.asyncio


class Leases:
    """An API server that knows one Lease."""

    def __init__(self) -> None:
        self.live: Object | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.broken: Exception | None = None
        self.asked = 0

    async def get(self, *_: str) -> Object | None:
        self.asked += 1
        await self.answers.wait()
        if self.broken:
            raise self.broken
        return self.live

    async def create(self, manifest: Object) -> None:
        self.live = manifest

    async def replace(self, manifest: Object) -> None:
        self.live = manifest


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RETRY_S", 0.01)
    monkeypatch.setattr(lease, "RENEW_DEADLINE_S", 0.3)


def of(leases: Any, **more: Any) -> Lease:
    return Lease(leases, "here", "lease", "a", **more)


@pytest.mark.usefixtures("quick")
async def test_a_renewal_that_never_comes_back_does_not_keep_a_replica_whose_lease_is_over() -> None:
    leases = Leases()
    mine = of(leases)
    await mine.acquire()
    leases.answers.clear()
    await asyncio.wait_for(mine.keep(), 30)
    assert not mine.held
    assert leases.asked == 2


@pytest.mark.usefixtures("quick")
async def test_a_renewal_is_tried_until_the_deadline_and_another_holder_ends_it_at_once() -> None:
    leases = Leases()
    mine = of(leases)
    await mine.acquire()
    leases.broken = ApiError(500, "no")
    await asyncio.wait_for(mine.keep(), 30)
    assert leases.asked > 3
    now = [0.0]
    leases.broken, leases.live = None, None
    mine = of(leases, clock=lambda: now[0])
    await mine.acquire()
    assert leases.live
    leases.live = {**leases.live, "spec": {"holderIdentity": "b", "renewTime": "later"}}
    await asyncio.wait_for(mine.keep(), 30)
    assert not mine.held


async def test_each_try_that_comes_to_an_end_is_a_sign_of_life_and_a_replica_that_tries_no_more_gives_none() -> None:
    now, leases = [0.0], Leases()
    mine = of(leases, clock=lambda: now[0])
    now[0] = 40.0
    assert mine.tried_s == 40.0
    await mine.acquire()
    assert mine.tried_s == 0.0
    now[0] = 45.0
    leases.broken = ApiError(0, "no answer")
    assert not await mine._tried()
    assert mine.tried_s == 0.0  # an API server that is away is no reason to start anew
    leases.broken = KeyError("spec")
    with pytest.raises(KeyError):
        await mine._tried()
    now[0] = 145.0
    assert mine.tried_s == 100.0


async def test_it_is_asked_for_every_2_s_given_up_after_10_and_free_for_others_after_15(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, leases, slept = [0.0], Leases(), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("asyncio.sleep", sleep)
    mine = of(leases, clock=lambda: now[0])
    await mine.acquire()
    assert leases.live
    assert leases.live["spec"]["leaseDurationSeconds"] == 15
    leases.broken = ApiError(0, "no answer")
    await mine.keep()
    assert slept == [2.0] * 5
