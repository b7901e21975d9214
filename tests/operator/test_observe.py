"""What an ingress's word about a host is worth: a host may be deleted for it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kubeactor_operator.observe import PROBE_AGAIN_S, PROBE_EVERY_S, _due, _noted, _probe
from kubeactor_operator.observed import Probe
from kubeactor_operator.pods import PodError


class Ingresses:
    """Each answers with a status, 200 or that of a problem; 0 is no answer."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = dict(enumerate(statuses))

    async def probe(self, address: str, credential: str, host: str) -> None:
        status = self.statuses[int(address)]
        if status != 200:
            raise PodError(status, f"status {status}")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("statuses", "told"),
    [
        ((200, 503), ""),
        ((503, 200), "status 503"),
        ((0, 503), "status 503"),
        ((401, 200), ""),  # it has not read the rotated secret yet
        ((404, 200), ""),  # it has an older table, or none
        ((401, 404, 503), "status 503"),
        ((0, 401, 404), None),
        ((), None),
    ],
)
async def test_only_an_ingress_that_tried_to_reach_the_host_tells_that_it_hangs(
    statuses: tuple[int, ...], told: str | None
) -> None:
    pods: Any = Ingresses(*statuses)
    assert await _probe(pods, [str(n) for n in range(len(statuses))], "secret", "host-0") == told


def test_a_clock_that_was_set_back_does_not_put_probes_off() -> None:
    now = time.time()
    assert not _due(Probe(passed_at=now - 1))
    assert _due(Probe(passed_at=now - PROBE_EVERY_S))
    assert _due(Probe(passed_at=now + 3600))
    assert _due(Probe(now, misses=1, missed_at=now + 3600))


def test_a_host_that_was_missed_is_asked_again_soon_but_misses_count_ten_seconds_apart() -> None:
    now = time.time()
    missed = Probe(now - 60, misses=1, missed_at=now - PROBE_AGAIN_S, reason="away")
    assert _due(missed)
    assert not _due(Probe(now - 60, misses=1, missed_at=now - 1))
    assert _noted(missed, "still away") == missed
    assert _noted(Probe(now - 60, 1, now - PROBE_EVERY_S, "away"), "still away").misses == 2
    assert _noted(Probe(now - 60, 1, now + 3600, "away"), "the clock was set back").misses == 2
    passed = _noted(missed, "")
    assert (passed.misses, passed.reason) == (0, "")
