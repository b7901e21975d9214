"""Scopes: ids of calls made inside, revocation, names as people read them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from kubeactor import Actor, ActorFencedError
from kubeactor.actor import ActorType
from kubeactor.call import DERIVED, Call, derived_id
from kubeactor.ids import new_unique_identity
from kubeactor.scope import SCOPE, RequestScope, chain_text, instance_text, process_scope
from kubeactor.stub import stub_class


class Account(Actor):
    async def add(self, amount: int) -> None: ...

    async def total(self) -> None: ...


class Keeps:
    """A dispatcher that keeps and answers what it gets."""

    shards = 8

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def submit(self, call: Call) -> None:
        from kubeactor import codec

        self.calls.append(call)
        call.reply(codec.encode(None))


def scope_of(keeps: Keeps, **changes: Any) -> RequestScope:
    fields: dict[str, Any] = {"parent": b"p", "bucket": 5, "deadline": time.monotonic() + 9, "root": b"r"}
    return RequestScope(keeps, **(fields | changes))


def stub_of(name: str) -> Any:
    from kubeactor.ids import ActorId

    return stub_class(ActorType("ACCOUNT", Account))(ActorId("ACCOUNT", name.encode()), Keeps)


def test_calls_made_inside_get_ids_by_what_they_call_and_how_often() -> None:
    keeps = Keeps()

    async def request() -> list[Any]:
        SCOPE.set(scope_of(keeps))
        alice, bob = stub_of("alice"), stub_of("bob")
        await alice.add(1)
        await alice.add(2)
        await bob.add(1)
        await alice.total()
        return [call.id for call in keeps.calls]

    first = asyncio.run(request())
    assert len(set(first)) == 4
    assert all(one.kind == DERIVED for one in first)
    assert first[1] == derived_id(b"p", "ACCOUNT", b"alice", "add", 1)
    keeps.calls.clear()
    assert asyncio.run(request()) == first


def test_a_call_inherits_bucket_root_deadline_and_whether_it_is_a_repeat() -> None:
    keeps = Keeps()

    async def request(**changes: Any) -> Call:
        SCOPE.set(scope_of(keeps, **changes))
        await stub_of("alice").add(1)
        return keeps.calls[-1]

    call = asyncio.run(request(deadline=123456789.0))
    assert (call.bucket, call.root, call.deadline, call.repeat, call.internal) == (5, b"r", 123456789.0, False, True)
    assert asyncio.run(request(repeat=True)).repeat
    assert asyncio.run(request(bucket=0)).repeat  # a root that is retried for a day may have been here before
    assert asyncio.run(request(root=b"")).root == b"p"


def test_a_scope_that_has_ended_makes_no_call() -> None:
    keeps = Keeps()

    async def request() -> None:
        scope = scope_of(keeps)
        SCOPE.set(scope)
        call = stub_of("alice").add(1)
        scope.end()
        with pytest.raises(ActorFencedError, match="has ended"):
            await call
        with pytest.raises(ActorFencedError, match="has ended"):
            stub_of("alice").add(1)

    asyncio.run(request())
    assert keeps.calls == []


def test_each_call_outside_of_any_scope_has_ids_of_its_own() -> None:
    keeps = Keeps()
    assert process_scope(keeps).parent != process_scope(keeps).parent


def test_chains_and_instances_read_as_people_write_them() -> None:
    unique = new_unique_identity()
    assert instance_text(b"ACCOUNT\0alice") == "ACCOUNT/alice"
    assert instance_text(b"CART\0" + unique) == f"CART!{unique[1:].decode()}"
    assert chain_text((b"A\0x", b"B\0y", b"A\0x")) == "A/x -> B/y -> A/x"
