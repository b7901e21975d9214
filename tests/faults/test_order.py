"""Durable before reply, proven from a log of what the process did, not from what survived by luck."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.faults.machine import notes
from tests.faults.order import prove_order, token_of
from tests.faults.shim import WAL
from tests.harness.client import Client
from tests.harness.dev import Dev
from tests.harness.needs import needs_compiler

needs_compiler()

CLIENTS, EACH = 32, 30


async def _write_tokens(dev: Dev) -> None:
    clients = [Client(dev.port, "NOTE") for _ in range(CLIENTS)]

    async def write(number: int, client: Client) -> None:
        for i in range(EACH):
            # two clients share an instance, so replies with tokens that another turn wrote occur too
            name, token = f"note-{number // 2}", token_of(number * EACH + i)
            assert (await client.call(name, "write", key=token if i % 3 == 0 else None, token=token)).value == token
            if i % 3 == 0:
                assert (await client.call(name, "write", key=token, token=token)).value == token
            assert (await client.call(name, "read")).value.startswith("tok-")

    await asyncio.gather(*(write(number, client) for number, client in enumerate(clients)))
    for client in clients:
        client.close()


@pytest.mark.parametrize("hosts", [pytest.param(None, id="embedded"), pytest.param(2, id="two hosts")])
@pytest.mark.parametrize("slow_s", [pytest.param(0.0, id="the disk as it is"), pytest.param(0.01, id="10 ms a sync")])
def test_every_reply_left_after_the_sync_that_covers_what_it_tells(
    tmp_path: Path, hosts: int | None, slow_s: float
) -> None:
    shim, dev = notes(tmp_path, hosts)

    async def main() -> None:
        async with dev:
            shim.delay_syncs(slow_s)
            shim.log_traffic()
            await _write_tokens(dev)

    asyncio.run(main())
    proof = prove_order(shim)
    assert proof.writes == CLIENTS * EACH
    assert proof.replies >= CLIENTS * EACH  # each frame or segment that carries a token counts once
    assert proof.syncs < proof.writes, "some commits were joined: group commit is part of the proof"


def test_the_proof_fails_on_a_disk_that_does_not_sync(tmp_path: Path) -> None:
    """The test of the test."""
    shim, dev = notes(tmp_path)

    async def main() -> None:
        async with dev:
            shim.swallow_syncs(WAL)
            shim.log_traffic()
            await _write_tokens(dev)

    asyncio.run(main())
    with pytest.raises(AssertionError, match="never synced"):
        prove_order(shim)
