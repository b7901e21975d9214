"""The record of one name: its cache is bounded, its keys are its own."""

from __future__ import annotations

from kubeactor import Actor
from kubeactor.actor import ActorType
from kubeactor.engine.instance import CACHED_KEYS, CACHED_VALUE_BYTES, Instance


class Box(Actor):
    async def run(self) -> None: ...


def instance(name: bytes = b"a", shard: int = 3) -> Instance:
    return Instance(ActorType("BOX", Box), name, shard)


def test_the_cache_takes_small_values_and_absences_only() -> None:
    one = instance()
    one.remember(b"small", b"x" * CACHED_VALUE_BYTES)
    one.remember(b"absent", None)
    one.remember(b"big", b"x" * (CACHED_VALUE_BYTES + 1))
    assert one.cache == {b"small": b"x" * CACHED_VALUE_BYTES, b"absent": None}


def test_a_cached_value_that_grew_is_dropped_and_not_kept_stale() -> None:
    one = instance()
    one.remember(b"k", b"old")
    one.remember(b"k", b"x" * (CACHED_VALUE_BYTES + 1))
    assert one.cache == {}


def test_the_cache_holds_a_bounded_number_of_keys() -> None:
    one = instance()
    for i in range(10 * CACHED_KEYS):
        one.remember(b"%d" % i, b"v")
        assert one.cache is not None
        assert one.cache[b"%d" % i] == b"v"
        assert len(one.cache) <= CACHED_KEYS


def test_an_instance_is_idle_when_nothing_runs_waits_or_is_to_be_answered() -> None:
    one = instance()
    assert one.idle
    one.inflight = {None: None}  # type: ignore[dict-item]
    assert not one.idle


def test_the_rows_of_an_instance_begin_with_shard_binding_and_identity() -> None:
    assert instance(b"a").data == b"\0\3dBOX\0a\0"
    assert instance(b"a\xff", 256).data == b"\1\0dBOX\0a\xff\0"


def test_a_record_is_small() -> None:
    assert not hasattr(instance(), "__dict__")
