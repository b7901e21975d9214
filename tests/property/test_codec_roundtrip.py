from __future__ import annotations

import math
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from kubeactor.codec import decode, encode
from kubeactor.errors import CodecError
from kubeactor.ids import ActorId

offsets = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59))
zones = st.none() | st.sampled_from(["UTC", "Europe/Paris", "America/St_Johns"]).map(ZoneInfo) | offsets.map(timezone)
hashable_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(),
    st.binary(),
    st.datetimes(timezones=zones),
    st.dates(),
    st.times(timezones=zones),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.builds(ActorId, st.text("ABC", min_size=1), st.binary()),
)
scalars = hashable_scalars | st.just(Decimal("sNaN"))
hashables = st.recursive(
    hashable_scalars,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(st.text(max_size=5), inner, max_size=5),
        st.dictionaries(hashables, inner, max_size=5),
        st.sets(hashables, max_size=5),
        st.frozensets(hashables, max_size=5),
    ),
    max_leaves=25,
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same in type, value, order, sign of zero, zone and fold."""
    if type(one) is not type(other):
        return False
    if isinstance(one, ActorId):
        return bool(one == other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(map(same, one.items(), other.items()))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(same(item, each) for each in other) for item in one)
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    fold = getattr(one, "fold", 0) == getattr(other, "fold", 0)
    return repr(one) == repr(other) and fold


@settings(max_examples=400)
@given(values)
def test_any_value_comes_back_the_same(value: Any) -> None:
    data = encode(value)
    assert same(decode(data), value)


@settings(max_examples=200)
@given(values)
def test_reading_and_writing_again_gives_the_same_bytes(value: Any) -> None:
    data = encode(value)
    assert encode(decode(data)) == data


@settings(max_examples=300)
@given(values, st.data())
def test_damaged_bytes_are_read_or_refused_but_nothing_else(value: Any, data: st.DataObject) -> None:
    damaged = bytearray(encode(value))
    where = data.draw(st.integers(0, len(damaged) - 1))
    damaged[where] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(damaged))
    except CodecError:
        pass


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused_but_nothing_else(data: bytes) -> None:
    try:
        decode(b"\x01" + data)
    except CodecError:
        pass
