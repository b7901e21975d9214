"""Names, ids, and the fixed map from a name to its shard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeactor.ids import ActorId, identity_of_name, identity_of_unique, new_unique_identity, shard_of

HOSTILE = ["a/b", ".", "..", "a.b", "+15551234", "a|b@c", "%2F", "?x#y", " ", "\U0001f600", "é", "é", "x" * 1024]


@pytest.mark.parametrize("name", HOSTILE)
def test_any_unicode_name_is_its_bytes_and_its_text_comes_back(name: str) -> None:
    actor = ActorId("ACCOUNT", identity_of_name(name))
    assert actor.identity == name.encode()
    assert actor.name == name
    assert ActorId.parse(str(actor)) == actor


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "at least one byte"),
        ("x" * 1025, "at most 1024"),
        ("é" * 513, "at most 1024"),
        ("a\0b", "NUL"),
        ("\ud800", "surrogates"),
    ],
)
def test_a_bad_name_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        identity_of_name(name)


def test_unique_ids_collide_with_no_name_and_come_back_from_their_text() -> None:
    identity = new_unique_identity()
    actor = ActorId("CART", identity)
    assert identity[:1] == b"\xff"
    assert actor.name is None
    assert ActorId.parse(str(actor)) == actor
    assert str(actor) == f"CART!{identity[1:].decode()}"
    assert identity != new_unique_identity()


@pytest.mark.parametrize(
    "text", ["", "alice", "account/alice", "ACCOUNT", "ACCOUNT/", "ACCOUNT!xyz", "ACCOUNT!" + "A" * 32]
)
def test_a_text_that_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        ActorId.parse(text)


def test_a_unique_id_is_32_lower_case_hex_digits() -> None:
    assert identity_of_unique("0" * 32) == b"\xff" + b"0" * 32
    with pytest.raises(ValueError, match="32 lower-case hex digits"):
        identity_of_unique("0" * 31)


@given(st.binary(min_size=1, max_size=50), st.integers(1, 4096))
def test_every_identity_has_one_shard(identity: bytes, shards: int) -> None:
    assert 0 <= shard_of(identity, shards) < shards
    assert shard_of(identity, shards) == shard_of(bytes(bytearray(identity)), shards)


def test_the_map_from_name_to_shard_never_changes() -> None:
    # Another number here loses every instance of every namespace.
    assert [shard_of(name, 256) for name in (b"alice", b"bob", "\U0001f600".encode())] == [176, 229, 142]
