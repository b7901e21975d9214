"""Interleavings that a review of the promises found: each lost, doubled or hid something once."""

from __future__ import annotations

from typing import Any

import pytest
from tests.engine.clockwork import delivered, look_often
from tests.harness.engine import NOON_US, Machine, on_engine, pauses, session_id

from kubeactor import Actor, ActorError
from kubeactor.call import MESSAGE as MESSAGE_ID
from kubeactor.call import CallId
from kubeactor.engine.loop import NoPage
from kubeactor.engine.store import StoreError
from kubeactor.errors import ActorFencedError, ActorReentrancyError


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    look_often(monkeypatch)


class Book(Actor):
    """An account that can pass money on in the middle of a turn."""

    async def add(self, amount: int) -> int:
        total: int = await self.ctx.storage.get("total", 0) + amount
        self.ctx.storage.put("total", total)
        return total

    async def total(self) -> int:
        return await self.ctx.storage.get("total", 0)

    async def post(self, via: str, to: str) -> None:
        self.ctx.send(self.env.BOOK.id_from_name(via).forward, to, 1)

    async def forward(self, to: str, failures: int) -> None:
        """Adds 1 to another; the first runs raise after that."""
        await self.env.BOOK.id_from_name(to).add(1)
        pauses.log.append("forward")
        if len(pauses.log) <= failures:
            raise ValueError("not yet")

    async def give_way(self, to: str) -> None:
        """As when a call made inside fell victim to a cycle that nobody caught."""
        await self.env.BOOK.id_from_name(to).add(1)
        if not pauses.log:
            pauses.log.append("gave way")
            raise ActorReentrancyError("calls wait for each other in a circle", retryable=True)


@on_engine(Book)
async def test_calls_made_inside_a_message_are_applied_once_over_its_counted_attempts(m: Machine) -> None:
    await m.call("BOOK", "alice", "post", "relay", "bob")
    await delivered(m)
    assert pauses.log == ["forward", "forward"]
    assert await m.call("BOOK", "bob", "total") == 1


@on_engine(Book)
async def test_a_root_call_that_gave_way_in_a_cycle_repeats_its_calls_under_the_same_ids(m: Machine) -> None:
    root = b"ingress1" + (7).to_bytes(8, "big")
    errors: list[ActorError] = []
    for count in (1, 2):  # the router gives the repetition another use of a slot
        call, future = m.make("BOOK", "alice", "give_way", "bob", id=session_id(0, count), root=root, repeat=count > 1)
        m.engine.submit(call)
        try:
            await future
        except ActorError as error:
            errors.append(error)
    assert [(error.name, error.retryable) for error in errors] == [("ActorReentrancyError", True)]
    assert errors[0].started == "yes", "bob has got his 1: the call must not be made again under another id"
    assert await m.call("BOOK", "bob", "total") == 1


@on_engine(Book)
async def test_a_call_that_arrives_after_its_deadline_is_not_started(m: Machine) -> None:
    error = await m.error("BOOK", "alice", "add", 1, timeout_s=0.0)
    assert (error.name, error.started) == ("ActorMethodTimeoutError", "no")
    assert await m.call("BOOK", "alice", "total") == 0
    error = await m.error("BOOK", "alice", "add", 1, timeout_s=0.0)
    assert (error.name, error.started) == ("ActorMethodTimeoutError", "no")
    assert await m.call("BOOK", "alice", "total") == 0


@on_engine(Book)
async def test_a_client_key_is_known_for_24_hours_although_the_clock_was_set_forward(m: Machine) -> None:
    m.clock.wall_us = NOON_US + int(11.9 * 3600 * 1e6)  # just before midnight
    assert await m.call("BOOK", "alice", "add", 5, key="k") == 5
    m.clock.advance(23.5 * 3600)
    m.clock.step(3600)
    assert await m.call("BOOK", "alice", "add", 5, key="k") == 5
    assert await m.call("BOOK", "alice", "total") == 5


@on_engine(Book)
async def test_nothing_is_evicted_while_batches_wait(m: Machine) -> None:
    """A batch that waits still points at its instance's record: a second record would not see what it changes."""
    await m.call("BOOK", "bob", "total")
    m.store.stalls = 3
    write = m.send("BOOK", "alice", "add", 1)
    assert m.engine.commits.stalled
    bob = m.engine.find_instance("BOOK", b"bob")
    assert bob is not None
    assert not m.engine.housekeeping.evict(bob)
    assert await write == 1
    assert m.engine.housekeeping.evict(bob)


def test_the_token_of_a_message_does_not_depend_on_its_tries() -> None:
    calls = [_call(CallId(MESSAGE_ID, b"BOOK\0alice", tries, 3)) for tries in (0, 4)]
    assert calls[0].token() == calls[1].token()
    assert calls[0].token() != _call(CallId(MESSAGE_ID, b"BOOK\0alice", 0, 4)).token()


def _call(id: CallId) -> Any:
    from kubeactor.call import Call

    return Call("BOOK", b"bob", "add", b"", shard=1, deadline=0.0, reply=lambda outcome: None, id=id)


@on_engine(Book)
async def test_a_read_error_outside_of_users_code_ends_the_worker_instead_of_one_instance(m: Machine) -> None:
    """Otherwise the instance would stay in that turn for ever, or a call without an answer."""
    await m.call("BOOK", "alice", "add", 1)
    broken: list[str] = []

    def get(key: bytes) -> bytes | None:
        broken.append("read")
        raise StoreError("a read failed: EIO")

    m.store.get = get  # type: ignore[method-assign]
    send = m.send("BOOK", "alice", "post", "relay", "bob")  # its batch needs the last number of its messages
    keyed = m.send("BOOK", "alice", "add", 1, key="k")
    await m.until(lambda: m.failures)
    assert m.failures == ["a read failed: EIO"]
    assert broken
    assert not send.done()
    assert not keyed.done() or isinstance(keyed.exception(), ActorFencedError)


@on_engine(Book)
async def test_a_read_error_at_the_lookup_of_a_result_ends_the_worker(m: Machine) -> None:
    def get(key: bytes) -> bytes | None:
        raise StoreError("a read failed: EIO")

    m.store.get = get  # type: ignore[method-assign]
    keyed = m.send("BOOK", "alice", "add", 1, key="k")
    assert m.failures == ["a read failed: EIO"]
    assert not keyed.done()


class SyncPage(NoPage):
    """Notes how many syncs had ended when the loop went into RocksDB and came back."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.syncs: Any = lambda: 0

    def enter_rocksdb(self) -> None:
        self.told.append(("enter", self.syncs()))

    def leave_rocksdb(self) -> None:
        self.told.append(("leave", self.syncs()))


SYNC_PAGE = SyncPage()


@on_engine(Book, page=SYNC_PAGE)
async def test_the_page_says_that_the_loop_waits_for_a_sync_so_that_a_slow_disk_is_not_taken_for_a_hang(
    m: Machine,
) -> None:
    SYNC_PAGE.syncs = lambda: m.store.syncs
    SYNC_PAGE.told.clear()
    before = m.store.syncs
    await m.call("BOOK", "alice", "add", 1)
    assert SYNC_PAGE.told == [("enter", before), ("leave", before + 1)]
