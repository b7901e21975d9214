from __future__ import annotations

import dataclasses
import enum
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, NewType, Optional, TypedDict

import msgspec
import pydantic
import pytest
from msgspec import Meta

from kubeactor import codec
from kubeactor.errors import CodecError, StorageLimitError, StorageTypeError
from kubeactor.ids import ActorId
from kubeactor.key import Key
from kubeactor.limits import KEY_BYTES


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Line:
    item: str
    count: int = 1
    tags: set[str] = dataclasses.field(default_factory=set)
    made: datetime | None = None
    extra: Any = None


@dataclasses.dataclass
class GiftLine(Line):
    greeting: str = ""


@dataclasses.dataclass(frozen=True)
class Place:
    row: int


class Cart(msgspec.Struct, rename="camel"):
    owner_id: ActorId
    lines: list[Line]
    color: Color = Color.RED
    note: str | msgspec.UnsetType = msgspec.UNSET


class Card(msgspec.Struct, tag="card"):
    number: str


class Cash(msgspec.Struct, tag="cash"):
    amount: int


class Pair(msgspec.Struct, array_like=True):
    left: int
    right: int


class TaggedPair(msgspec.Struct, array_like=True, tag=7):
    left: int


class Node(msgspec.Struct):
    value: int
    next: Node | None = None


class Point(NamedTuple):
    x: int
    y: int


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(alias="fullName")
    born: datetime


class Options(TypedDict):
    fast: bool


NOW = datetime(2024, 1, 1, tzinfo=UTC)
CART = Cart(ActorId("USER", b"al"), [Line("tea", 2, {"hot"}, NOW, (1, {2}))], Color.BLUE)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, 2**70),
        (str, "a"),
        (float, 1.5),
        (bool, True),
        (bytes, b"a"),
        (timedelta, timedelta(minutes=5)),
        (datetime, NOW),
        (Decimal, Decimal("1.10")),
        (uuid.UUID, uuid.UUID(int=5)),
        (ActorId, ActorId("ACCOUNT", b"alice")),
        (list, [1, (2,)]),
        (dict[str, Any], {"a": {1}}),
        (set[int], {1, 2}),
        (tuple[int, str], (1, "a")),
        (dict[tuple[int, int], str], {(1, 2): "a"}),
        (Annotated[int, Meta(ge=0)], 5),
        (int | str, "a"),
        (Any, [None]),
        (Color, Color.BLUE),
        (Level, Level.LOW),
        (Line, Line("tea", extra=[(1,)])),
        (Cart, CART),
        (Card | Cash, Cash(5)),
        (Pair, Pair(1, 2)),
        (list[TaggedPair], [TaggedPair(1)]),
        (Node, Node(1, Node(2))),
        (Point, Point(1, 2)),
        (Person, Person(fullName="Al", born=NOW)),
        (dict[Color, list[Line]], {Color.RED: [Line("tea")]}),
        (Sequence[Color], [Color.RED]),
        (set[Color], {Color.RED}),
        (tuple[Line, ...], (Line("a"),)),
        (Options, {"fast": True}),
        (NewType("Cents", int), 5),
    ],
)
def test_a_value_of_the_keys_type_comes_back_as_that_type(hint: Any, value: Any) -> None:
    key: Key[Any] = Key("k", hint)
    back = key.decode(key.encode(value))
    assert back == value
    assert type(back) is type(value)


def test_without_a_stored_value_a_key_gives_its_default_or_none() -> None:
    assert Key("balance", int, 7).decode(None) == 7
    assert Key("every", timedelta).decode(None) is None
    assert Key("color", Color, Color.RED).decode(None) is Color.RED


def test_a_default_is_copied_at_each_use() -> None:
    key = Key("lines", list[Line], [Line("tea")])
    key.decode(None).append(Line("milk"))
    key.decode(None)[0].count = 5
    assert key.decode(None) == [Line("tea")]


def test_none_may_be_put_where_get_may_give_it() -> None:
    every = Key("every", timedelta)
    assert every.decode(every.encode(None)) is None
    with pytest.raises(StorageTypeError):
        Key("balance", int, 0).encode(None)  # type: ignore[arg-type]


def test_an_int_is_a_float_as_for_the_type_checker() -> None:
    rate = Key("rate", float, 0.0)
    back = rate.decode(rate.encode(1))
    assert (back, type(back)) == (1.0, float)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, "30"),
        (int, 1.0),
        (int, None),
        (bool, 1),
        (float, "1"),
        (str, b"a"),
        (list[int], ["a"]),
        (list[int], (1,)),
        (dict[str, int], {1: 1}),
        (Annotated[int, Meta(ge=0)], -1),
        (Color, "red"),
        (Line, {"item": "tea"}),
        (Line, GiftLine("tea")),
        (Cart, Line("tea")),
        (Pair, (1, 2)),
        (Point, (1, 2)),
        (Line, Line(5)),  # type: ignore[arg-type]
        (Options, {"fast": 1}),
        (Cart, Cart(ActorId("USER", b"al"), [Line("tea", "two")])),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_value_is_refused_at_put_and_the_error_names_key_and_types(hint: Any, value: Any) -> None:
    key: Key[Any] = Key("the key", hint, _sample(hint))
    with pytest.raises(StorageTypeError) as caught:
        key.encode(value)
    detail = caught.value.detail
    assert detail.startswith(f"'the key': {type(value).__name__} was put, its Key wants ")
    assert getattr(hint, "__name__", str(hint)).split("[")[0] in detail


def _sample(hint: Any) -> Any:
    samples: dict[Any, Any] = {Line: Line("a"), Cart: CART, Pair: Pair(1, 2), Point: Point(1, 2), Color: Color.RED}
    samples |= {Options: {"fast": True}, Annotated[int, Meta(ge=0)]: 0}
    return samples[hint] if hint in samples else hint()


def test_a_stored_value_of_another_type_is_refused_at_get() -> None:
    with pytest.raises(StorageTypeError) as caught:
        Key("balance", int, 0).decode(codec.encode("x"))
    assert caught.value.detail == "'balance': str is stored, its Key wants int ($: Expected `int`, got `str`)"
    with pytest.raises(StorageTypeError, match=r"\$\.lines\[\.\.\.\]\.count|\$\.lines\[0\]\.count"):
        Key("cart", Cart).decode(codec.encode({"ownerId": ("USER", b"al"), "lines": [{"item": "a", "count": "b"}]}))


def test_fields_may_be_added_with_defaults_and_unknown_ones_are_ignored() -> None:
    @dataclasses.dataclass
    class Old:
        item: str
        gone: int = 0

    old, new = Key("line", Old), Key("line", Line)
    assert new.decode(old.encode(Old("tea", 5))) == Line("tea")


def test_a_record_in_a_key_without_records_is_refused_with_the_key_to_write() -> None:
    with pytest.raises(CodecError, match=r'\$\.a: is a Line.*Key\("name", Line\)'):
        Key("k", dict[str, Any]).encode({"a": Line("tea")})


def test_a_record_that_can_not_be_hashed_as_plain_data_is_refused() -> None:
    with pytest.raises(CodecError, match="a set holds a record whose plain data can't be hashed"):
        Key("k", set[Place]).encode({Place(1)})
    with pytest.raises(CodecError, match="a dict holds a record"):
        Key("k", dict[Place, int]).encode({Place(1): 1})


def test_a_record_that_contains_itself_is_refused() -> None:
    node = Node(1)
    node.next = node
    with pytest.raises(CodecError, match="nested deeper"):
        Key("k", Node).encode(node)


def test_other_objects_inside_a_record_are_refused_with_their_path() -> None:
    with pytest.raises(CodecError, match=r"^\$\.extra: is a builtin_function_or_method"):
        Key("k", Line).encode(Line("tea", extra=len))


@pytest.mark.parametrize("hint", [int | None, Optional[int], Annotated[int | None, Meta(ge=0)], None, type(None)])  # noqa: UP045
def test_a_union_with_none_is_refused_at_construction(hint: Any) -> None:
    with pytest.raises(TypeError, match="leave None and the default out"):
        Key("x", hint)


def test_a_default_of_none_or_of_another_type_is_refused_at_construction() -> None:
    with pytest.raises(TypeError, match="leave the default out"):
        Key("x", int, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the default of Key"):
        Key("x", int, "0")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the default of Key"):
        Key("x", list, [len])


class Mixed(enum.Enum):
    A = (1, 2)


@dataclasses.dataclass
class Dangling:
    x: Nowhere  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("hint", "says"),
    [
        (Annotated[int, Meta(lt=2**63)], "don't fit in an int64 are currently not supported"),
        (Mixed, "Enums must contain either all str or all int values"),
        (Dangling, "Nowhere can't be resolved; move its import out of `if TYPE_CHECKING`"),
        (object().__class__.__class__, "type can't be checked; use a dataclass"),
        (list[Key], "Key can't be checked"),
        (Line | Cart, "can't be checked"),
    ],
)
def test_a_type_that_can_not_be_checked_is_refused_at_construction_in_one_sentence(hint: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says) as caught:
        Key("x", hint)
    assert str(caught.value).startswith("Key('x', ...): ")
    assert "open an issue" not in str(caught.value)


def test_the_name_is_text_of_at_most_2048_bytes() -> None:
    assert Key("é" * (KEY_BYTES // 2), int).raw == ("é" * (KEY_BYTES // 2)).encode()
    with pytest.raises(StorageLimitError, match="2048 bytes of UTF-8"):
        Key("é" * (KEY_BYTES // 2) + "x", int)
    with pytest.raises(TypeError, match="lone surrogates"):
        Key("\ud800", int)
    with pytest.raises(TypeError, match="is text, not int"):
        Key(5, int)  # type: ignore[call-overload]


def test_a_key_shows_its_name_and_type() -> None:
    assert repr(Key("a", int, 0)) == "Key('a', int)"
    assert repr(Key("b", dict[str, Any])) == "Key('b', dict[str, Any])"
