"""A disk that fails: nothing is acknowledged after the error, the worker is replaced, and no answer is lost with it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.faults.machine import machine, notes
from tests.faults.shim import ALL, SST, WAL, Kind, Mode, Shim
from tests.harness.client import Answer, Client, UnknownOutcomeError
from tests.harness.dev import until
from tests.harness.load import Load
from tests.harness.needs import needs_compiler

needs_compiler()

FAULTS = [
    pytest.param(lambda shim: shim.fail_syncs(at=20, files=WAL), "Input/output error", id="EIO on fdatasync"),
    pytest.param(lambda shim: shim.fill_disk(at=40, files=WAL), "No space left on device", id="ENOSPC on write"),
    pytest.param(lambda shim: shim.fail_syncs(at=1, files=ALL), "Input/output error", id="EIO on every sync"),
    pytest.param(lambda shim: shim.fill_disk(at=1, files=ALL), "No space left on device", id="ENOSPC on every write"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_a_failing_disk_replaces_the_worker_and_loses_nothing(
    tmp_path: Path, fault: Callable[[Shim], None], reason: str
) -> None:
    shim, dev = machine(tmp_path)

    async def main() -> None:
        async with dev:
            load = Load(dev.port, random.Random(5))
            await load.open()
            (before,) = dev.workers()

            async def chaos() -> None:
                await load.traffic(100)
                fault(shim)
                await until(lambda: before not in dev.workers(), what="the end of the worker")
                shim.clear()
                await dev.ready()
                await load.traffic(100)

            await load.run(chaos())
            load.close()
            assert reason in dev.log()

    asyncio.run(main())


def test_after_a_failed_sync_no_result_leaves_the_process(tmp_path: Path) -> None:
    shim, dev = machine(tmp_path)

    async def main() -> None:
        async with dev:
            load = Load(dev.port, random.Random(6))
            await load.open()
            (before,) = dev.workers()

            async def chaos() -> None:
                await load.traffic(50)
                shim.log_traffic()
                shim.fail_syncs(at=10)
                await until(lambda: before not in dev.workers(), what="the end of the worker")
                shim.clear()

            await load.run(chaos())
            load.close()
            events = [event for event in shim.events() if event.process == before]
            failed = next(event.ended_ns for event in events if event.kind is Kind.SYNC_FAILED)
            sent = [event for event in events if event.kind is Kind.SEND]
            assert sent[0].began_ns < failed, "there was traffic before the fault"
            assert not [event.text for event in sent if event.began_ns > failed and b" 200 " in event.text]

    asyncio.run(main())


def test_a_power_loss_after_a_failed_sync_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """The kernel drops the dirty pages of a failed sync: what it should cover is gone, whatever is synced later."""
    shim, dev = machine(tmp_path)
    rng = random.Random(7)

    async def main() -> None:
        async with dev:
            load = Load(dev.port, rng)
            await load.open()

            async def chaos() -> None:
                for _ in range(5):
                    await load.traffic(100)
                    shim.fail_syncs(at=rng.randint(2, 20))
                    await until(lambda: shim.switches.fail_sync_at == 1, what="the fault")
                    shim.cut_now()
                    dev.kill()
                    shim.clear()
                    shim.restore(Mode.DROP, rng)
                    dev.start()
                    await dev.ready()

            await load.run(chaos())
            load.close()

    asyncio.run(main())


async def _not_ready(client: Client) -> Answer:
    """What /readyz says once it says no; between two workers it may say nothing."""
    while True:
        try:
            if (answer := await client.get("/readyz")).status == 503:
                return answer
        except (ConnectionRefusedError, UnknownOutcomeError):
            continue


LASTING = [
    pytest.param(lambda shim: shim.fail_syncs(files=ALL), "Input/output error", id="EIO"),
    pytest.param(lambda shim: shim.fill_disk(files=ALL), "No space left on device", id="ENOSPC"),
]


@pytest.mark.parametrize(("fault", "reason"), LASTING)
def test_while_the_disk_fails_log_and_readiness_say_why_and_then_it_serves_again(
    tmp_path: Path, fault: Callable[[Shim], None], reason: str
) -> None:
    shim, dev = machine(tmp_path)

    async def main() -> None:
        async with dev:
            client = Client(dev.port)
            assert (await client.call("alice", "deposit", amount=7)).value == 7
            fault(shim)
            deposit = asyncio.create_task(client.keyed("alice", "deposit", "k", amount=1))
            await until(lambda: reason in dev.log(), what="the reason in the log")
            probe = Client(dev.port)
            assert reason in (await _not_ready(probe)).body.decode()
            assert not deposit.done()
            shim.clear()
            assert (await deposit).value == 8
            await dev.ready()
            metrics = (await client.get("/metrics")).body.decode().splitlines()
            (died,) = (line for line in metrics if line.startswith("kubeactor_worker_last_death{"))
            assert reason in died
            (restarts,) = (line for line in metrics if line.startswith("kubeactor_worker_restarts_total "))
            assert float(restarts.split()[1]) >= 1
            client.close()
            probe.close()

    asyncio.run(main())


async def stalled(client: Client, times: int) -> float:
    """Wait until RocksDB has asked so often to wait; how often it did."""
    end = time.monotonic() + 60
    while (stalls := gauge((await client.get("/metrics")).body, "kubeactor_write_stalls_total")) < times:
        assert time.monotonic() < end, f"{stalls} stalls, not {times}"
        await asyncio.sleep(0.02)
    return stalls


def gauge(page: bytes, name: str) -> float:
    """One number of a page of metrics."""
    (line,) = (line for line in page.decode().splitlines() if line.startswith(f"{name} "))
    return float(line.split()[1])


def test_a_write_stall_is_waited_for_and_loses_nothing(tmp_path: Path) -> None:
    shim, dev = notes(tmp_path)
    text = "x" * 500_000
    done: list[str] = []

    async def fill(port: int, number: int) -> None:
        with closing(Client(port, "NOTE")) as client:
            for i in range(15):
                name = f"n-{number}-{i}"
                assert (await client.call(name, "fill", text=text)).value == len(text)
                done.append(name)

    async def main() -> None:
        async with dev:
            (before,) = dev.workers()
            shim.delay_syncs(3600, SST)
            async with asyncio.TaskGroup() as tasks:
                for number in range(8):
                    tasks.create_task(fill(dev.port, number))
                with closing(Client(dev.port)) as watcher:
                    taken = -1
                    while taken != len(done):  # it may let some through before it stops
                        taken = len(done)
                        await stalled(watcher, await stalled(watcher, 1) + 100)
                assert 20 < taken < 100, "it takes what memory it has, then waits"
                shim.delay_syncs(0)
            assert len(done) == 120
            assert dev.workers() == [before]

    asyncio.run(main())
