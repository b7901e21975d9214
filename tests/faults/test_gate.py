"""The output gate at a slow sync: whoever could have seen a batch hears nothing before it is on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.faults.machine import notes
from tests.faults.order import prove_order, token_of
from tests.faults.shim import Event, Kind, Shim
from tests.harness.client import Answer, Client
from tests.harness.dev import Dev, until
from tests.harness.needs import needs_compiler

needs_compiler()

SLOW_S = 0.5


class Desk:
    """A server whose syncs are slow from now on, and calls to it over a connection each."""

    def __init__(self, shim: Shim, dev: Dev) -> None:
        self.shim = shim
        self.port = dev.port

    async def call(self, name: str, method: str, key: str | None = None, **arguments: str) -> Answer:
        client = Client(self.port, "NOTE")
        try:
            return await client.call(name, method, key, **arguments)
        finally:
            client.close()

    async def begin(self, name: str, method: str, key: str | None = None, **arguments: str) -> asyncio.Task[Answer]:
        """Make a call, and return when the sync that it needs has begun."""
        before = self.shim.switches.syncs
        task = asyncio.create_task(self.call(name, method, key, **arguments))
        await until(lambda: self.shim.switches.syncs > before, what="the sync")
        return task

    def syncs(self) -> list[Event]:
        """The slow ones that have ended."""
        ended = (event for event in self.shim.events() if event.kind is Kind.SYNC)
        return [event for event in ended if event.ended_ns - event.began_ns >= SLOW_S * 1e9]


@asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[Desk]:
    shim, dev = notes(folder)
    async with dev:
        opened = Desk(shim, dev)
        shim.delay_syncs(0.02)
        for _ in range(3):  # from now on a thread syncs: on a fast disk the loop does it, and nothing else meanwhile
            assert (await opened.call("a", "write", token=token_of(0))).status == 200
        shim.log_traffic()
        shim.delay_syncs(SLOW_S)
        yield opened
        shim.clear()


def test_a_retry_a_read_and_an_error_that_arrive_during_a_slow_sync_wait_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as slow:
            first = await slow.begin("a", "write", "key", token=token_of(1))
            # the failing turn discards the instance, so the last read finds a new one, activated from unsynced rows
            others = await asyncio.gather(
                slow.call("a", "write", "key", token=token_of(1)),
                slow.call("a", "read"),
                slow.call("a", "fail"),
                slow.call("a", "read"),
            )
            done = slow.syncs()[0].ended_ns
            answers = [await first, *others]
            assert [answer.status for answer in answers] == [200, 200, 200, 500, 200]
            assert {answer.value for answer in answers if answer.status == 200} == {token_of(1)}
            assert all(answer.at_ns > done for answer in answers)
            assert prove_order(slow.shim).replies >= 4

    asyncio.run(main())


def test_a_read_of_what_is_synced_does_not_wait_for_another_instance(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as slow:
            write = await slow.begin("b", "write", token=token_of(1))
            answer = await slow.call("a", "read")
            assert (answer.value, slow.syncs()) == (token_of(0), [])
            assert (await write).status == 200

    asyncio.run(main())


def test_a_batch_written_while_a_sync_runs_is_not_released_by_that_sync(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as slow:
            first = await slow.begin("b", "write", token=token_of(1))
            second = await slow.call("c", "write", token=token_of(2))
            done = [sync.ended_ns for sync in slow.syncs()]
            assert len(done) == 2
            assert done[0] < (await first).at_ns < done[1] < second.at_ns
            assert prove_order(slow.shim).replies == 2

    asyncio.run(main())


def test_a_retry_on_a_new_connection_joins_the_call_whose_client_has_gone(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path) as slow:
            first = await slow.begin("b", "write", "key", token=token_of(1))
            first.cancel()
            again = await slow.call("b", "write", "key", token=token_of(1))
            assert again.value == token_of(1)
            assert len({event.offset for event in slow.shim.events() if event.kind is Kind.WRITE}) == 1
            assert prove_order(slow.shim).replies >= 1

    asyncio.run(main())
