"""Many messages: a bounded part is in memory, all arrive, in order, across crashes and restarts."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest
from tests.engine.boxes import Box, Gone, Mute, Street, rows, run, street
from tests.engine.clockwork import delivered, look_often, rest
from tests.harness.engine import Machine, pauses
from tests.harness.hosts import Hosts

from kubeactor.call import Call
from kubeactor.engine import outbox


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    look_often(monkeypatch)


@pytest.mark.parametrize("crashes", [False, True])
def test_more_messages_than_fit_in_memory_arrive_in_order(tmp_path: Any, monkeypatch: Any, crashes: bool) -> None:
    monkeypatch.setattr(outbox, "MESSAGES", 8)
    monkeypatch.setattr(outbox, "SENDERS", 3)
    senders, receivers, turns = 10, 3, 10

    async def story(m: Machine) -> None:
        for turn in range(turns):
            for sender in range(senders):
                texts = [f"s{sender}-{turn:02}-{n}" for n in range(3)]
                for receiver in range(receivers):
                    m.send("BOX", f"s{sender}", "send", f"r{receiver}", *texts)
            await asyncio.sleep(0)
            assert len(m.engine.outbox._senders) <= 3
            assert all(sender.messages <= 8 for sender in m.engine.outbox._senders.values())
            if crashes:
                await asyncio.sleep(random.uniform(0, 0.004))
                m.crash()
        await delivered(m)
        for receiver in range(receivers):
            got = await m.call("BOX", f"r{receiver}", "got")
            for sender in range(senders):
                mine = [text for text in got if text.startswith(f"s{sender}-")]
                assert mine == sorted(set(mine)), "each once, in order"
                if not crashes:
                    assert len(mine) == turns * 3
        assert rows(m, b"o") == 0

    random.seed(7)
    run(tmp_path, story)


@street()
async def test_a_message_does_not_overtake_those_that_wait_on_disk_after_a_restart(m: Machine) -> None:
    await m.call("BOX", "r", "set_mood", "broken")
    for n in range(30):
        m.send("BOX", f"s{n}", "send", "r", f"{n} first")
    await m.until(lambda: m.engine.stats.message_failures == 30)
    await m.stop()
    old = outbox.SENDERS
    outbox.SENDERS = 5  # type: ignore[misc]
    try:
        m.start()
        for n in range(30):
            m.send("BOX", f"s{n}", "send", "r", f"{n} second")
        await rest(m)
        await m.call("BOX", "r", "set_mood", "")
        await delivered(m)
    finally:
        outbox.SENDERS = old  # type: ignore[misc]
    got = await m.call("BOX", "r", "got")
    assert len(got) == 60
    assert all(got.index(f"{n} first") < got.index(f"{n} second") for n in range(30))


def test_messages_read_from_disk_have_been_synced_too(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(outbox, "MESSAGES", 2)
    pauses.reset()
    hosts = Hosts(tmp_path, Box, Mute, Gone, env_class=Street)
    (here,), (there,) = hosts.names(0, 1), hosts.names(1, 1)
    texts = [f"{n}" for n in range(6)]

    async def main() -> None:
        zero, one = hosts.machines
        zero.sync_in_thread()
        await one.call("BOX", there, "set_mood", "slow")
        first = zero.send("BOX", here, "send", there, *texts)
        await pauses.arrived("take")
        zero.store.hold()
        late = zero.send("BOX", here, "send", there, "late")
        await zero.syncing()
        pauses.go("take")
        await one.until(lambda: len(pauses.log) == 6)
        await asyncio.sleep(0.02)
        assert pauses.log == [(there, text) for text in texts]
        zero.store.let_go()
        await asyncio.gather(first, late)
        await delivered(zero)
        assert await one.call("BOX", there, "got") == [*texts, "late"]

    hosts.run(main())


@street()
async def test_one_turn_may_send_to_thousands(m: Machine) -> None:
    names = [f"r{n}" for n in range(3000)]
    began = time.monotonic()
    await m.call("BOX", "a", "send_to_many", names, "x")
    await delivered(m)
    print(f"3,000 messages of one turn took {time.monotonic() - began:.2f} s")
    assert [await m.call("BOX", name, "got") for name in names[::100]] == [["x"]] * 30
    assert (len(pauses.log), rows(m, b"o"), m.engine.outbox._bytes) == (3000, 0, 0)


@street()
async def test_a_thousand_answers_that_are_ready_are_taken_one_after_the_other(m: Machine) -> None:
    """The sender lost what it knew of 1,000 deliveries, as when it comes back from a backup."""
    engine = m.engine

    class Ready:
        shards = m.shards

        def submit(self, call: Call) -> None:
            call.reply(b"")

    engine.dispatcher = Ready()
    await m.call("BOX", "a", "send", "b", *[f"{n}" for n in range(1500)])
    await delivered(m)
    assert engine.stats.messages == 1500
