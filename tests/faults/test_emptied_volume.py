"""A data folder that lost its database behind a known placement is refused as such: it must not come back as empty."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from tests.harness.client import Client
from tests.harness.dev import Dev, until

NAMES = [f"account-{i}" for i in range(20)]


async def _deposit(dev: Dev) -> None:
    client = Client(dev.port)
    for name in NAMES:
        assert (await client.call(name, "deposit", amount=7)).value == 7
    client.close()


async def _balances(dev: Dev) -> set[int]:
    client = Client(dev.port)
    found = {(await client.call(name, "balance")).value for name in NAMES}
    client.close()
    return found


@pytest.mark.parametrize("part", ["host-0/db", "host-0"])
def test_an_emptied_folder_is_refused_and_serves_again_once_it_is_restored(tmp_path: Path, part: str) -> None:
    async def main() -> None:
        dev = Dev(tmp_path / "data")
        async with dev:
            await _deposit(dev)
            dev.stop()
        (dev.data / part).rename(tmp_path / "backup")

        dev.start()
        assert dev.process is not None
        assert await asyncio.to_thread(dev.process.wait, 15) != 0
        assert "host-0 holds shards there" in dev.log()

        shutil.rmtree(dev.data / part, ignore_errors=True)
        (tmp_path / "backup").rename(dev.data / part)
        async with dev:
            assert await _balances(dev) == {7}

    asyncio.run(main())


def test_of_two_hosts_the_emptied_one_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        dev = Dev(tmp_path / "data", hosts=2)
        async with dev:
            await _deposit(dev)
            dev.stop()
        shutil.rmtree(dev.data / "host-1" / "db")
        dev.start()
        try:
            await until(lambda: "host-1 holds shards there" in dev.log(), what="the refusal")
        finally:
            dev.kill()

    asyncio.run(main())
