from __future__ import annotations

import collections
import dataclasses
import enum
import json
import math
import re
import zoneinfo
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from msgspec.msgpack import Ext

from kubeactor import codec
from kubeactor.codec import DEPTH, VERSION, decode, encode
from kubeactor.errors import CodecError
from kubeactor.ids import ActorId

PARIS = ZoneInfo("Europe/Paris")

# Each value beside the bytes that the first release wrote for it (tests/vectors/codec_v1.json, by name).
VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "int": -70,
    "int_u64_max": 2**64 - 1,
    "int_i64_min": -(2**63),
    "int_above_u64": 2**64,
    "int_below_i64": -(2**63) - 1,
    "int_huge": -(10**40),
    "float": 1.5,
    "minus_zero": -0.0,
    "nan": math.nan,
    "minus_inf": -math.inf,
    "str": "é😀\0",
    "bytes": b"\x00\xff",
    "list": [1, "a", None, [2.0]],
    "tuple": (1, (), [()]),
    "dict": {"b": 1, "a": {"c": []}},
    "dict_scalar_keys": {1: "a", None: "b", b"c": "d", 2.5: "e", False: "f"},
    "dict_any_keys": {(1, 2): "a", frozenset({3}): ("b",), date(2024, 2, 29): 1, 2**70: 2, "plain": 3},
    "set": {3, "a", (1,), None},
    "frozenset": frozenset({frozenset(), 1}),
    "datetime_naive": datetime(2024, 10, 27, 2, 30, 1, 999999, fold=1),
    "datetime_utc": datetime(1, 1, 1, tzinfo=UTC),
    "datetime_zone": datetime(2024, 10, 27, 2, 30, tzinfo=PARIS, fold=1),
    "datetime_offset": datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(-timedelta(hours=5, seconds=7))),
    "datetime_named_offset": datetime(2000, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET")),
    "datetime_zone_utc": datetime(2000, 1, 1, tzinfo=ZoneInfo("UTC")),
    "date": date(2024, 2, 29),
    "time": time(23, 59, 1, 5, fold=1),
    "time_zone": time(1, tzinfo=PARIS),
    "timedelta": timedelta(-1, 3, 4),
    "timedelta_max": timedelta.max,
    "decimal": Decimal("-0.00"),
    "decimal_exponent": Decimal("1E+1000"),
    "decimal_snan": Decimal("sNaN12"),
    "uuid": UUID(int=0x0123456789ABCDEF),
    "actor_id": ActorId("ACCOUNT", b"alice"),
    "actor_id_unique": ActorId("ACCOUNT", b"\xff" + b"0" * 32),
}
VECTORS: dict[str, str] = json.loads((Path(__file__).parent / "vectors" / "codec_v1.json").read_text())


def exact(value: Any) -> Any:
    """Everything that a round trip must keep, as data that compares: type, order, sign of zero, zone, fold."""
    kind: Any = type(value)
    if kind in (list, tuple):
        return kind, [exact(item) for item in value]
    if kind in (set, frozenset):
        return kind, sorted(repr(exact(item)) for item in value)
    if kind is dict:
        return kind, [(exact(key), exact(item)) for key, item in value.items()]
    if kind in (datetime, time):
        return kind, repr(value), value.fold, value.tzname() if kind is datetime else None
    return kind, repr(value)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_with_its_exact_type(name: str) -> None:
    assert exact(decode(encode(VALUES[name]))) == exact(VALUES[name])


@pytest.mark.parametrize("name", VECTORS)
def test_bytes_of_the_first_release_stay_readable_and_are_still_written(name: str) -> None:
    assert exact(decode(bytes.fromhex(VECTORS[name]))) == exact(VALUES[name])
    assert encode(VALUES[name]).hex() == VECTORS[name]


def test_every_kind_of_value_has_a_vector() -> None:
    assert VECTORS.keys() == VALUES.keys()


def test_the_bytes_of_a_set_do_not_depend_on_its_order_in_memory() -> None:
    compact, sparse = {0, 8}, set(range(4096))
    sparse -= set(range(4096)) - compact
    other_way = {8, 0}
    assert list(compact) != list(other_way)
    assert encode(compact) == encode(other_way) == encode(sparse)


def test_what_was_encoded_is_a_copy() -> None:
    value = {"a": [1]}
    data = encode(value)
    value["a"].append(2)
    assert decode(data) == {"a": [1]}


def test_nesting_is_taken_up_to_the_documented_depth() -> None:
    value: Any = 5
    for _ in range(DEPTH):
        value = [value]
    assert decode(encode(value)) == value
    with pytest.raises(CodecError, match="nested deeper than 100 levels"):
        encode([value])
    with pytest.raises(CodecError, match=r"^\$\.x{248}\.\.\."):
        encode({"x" * 300: [value]})


def test_a_value_that_contains_itself_is_refused_with_the_path_of_the_cycle() -> None:
    value: dict[str, Any] = {"items": [1, {}]}
    value["items"][1]["up"] = value
    with pytest.raises(CodecError) as caught:
        encode(value)
    assert caught.value.detail == "$.items[1].up: contains itself"


@dataclasses.dataclass
class Point:
    x: int


class PointStruct(msgspec.Struct):
    x: int


class PointModel(pydantic.BaseModel):
    x: int


class PointTuple(NamedTuple):
    x: int


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()


class Stub:
    __kubeactor_stub__ = True


class OwnZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(0)


class OwnDate(date):
    pass


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (len, "builtin_function_or_method"),
        (encode, "is a function"),
        (math, "is a module"),
        (object(), "no stored form"),
        (Stub(), "kubeactor.id_of(stub)"),
        (Point(1), 'Key("name", Point)'),
        (PointStruct(1), 'Key("name", PointStruct)'),
        (PointModel(x=1), 'Key("name", PointModel)'),
        (Color.RED, 'Key("name", Color)'),
        (Level.LOW, 'Key("name", Level)'),
        (PointTuple(1), "write tuple(value)"),
        (Text("a"), "write str(value)"),
        (collections.OrderedDict(), "write dict(value)"),
        (OwnDate(2024, 1, 1), "a subclass of date that would not come back as such"),
        (bytearray(b"a"), "write bytes(value)"),
        (memoryview(b"a"), "write bytes(value)"),
        ("\ud800", "lone surrogate"),
        (datetime(2024, 1, 1, tzinfo=OwnZone()), "OwnZone as its time zone"),
    ],
)
def test_what_has_no_stored_form_is_refused_with_its_path_and_what_to_write(value: Any, says: str) -> None:
    with pytest.raises(CodecError, match=re.escape(says)) as caught:
        encode({"items": [0, 1, 2, {"f": value}]})
    assert caught.value.detail.startswith("$.items[3].f: ")
    with pytest.raises(CodecError, match=rf"^\$: .*{re.escape(says)}"):
        encode(value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"two words": len}, "$['two words']"),
        ({1: len}, "$[1]"),
        ({(1, 2): len}, "$[<tuple>]"),
        ({(1, len): 2}, "$[key <tuple>][1]"),
        ({"a" * 50: len}, f"$.{'a' * 50}"),
        ({"a " * 50: len}, f"$['{'a ' * 18}...]"),
        ({len}, "${<builtin_function_or_method>}"),
        ((0, (len,)), "$[1][0]"),
    ],
)
def test_paths_name_keys_and_positions(value: Any, path: str) -> None:
    with pytest.raises(CodecError) as caught:
        encode(value)
    assert caught.value.detail.split(": ")[0] == path


def test_an_integer_beyond_64_bits_does_not_hide_another_fault() -> None:
    with pytest.raises(CodecError, match=r"^\$\[1\]: is a module"):
        encode([2**70, math])
    with pytest.raises(CodecError, match=r"^\$\[2\]: has a lone surrogate"):
        encode([2**70, "fine", "\udfff"])


@pytest.mark.parametrize("id", [ActorId("A", math), ActorId("\ud800", b"a")])  # type: ignore[arg-type]
def test_an_id_with_wrong_parts_is_refused(id: ActorId) -> None:
    with pytest.raises(CodecError):
        encode(id)


def test_a_zone_without_a_key_is_refused() -> None:
    path = next(Path(base) / "Europe" / "Paris" for base in zoneinfo.TZPATH if (Path(base) / "Europe/Paris").exists())
    with path.open("rb") as file:
        zone = ZoneInfo.from_file(file)
    with pytest.raises(CodecError, match=r"zoneinfo\.ZoneInfo with a key"):
        encode(datetime(2024, 1, 1, tzinfo=zone))


def _extension(code: int, payload: Any) -> bytes:
    return VERSION + msgspec.msgpack.encode(Ext(code, msgspec.msgpack.encode(payload)))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "damaged: it is empty"),
        (b"\x02\x05", "has version 2, this kubeactor reads version 1"),
        (b"\x01", "damaged"),
        (b"\x01\x05\x05", "damaged"),
        (b"\x01\xa1\xff", "damaged"),
        (b"\x01\xdd\xff\xff\xff\xff", "damaged"),
        (b"\x01" + b"\x91" * 100_000, "damaged"),
        (_extension(99, None), "extension 99"),
        (_extension(codec.DATE, 0), "damaged"),
        (_extension(codec.DATETIME, [1, 2]), "damaged"),
        (_extension(codec.DECIMAL, "x"), "damaged"),
        (_extension(codec.PAIRS, [1]), "damaged"),
        (_extension(codec.UUID_, 1), "damaged"),
        (_extension(codec.TIME, [1, 0, 0, 0, 0, "No/Where"]), "install tzdata"),
        (_extension(codec.TIME, [1, 0, 0, 0, 0, "../../etc"]), "can't be read here"),
    ],
)
def test_damaged_or_unknown_bytes_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(CodecError, match=says):
        decode(data)


def test_every_cut_of_a_value_is_refused() -> None:
    data = encode({"a": (1, {2, 3}), (1,): datetime(2024, 1, 1, tzinfo=PARIS), "b": Decimal("1.5")})
    for length in range(len(data)):
        with pytest.raises(CodecError):
            decode(data[:length])
