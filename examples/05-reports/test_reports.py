"""pytest"""

from __future__ import annotations

from datetime import timedelta

import pytest
from reports import Office

from kubeactor.testing import Actors

DAY_S = 86_400


async def test_every_reader_gets_a_report_a_day(actors: Actors[Office]) -> None:
    sales = actors.env.TOPIC.id_from_name("sales")
    began = actors.now()
    for reader in ("alice", "bob", "alice"):
        await sales.subscribe(reader)
    assert await sales.schedule(DAY_S) == began + timedelta(days=1)
    await sales.count("order")
    assert await sales.count("order") == 2
    await actors.advance(days=3)
    await actors.settle()
    for reader in ("alice", "bob"):
        mails = await actors.env.MAILBOX.id_from_name(reader).mails()
        assert [mail.until for mail in mails] == [began + timedelta(days=n) for n in (1, 2, 3)]
        assert [mail.events for mail in mails] == [{"order": 2}, {}, {}]


@pytest.mark.parametrize("writes", range(1, 6))
async def test_a_report_arrives_once_at_whichever_write_the_power_goes(actors: Actors[Office], writes: int) -> None:
    sales = actors.env.TOPIC.id_from_name("sales")
    await sales.subscribe("alice")
    await sales.schedule(DAY_S)
    await sales.count("order")
    actors.crash_after(writes=writes)
    await actors.advance(days=2)
    await actors.settle()
    mails = await actors.env.MAILBOX.id_from_name("alice").mails()
    assert [mail.events for mail in mails] == [{"order": 1}, {}]
