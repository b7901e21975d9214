"""How long a test waits for its actors, and what of the kit is public."""

from __future__ import annotations

import asyncio
import statistics
import time

from tests.testing.ward import Ward, app

from kubeactor import testing
from kubeactor.engine.loop import new_event_loop

ROUNDS = 15
LIMIT_S = 0.05


def test_a_test_starts_in_under_50_ms() -> None:
    """The best of some, or else the processor's time: what else the machine does can only make it longer."""

    async def main() -> tuple[float, float]:
        began = time.perf_counter(), time.process_time()
        async with testing.run(Ward, front_door=app) as actors:
            assert await actors.env.PURSE.id_from_name("alice").coins() == 0
            return time.perf_counter() - began[0], time.process_time() - began[1]

    times, busy = [], []
    for _ in range(ROUNDS):
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            seconds, processor_seconds = runner.run(main())
        times.append(seconds)
        busy.append(processor_seconds)
    print(
        f"a test starts in {statistics.median(times) * 1000:.0f} ms (median), {min(times) * 1000:.0f} ms (best),"
        f" of which the processor works for {statistics.median(busy) * 1000:.0f} ms"
    )
    assert min(*times, statistics.median(busy)) < LIMIT_S


def test_what_is_public_is_listed_and_documented() -> None:
    assert list(testing.__all__) == ["Actors", "BackgroundError", "Entry", "History", "StorageView", "run"]
    for name in testing.__all__:
        assert getattr(testing, name).__doc__, name
