"""Power loss under load: what was acknowledged is on the disk, whatever becomes of the rest."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.faults.machine import machine
from tests.faults.shim import ALL, WAL, Mode
from tests.harness.dev import until
from tests.harness.load import Load
from tests.harness.needs import needs_compiler

needs_compiler()


class PowerLoss:
    """A bank whose power goes again and again while its clients go on."""

    def __init__(self, folder: Path, mode: Mode, seed: int) -> None:
        self.rng = random.Random(seed)
        self.mode = mode
        self.shim, self.dev = machine(folder)
        self.in_recovery = 0

    def aim(self) -> None:
        """Choose the moment of the next cut: before or after some write or sync."""
        count = self.rng.randint(1, 300)
        before = self.rng.random() < 0.5
        if self.rng.random() < 0.5:
            self.shim.cut_at(write=count, before=before)
        else:
            self.shim.cut_at(sync=count // 6 + 1, before=before, files=WAL)

    async def crash(self) -> None:
        """Serve until the power goes, at times before the first answer, and bring it back."""
        early = self.rng.random() < 0.1
        if early:
            self.shim.cut_at(write=self.rng.randint(1, 60), before=self.rng.random() < 0.5, files=ALL)
        self.dev.start()
        if early:
            await until(lambda: self.shim.is_off or self.shim.switches.cut_writes == 0, what="an early cut")
            self.in_recovery += 1
        else:
            await self.dev.ready()
            self.aim()
        await until(lambda: self.shim.is_off, what="the cut")
        self.restore()

    def restore(self) -> None:
        """End all processes, roll the disk back."""
        self.shim.kill()
        self.dev.kill()
        self.shim.clear()
        self.shim.restore(self.mode, self.rng)


@asynccontextmanager
async def _opened(bank: PowerLoss) -> AsyncIterator[Load]:
    """The load, after a first start and a first cut."""
    bank.dev.start()
    load = Load(bank.dev.port, bank.rng)
    try:
        await bank.dev.ready()
        await load.open()
        bank.shim.cut_now()
        bank.restore()
        yield load
    finally:
        load.close()
        bank.shim.kill()
        bank.dev.kill()


async def _lose_power(bank: PowerLoss, crashes: int) -> Load:
    async with _opened(bank) as load:

        async def chaos() -> None:
            for _ in range(crashes):
                await bank.crash()
            bank.dev.start()
            await bank.dev.ready()

        await load.run(chaos())
    return load


async def _lose_power_without_syncs(bank: PowerLoss) -> None:
    async with _opened(bank) as load:

        async def chaos() -> None:
            for _ in range(5):  # a tear may spare the whole tail, though hardly five times
                bank.dev.start()
                await bank.dev.ready()
                bank.shim.swallow_syncs(WAL)
                await load.traffic(100)
                bank.shim.cut_now()
                bank.restore()
            bank.dev.start()
            await bank.dev.ready()

        await load.run(chaos())


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("mode", "crashes"), [(Mode.DROP, 80), (Mode.TEAR, 80), (Mode.HOLE, 40)])
def test_no_acknowledged_write_is_lost(tmp_path: Path, mode: Mode, crashes: int) -> None:
    bank = PowerLoss(tmp_path, mode, seed=3)
    load = asyncio.run(_lose_power(bank, crashes))
    assert load.acknowledged > crashes * 20, "too little traffic to conclude anything"
    assert load.credits > crashes, "too few alarms to conclude anything"
    assert bank.in_recovery > 0
    assert bank.shim.overwrites > crashes, "hardly a WAL was recycled"


@pytest.mark.parametrize("mode", [Mode.DROP, Mode.TEAR])
def test_with_the_sync_removed_this_test_fails(tmp_path: Path, mode: Mode) -> None:
    """The test of the test: on a disk that only pretends to sync, the same bank is caught."""
    bank = PowerLoss(tmp_path, mode, seed=4)
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(_lose_power_without_syncs(bank))
    assert caught.value.subgroup(AssertionError) is not None
