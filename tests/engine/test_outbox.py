"""Messages: sent if and only if their turn commits, in order per pair, applied once, never dropped silently."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from tests.engine.boxes import Box, Gone, Mute, Street, Unwanted, rows, run, street
from tests.engine.clockwork import LONGEST_S, delivered, look_often, pass_time, rest
from tests.harness.engine import Machine, pauses
from tests.harness.hosts import Hosts

from kubeactor import ActorError
from kubeactor.call import CODEC, MESSAGE, Call, CallId
from kubeactor.codec import encode
from kubeactor.engine import messages, outbox
from kubeactor.errors import ActorFencedError, ActorOutputGateError, ActorOverloadedError, ActorShardUnavailableError
from kubeactor.ids import shard_of
from kubeactor.limits import MESSAGE_ATTEMPTS
from kubeactor.parked import Retry


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    look_often(monkeypatch)


async def fail_to_the_end(m: Machine) -> None:
    for _ in range(MESSAGE_ATTEMPTS + 1):
        await pass_time(m, LONGEST_S)
        await asyncio.sleep(0.004)
        await rest(m)


# --- if and only if the turn commits


@street()
async def test_a_message_arrives_before_the_reply_of_its_turn(m: Machine) -> None:
    await m.call("BOX", "a", "send", "b", "one", "two")
    assert await m.call("BOX", "b", "got") == ["one", "two"]
    await delivered(m)
    assert (rows(m, b"o"), m.engine.stats.messages, m.engine.stats.messages_pending) == (0, 2, 0)


@street()
async def test_a_send_of_a_turn_that_raised_or_was_rolled_back_is_not_sent(m: Machine) -> None:
    await m.error("BOX", "a", "send_and_raise", "b", "x")
    await m.call("BOX", "a", "send_in_transaction", "b")
    await delivered(m)
    assert await m.call("BOX", "b", "got") == ["before", "after"]


@street()
async def test_a_message_leaves_only_when_its_batch_is_on_disk(m: Machine) -> None:
    m.sync_in_thread()
    m.store.hold()
    sent = m.send("BOX", "a", "send", "b", "x")
    await m.syncing()
    await asyncio.sleep(0.01)
    assert pauses.log == []
    m.store.let_go()
    await sent
    assert pauses.log == [("b", "x")]


@street()
async def test_the_reply_waits_for_delivery_at_most_a_second(m: Machine) -> None:
    assert messages.REPLY_WAITS_S == 1.0
    await m.call("BOX", "b", "set_mood", "slow")
    began = time.monotonic()
    await m.call("BOX", "a", "send", "b", "x")
    assert 0.9 < time.monotonic() - began < messages.REPLY_WAITS_S + 10
    assert await m.call("BOX", "a", "returned") == []
    pauses.go("take")
    await delivered(m)
    assert await m.call("BOX", "b", "got") == ["x"]


@street()
async def test_a_reply_inside_a_chain_does_not_wait_since_the_receiver_may_be_its_caller(m: Machine) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "REPLY_WAITS_S", 3600.0)
        await m.call("BOX", "a", "ask_to_send", "b", "a", "back")
        await delivered(m)
    assert await m.call("BOX", "a", "got") == ["back"]


@street()
async def test_messages_that_send_messages_back_and_forth_wait_for_nobody(m: Machine) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "REPLY_WAITS_S", 3600.0)
        await m.call("BOX", "a", "pass_on", "b", 20)
        await m.call("BOX", "self", "pass_on", "self", 20)
        await delivered(m)
    assert await m.call("BOX", "a", "passed") + await m.call("BOX", "b", "passed") == 21
    assert await m.call("BOX", "self", "passed") == 21


@street()
async def test_a_box_can_send_to_itself(m: Machine) -> None:
    await m.call("BOX", "a", "send", "a", "one", "two")
    assert await m.call("BOX", "a", "got") == ["one", "two"]


# --- refused


@street()
async def test_a_problem_ends_a_message_and_its_sender_is_told_once(m: Machine) -> None:
    await m.call("BOX", "b", "set_mood", "refuses bad")
    await m.call("BOX", "a", "send", "b", "one", "bad", "two")
    await delivered(m)
    assert await m.call("BOX", "b", "got") == ["one", "two"]
    assert await m.call("BOX", "a", "returned") == [["BOX/b", "take", "bad", 2, 1, "Unwanted", 3]]
    assert pauses.log == [("b", "one"), ("b", "bad"), ("b", "two")]
    assert rows(m, b"o") == 0


@street()
async def test_a_failing_delivery_is_retried_on_schedule_and_ended_by_the_tenth_attempt(m: Machine) -> None:
    await m.call("BOX", "b", "set_mood", "picky")
    m.send("BOX", "a", "send", "b", "bad", "good")
    await m.until(lambda: m.engine.stats.message_failures == 1)
    for failures in range(1, MESSAGE_ATTEMPTS):
        await rest(m)
        assert m.engine.stats.message_failures == len(pauses.log) == failures
        [sender] = m.engine.outbox._senders.values()
        head = sender.pairs["BOX", b"b"][0]
        wait_s = (head.row.next_us - m.clock.wall_us) / 1e6
        expected = min(2.0 ** (failures - 1), 300.0)
        assert 0.75 * expected <= wait_s <= 1.25 * expected
        await pass_time(m, wait_s * 0.9)
        assert len(pauses.log) == failures
        m.clock.advance(wait_s * 0.1 + 1e-6)
        await m.until(lambda failures=failures: m.engine.stats.message_failures > failures)  # type: ignore[misc]
    await delivered(m)
    assert pauses.log == [("b", "bad")] * MESSAGE_ATTEMPTS + [("b", "good")]
    assert await m.call("BOX", "a", "returned") == [
        ["BOX/b", "take", "bad", 1, MESSAGE_ATTEMPTS, "ActorMethodError", None]
    ]


@street()
async def test_the_receiver_remembers_that_it_passed_a_number_without_effect(m: Machine) -> None:
    await m.call("BOX", "b", "set_mood", "full")
    await m.call("BOX", "a", "send", "b", "x")
    await delivered(m)
    await m.call("BOX", "b", "set_mood", "")
    m.crash()
    answers: list[Any] = []
    m.engine.submit(message_to(m, "b", number=1, reply=answers.append))
    await rest(m)
    [answer] = answers
    assert (answer.name, answer.limit) == ("Unwanted", 3)
    assert await m.call("BOX", "b", "got") == []
    assert pauses.log == [("b", "x")]


def message_to(m: Machine, to: str, *, number: int, reply: Any, attempts: int = 0, method: str = "take") -> Call:
    """The frame that a sender which lost its memory sends again."""
    return Call(
        "BOX",
        to.encode(),
        method,
        encode((("x",), {})),
        shard=shard_of(to.encode(), m.shards),
        deadline=m.clock.monotonic() + 10,
        reply=reply,
        format=CODEC,
        id=CallId(MESSAGE, b"BOX\0a", attempts, number),
        repeat=True,
        internal=True,
    )


@street()
async def test_what_was_applied_stays_so_when_its_method_is_gone(m: Machine) -> None:
    await m.call("BOX", "a", "send", "b", "x")
    answers: list[Any] = []
    m.engine.submit(message_to(m, "b", number=1, reply=answers.append, attempts=9, method="renamed"))
    m.engine.submit(message_to(m, "b", number=2, reply=answers.append, method="renamed"))
    await rest(m)
    assert [getattr(answer, "name", answer) for answer in answers] == [b"", "ActorUnknownMethodError"]


@street()
async def test_a_problem_that_no_format_holds_still_ends_its_message(m: Machine) -> None:
    await m.call("BOX", "b", "set_mood", "full")
    wild = Unwanted("\ud800" * 3, limit=2**70)
    original = Box.take

    async def take(self: Box, text: str) -> None:
        raise wild

    m.engine.served["BOX"].methods["take"].function = take
    try:
        await m.call("BOX", "a", "send", "b", "x")
        await delivered(m)
    finally:
        m.engine.served["BOX"].methods["take"].function = original
    [[receiver, _, text, *_]] = await m.call("BOX", "a", "returned")
    assert (receiver, text) == ("BOX/b", "x")


def test_after_a_refusal_the_next_of_the_pair_leaves_only_when_that_end_is_on_disk(tmp_path: Any) -> None:
    """Else, after a power loss here, the first would be sent again to a receiver that has passed its number."""
    pauses.reset()
    hosts = Hosts(tmp_path, Box, Mute, Gone, env_class=Street)
    (here,), (there,) = hosts.names(0, 1), hosts.names(1, 1)

    async def main() -> None:
        zero, one = hosts.machines
        zero.sync_in_thread()
        await one.call("BOX", there, "set_mood", "slow and full")
        sent = zero.send("BOX", here, "send", there, "first", "second")
        await pauses.arrived("take")
        zero.store.hold()
        pauses.go("take")
        await zero.until(lambda: zero.engine.stats.message_failures == 1)
        await asyncio.sleep(0.02)
        assert pauses.log == [(there, "first")]
        assert zero.engine.stats.turns == 1, "nor does `undelivered` run"
        zero.store.let_go()
        await sent
        await delivered(zero)
        assert pauses.log == [(there, "first"), (there, "second")]
        assert len(await zero.call("BOX", here, "returned")) == 2

    hosts.run(main())


# --- what counts


@pytest.mark.parametrize(
    "error",
    [
        ActorOverloadedError("full"),
        ActorFencedError("moved"),
        ActorShardUnavailableError("away"),
        ActorOutputGateError("unknown"),
    ],
)
def test_a_refusal_or_an_unknown_outcome_ends_no_message(tmp_path: Any, monkeypatch: Any, error: ActorError) -> None:
    monkeypatch.setattr(outbox, "UNKNOWN_RETRY_S", 0.001)
    error.retry_after_s = 0.001  # type: ignore[assignment]
    left = [3 * MESSAGE_ATTEMPTS]

    async def story(m: Machine) -> None:
        engine = m.engine

        class Unlucky:
            shards = m.shards

            def submit(self, call: Call) -> None:
                left[0] -= 1
                if left[0] > 0:
                    call.reply(error)
                else:
                    engine.submit(call)

        engine.dispatcher = Unlucky()
        await m.call("BOX", "a", "send", "b", "x")
        await delivered(m)
        assert left == [0]
        assert await m.call("BOX", "b", "got") == ["x"]
        assert (await m.call("BOX", "a", "returned"), engine.stats.message_failures) == ([], 0)

    run(tmp_path, story)


@street(quarantined=lambda key: key == b"BOX\0b")
async def test_a_quarantined_receiver_is_waited_for(m: Machine) -> None:
    m.send("BOX", "a", "send", "b", "x")
    await fail_to_the_end(m)
    assert (m.engine.stats.message_failures, rows(m, b"o"), pauses.log) == (0, 1, [])


@street()
async def test_a_method_or_class_that_is_gone_counts_as_a_failure(m: Machine) -> None:
    m.sync_in_thread()
    m.store.hold()
    m.send("BOX", "a", "send", "b", "x")
    m.send("BOX", "a", "send_gone", "c")
    await m.syncing()
    method = m.engine.served["BOX"].methods.pop("take")
    del m.engine.served["GONE"]
    m.store.let_go()
    await delivered(m)
    m.engine.served["BOX"].methods["take"] = method
    found = sorted(await m.call("BOX", "a", "returned"))
    assert [(entry[0], entry[-3], entry[-2]) for entry in found] == [
        ("BOX/b", MESSAGE_ATTEMPTS, "ActorUnknownMethodError"),
        ("GONE/c", MESSAGE_ATTEMPTS, "ActorUnknownBindingError"),
    ]


# --- parked


@street()
async def test_without_undelivered_a_refused_message_is_parked_and_later_ones_go_on(m: Machine) -> None:
    await m.call("BOX", "b", "set_mood", "refuses bad")
    await m.call("MUTE", "a", "send", "b", "one", "bad", "two")
    await delivered(m)
    assert await m.call("BOX", "b", "got") == ["one", "two"]
    assert (rows(m, b"o"), rows(m, b"p"), m.engine.stats.messages_parked) == (0, 1, 1)
    [item] = m.engine.parked.items()
    assert (item.kind, item.instance, item.number, item.attempts) == ("message", "MUTE/a", 2, 1)
    assert (item.receiver, item.method, item.error) == ("BOX/b", "take", "Unwanted: not that one")
    assert item.since == m.clock.wall_us / 1e6


@street()
async def test_a_parked_message_is_sent_again_by_hand_under_a_new_number(m: Machine) -> None:
    await m.call("BOX", "b", "set_mood", "refuses bad")
    await m.call("MUTE", "a", "send", "b", "bad", "good")
    await delivered(m)
    await m.restart()
    assert m.engine.stats.messages_parked == 1
    await m.call("BOX", "b", "set_mood", "")
    assert not m.engine.parked.retry(Retry("message", "MUTE/a", 2))
    assert not m.engine.parked.retry(Retry("message", "MUTE/nobody", 1))
    assert m.engine.parked.retry(Retry("message", "MUTE/a", 1))
    await delivered(m)
    assert await m.call("BOX", "b", "got") == ["good", "bad"]
    assert (rows(m, b"o"), rows(m, b"p"), m.engine.stats.messages_parked) == (0, 0, 0)
    await m.call("MUTE", "a", "send", "b", "last")
    assert await m.call("BOX", "b", "got") == ["good", "bad", "last"]


@street()
async def test_a_message_whose_undelivered_fails_ten_times_is_parked(m: Machine) -> None:
    await m.call("BOX", "b", "set_mood", "full")
    await m.call("BOX", "a", "set_mood", "heartless")
    await m.call("BOX", "a", "send", "b", "x")
    await delivered(m)
    assert await m.call("BOX", "a", "returned") == []
    [item] = m.engine.parked.items()
    assert (item.instance, item.number, item.attempts) == ("BOX/a", 1, 1)


@street()
async def test_undelivered_is_tried_again_until_it_commits_and_then_not_any_more(m: Machine) -> None:
    await m.call("BOX", "b", "set_mood", "full")
    await m.call("BOX", "a", "set_mood", "heartless")
    await m.call("BOX", "a", "send", "b", "x")
    for _ in range(3):
        await pass_time(m, LONGEST_S)
    await m.call("BOX", "a", "set_mood", "")
    m.crash()
    await delivered(m)
    m.crash()
    await delivered(m)
    assert len(await m.call("BOX", "a", "returned")) == 1


@street(idle_s=0.01)
async def test_undelivered_runs_on_the_instance_that_is_in_memory_then(m: Machine) -> None:
    await m.call("BOX", "b", "set_mood", "broken")
    m.send("BOX", "a", "send", "b", "x")
    for failures in range(1, MESSAGE_ATTEMPTS):
        await m.until(lambda failures=failures: m.engine.stats.message_failures == failures)  # type: ignore[misc]
        m.clock.advance(LONGEST_S if failures + 1 < MESSAGE_ATTEMPTS else 0)
    await m.until(lambda: m.engine.find_instance("BOX", b"a") is None)
    held = m.send("BOX", "a", "hold", "x")
    await pauses.arrived("x")
    m.clock.advance(LONGEST_S)
    instance = m.engine.find_instance("BOX", b"a")
    assert instance is not None
    await m.until(lambda: instance.queue)
    pauses.go("x")
    await held
    await delivered(m)
    assert len(await m.call("BOX", "a", "returned")) == 1


# --- delete_all


@street()
async def test_delete_all_clears_the_outbox_and_what_is_parked(m: Machine) -> None:
    await m.call("BOX", "b", "set_mood", "full")
    await m.call("MUTE", "a", "send", "b", "parked")
    await delivered(m)
    await m.call("BOX", "b", "set_mood", "broken")
    m.send("MUTE", "a", "send", "b", "failing", "behind")
    await m.until(lambda: m.engine.stats.message_failures == 2)
    assert (rows(m, b"o"), rows(m, b"p")) == (2, 1)
    await m.call("MUTE", "a", "wipe")
    assert (rows(m, b"o"), rows(m, b"p"), m.engine.stats.messages_parked) == (0, 0, 0)
    assert m.engine.outbox.pending_in_memory == m.engine.outbox._bytes == 0
    await m.call("BOX", "b", "set_mood", "")
    await m.call("MUTE", "a", "send", "b", "new")
    await fail_to_the_end(m)
    assert await m.call("BOX", "b", "got") == ["new"]


@street()
async def test_delete_all_clears_messages_that_wait_for_their_sync(m: Machine) -> None:
    m.sync_in_thread()
    m.store.hold()
    sent = m.send("BOX", "a", "send", "b", "old")
    wiped = m.send("BOX", "a", "wipe", "b", "new")
    await m.syncing()
    m.store.let_go()
    await asyncio.gather(sent, wiped)
    await delivered(m)
    assert await m.call("BOX", "b", "got") == ["new"]
    assert rows(m, b"o") == 0


@street()
async def test_delete_all_that_waits_for_the_disk_is_not_undone_by_an_answer_that_comes_meanwhile(m: Machine) -> None:
    await m.call("BOX", "b", "set_mood", "slow and broken")
    sent = m.send("BOX", "a", "send", "b", "x")
    await pauses.arrived("take")
    m.store.stalls = 10
    wiped = m.send("BOX", "a", "wipe")
    assert m.engine.commits.stalled
    pauses.go("take")
    await asyncio.gather(sent, wiped)
    await rest(m)
    assert rows(m, b"o") == m.engine.outbox.pending_in_memory == 0
