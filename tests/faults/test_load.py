"""The load of the crash tests: a client that sees what must not be ends the run, whatever the others do meanwhile."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.harness.client import Answer, Connection
from tests.harness.load import Load


class Wire(asyncio.Transport):
    """Takes what is written and carries it nowhere."""

    def write(self, data: object) -> None:
        """Nothing."""

    def is_closing(self) -> bool:
        """It stays open."""
        return False


def test_a_cancellation_that_comes_with_the_answer_is_not_lost() -> None:
    async def main() -> None:
        connection = Connection(port=0)
        connection.connection_made(Wire())
        for outcome in (Answer(200, b"", b"1", 0), None):
            request = asyncio.create_task(connection.request(b"GET / HTTP/1.1\r\n\r\n"))
            await asyncio.sleep(0)
            assert connection._answer is not None
            if outcome is not None:
                connection._answer.set_result(outcome)
            else:
                connection.connection_lost(None)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            connection.connection_made(Wire())

    asyncio.run(main())


def test_a_client_that_fails_ends_the_run_though_another_outlives_its_cancellation() -> None:
    stubborn_steps = 0

    async def main() -> None:
        load = Load(0, random.Random(1), tellers=2, debtors=0, payers=0)
        forever = asyncio.Event()

        async def stubborn() -> None:
            nonlocal stubborn_steps
            stubborn_steps += 1
            try:
                await forever.wait()
            except asyncio.CancelledError:
                pass

        async def wrong() -> None:
            raise AssertionError("money was lost")

        async def chaos() -> None:
            await forever.wait()

        load.tellers[0].step = stubborn  # type: ignore[method-assign]
        load.tellers[1].step = wrong  # type: ignore[method-assign]
        await load.run(chaos())

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(main())
    assert caught.value.subgroup(AssertionError) is not None
    assert stubborn_steps == 1
