"""SIGKILL at random moments under load: nothing acknowledged is lost, nothing is applied twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest
from tests.faults.machine import bank
from tests.harness.client import Client
from tests.harness.dev import Dev, until
from tests.harness.load import Load

KILLS = 20


async def _kill_a_worker(dev: Dev, rng: random.Random) -> None:
    before = dev.workers()
    victim = rng.choice(before)
    os.kill(victim, signal.SIGKILL)
    await until(lambda: victim not in dev.workers() and len(dev.workers()) == len(before), what="a new worker")


@pytest.mark.parametrize("hosts", [pytest.param(None, id="embedded"), pytest.param(2, id="two hosts")])
def test_a_worker_that_is_killed_at_random_moments_loses_and_doubles_nothing(tmp_path: Path, hosts: int | None) -> None:
    rng = random.Random(1)

    async def main() -> None:
        async with bank(tmp_path / "data", hosts=hosts) as dev:
            load = Load(dev.port, rng)
            await load.open()

            async def chaos() -> None:
                for _ in range(KILLS):
                    await load.traffic(rng.randint(50, 400))
                    await asyncio.sleep(rng.random() * 0.02)  # a random moment
                    await _kill_a_worker(dev, rng)

            await load.run(chaos())
            load.close()
            assert load.acknowledged > KILLS * 50
            assert load.credits > KILLS
            assert sum(client.retries for client in [teller.client for teller in load.tellers]) > 0

    asyncio.run(main())


def test_the_whole_group_killed_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    rng = random.Random(2)

    async def main() -> None:
        async with bank(tmp_path / "data") as dev:
            load = Load(dev.port, rng)
            await load.open()

            async def chaos() -> None:
                for _ in range(4):
                    await load.traffic(200)
                    dev.kill()
                    dev.start()
                    await dev.ready()

            await load.run(chaos())
            load.close()

    asyncio.run(main())


@pytest.mark.parametrize("hosts", [pytest.param(None, id="embedded"), pytest.param(2, id="two hosts")])
def test_a_killed_supervisor_leaves_no_orphan_and_the_next_start_works_at_once(
    tmp_path: Path, hosts: int | None
) -> None:
    async def main() -> None:
        async with Dev(tmp_path / "data", hosts=hosts) as dev:
            client = Client(dev.port)
            for number in range(1, 4):
                assert (await client.keyed("alice", "deposit", f"key-{number}", amount=5)).value == 5 * number
                os.kill(dev.pid, signal.SIGKILL)
                assert dev.process is not None
                dev.process.wait()
                dev.start()  # at once: what is left of the old ones must not be in the way
                old = dev.group()
                await dev.ready()
                assert set(old) <= set(dev.group()), "the new tree is another than the one that was started"
            client.close()

    asyncio.run(main())


def test_a_killed_supervisor_takes_its_workers_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with Dev(tmp_path / "data", hosts=2) as dev:
            workers = dev.workers()
            assert len(workers) >= 2
            os.kill(dev.pid, signal.SIGKILL)
            await until(lambda: not dev.group(), within_s=20.0, what="the end of the workers")

    asyncio.run(main())
