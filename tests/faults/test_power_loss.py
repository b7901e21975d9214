"""Power loss under load: what was acknowledged is on the disk, whatever becomes of the rest."""

from __future__ import annotations

import asyncio
import random
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


async def _lose_power(bank: PowerLoss, crashes: int, *, swallow: bool = False) -> Load:
    bank.dev.start()
    await bank.dev.ready()
    load = Load(bank.dev.port, bank.rng)
    await load.open()
    bank.shim.cut_now()
    bank.restore()

    async def chaos() -> None:
        for _ in range(crashes):
            if swallow:
                bank.shim.swallow_syncs(WAL)
            await bank.crash()
        bank.dev.start()
        await bank.dev.ready()

    try:
        await load.run(chaos())
    finally:
        load.close()
        bank.shim.kill()
        bank.dev.kill()
    return load


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("mode", "crashes"), [(Mode.DROP, 80), (Mode.TEAR, 80), (Mode.HOLE, 40)])
def test_no_acknowledged_write_is_lost(tmp_path: Path, mode: Mode, crashes: int) -> None:
    bank = PowerLoss(tmp_path, mode, seed=3)
    load = asyncio.run(_lose_power(bank, crashes))
    assert load.acknowledged > crashes * 20, "too little traffic to conclude anything"
    assert bank.in_recovery > 0


@pytest.mark.parametrize("mode", [Mode.DROP, Mode.TEAR])
def test_with_the_sync_removed_this_test_fails(tmp_path: Path, mode: Mode) -> None:
    """The test of the test: on a disk that only pretends to sync, the same bank is caught."""
    bank = PowerLoss(tmp_path, mode, seed=4)
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(_lose_power(bank, 10, swallow=True))
    assert caught.value.subgroup(AssertionError) is not None
    assert "was answered" in repr(caught.value.exceptions) or "handed out twice" in repr(caught.value.exceptions)
