from __future__ import annotations

import dataclasses
import enum
import math
import re
import subprocess
import sys
import typing
import uuid
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import msgspec
import pydantic
import pytest
from msgspec import Meta

from kubeactor import codec
from kubeactor.arguments import Arguments
from kubeactor.call import CODEC, JSON
from kubeactor.errors import ActorArgumentError, BodyTooLargeError, CodecError
from kubeactor.ids import ActorId
from kubeactor.limits import BODY_BYTES

if TYPE_CHECKING:
    from decimal import Decimal as Hidden

Amount = Annotated[int, Meta(gt=0, le=2**63 - 1)]


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Line:
    item: str
    tags: set[str] = dataclasses.field(default_factory=set)


class Card(msgspec.Struct):
    number: str


class Person(pydantic.BaseModel):
    name: str
    age: Annotated[int, pydantic.Field(ge=0)]

    @pydantic.model_validator(mode="after")
    def check(self) -> Person:
        if self.name == "nobody":
            raise ValueError("nobody is nobody")
        return self


class Strange:
    """Looks like a model, and refuses everything in words of its own."""

    @classmethod
    def model_validate(cls, value: object) -> Strange:
        raise ValueError("too strange")


DEFAULT_LINES = [Line("tea")]


class Methods:
    async def debit(self, amount: Amount) -> int: ...
    async def none(self) -> None: ...
    async def pay(self, to: str, amount: int = 5, *, note: str = "", when: datetime | None = None) -> None: ...
    async def strict(self, a: int, *, b: int) -> None: ...
    async def positional(self, a: int, /, b: int = 2) -> None: ...
    async def rest(self, first: str, *more: int) -> None: ...
    async def named(self, first: int = 1, **more: Line) -> None: ...
    async def named_itself(self, /, **more: int) -> None: ...
    async def open(self, anything, other=None): ...  # type: ignore[no-untyped-def]
    async def defaults(self, lines: list[Line] = DEFAULT_LINES) -> None: ...
    async def clash(self, mro: int, __struct_fields__: int, __dict__: int, rename: int, cls: int = 0) -> None: ...
    async def order(self, line: Line, card: Card, color: Color, person: Person) -> dict[str, Line]: ...
    async def many(self, lines: list[Line]) -> Line: ...
    async def id(self, to: ActorId, others: list[ActorId] | None = None) -> ActorId: ...
    async def strange(self, it: Strange) -> None: ...
    async def kinds(
        self, at: datetime, on: date, every: timedelta, raw: bytes, price: Decimal, key: uuid.UUID
    ) -> Any: ...
    async def ends(self) -> NoReturn: ...
    async def anything(self, it: object, mode: Literal["a", 1] = "a") -> Card | None: ...
    async def annotated(self, to: Annotated[ActorId, "whom"], many: tuple[ActorId, ...] = ()) -> None: ...


def of(name: str) -> Arguments:
    return Arguments(getattr(Methods, name), f"Methods.{name}")


def refusal(name: str, body: bytes, format: int = JSON) -> str:
    with pytest.raises(ActorArgumentError) as caught:
        of(name).decode(body, format)
    assert caught.value.started == "no"
    return caught.value.detail


ID = ActorId("ACCOUNT", b"alice")
T0 = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "body", "bound"),
    [
        ("debit", b'{"amount": 30}', ((30,), {})),
        ("debit", b' \n{"amount": 30}', ((30,), {})),
        ("debit", rb'{"\u0061mount": 30}', ((30,), {})),
        ("debit", b"[30]", ((30,), {})),
        ("none", b"", ((), {})),
        ("none", b"{}", ((), {})),
        ("none", b"[]", ((), {})),
        ("pay", b'{"to": "a"}', (("a", 5), {"note": "", "when": None})),
        ("pay", b'{"note": ":::", "to": "a:b"}', (("a:b", 5), {"note": ":::", "when": None})),
        ("pay", b'["a", 6]', (("a", 6), {})),
        ("strict", b'{"b": 2, "a": 1}', ((1,), {"b": 2})),
        ("positional", b'{"a": 1}', ((1, 2), {})),
        ("rest", b'["a", 1, 2]', (("a", 1, 2), {})),
        ("rest", b'{"first": "a"}', (("a",), {})),
        ("named", b'{"x": {"item": "tea"}}', ((1,), {"x": Line("tea")})),
        ("named", b"[7]", ((7,), {})),
        ("named_itself", b'{"self": 1}', ((), {"self": 1})),
        ("open", b'{"anything": {"a": [1, null]}}', (({"a": [1, None]}, None), {})),
        ("defaults", b"", ((DEFAULT_LINES,), {})),
        ("clash", b'{"mro":1,"__struct_fields__":2,"__dict__":3,"rename":4}', ((1, 2, 3, 4, 0), {})),
        ("id", b'["ACCOUNT/alice", ["ACCOUNT/alice"]]', ((ID, [ID]), {})),
        ("annotated", b'{"to": "ACCOUNT/alice", "many": ["ACCOUNT/alice"]}', ((ID, (ID,)), {})),
        (
            "order",
            b'{"line":{"item":"tea","tags":["hot"]},"card":{"number":"1"},"color":"red","person":{"name":"Al","age":1}}',
            ((Line("tea", {"hot"}), Card("1"), Color.RED, Person(name="Al", age=1)), {}),
        ),
        (
            "kinds",
            b'["2024-01-01T00:00:00Z","2024-01-01","PT5M","YWI=","1.10","00000000-0000-0000-0000-000000000001"]',
            ((T0, date(2024, 1, 1), timedelta(minutes=5), b"ab", Decimal("1.10"), uuid.UUID(int=1)), {}),
        ),
        ("anything", b'[{"a": 1}, 1]', (({"a": 1}, 1), {})),
    ],
)
def test_a_json_body_becomes_checked_arguments(name: str, body: bytes, bound: Any) -> None:
    assert of(name).decode(body, JSON) == bound


def test_a_default_is_the_very_object_of_the_signature() -> None:
    for body in (b"", b"{}", b"[]"):
        assert of("defaults").decode(body, JSON)[0][0] is DEFAULT_LINES


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("debit", b"", "amount is missing"),
        ("debit", b"{}", "amount is missing"),
        ("debit", b"[]", "amount is missing"),
        ("strict", b"[1]", "b is missing"),
        ("debit", b'{"amount": 0}', "amount: Expected `int` >= 1"),
        ("debit", b"[-5]", "amount: Expected `int` >= 1"),
        ("debit", b'{"amount": 1.5}', "amount: Expected `int`, got `float`"),
        ("debit", b'{"amount": "30"}', "amount: Expected `int`, got `str`"),
        ("debit", b'{"amount": true}', "amount: Expected `int`, got `bool`"),
        ("debit", b'{"amount": null}', "amount: Expected `int`, got `null`"),
        ("debit", b'{"amount": 9223372036854775808}', "amount: Expected `int` <= 9223372036854775807"),
        ("debit", b'{"amount": 1e400}', "amount: Number out of range"),
        ("debit", b'{"amount": 1, "amount": 2}', "amount is given twice"),
        ("debit", rb'{"amount": 1, "\u0061mount": 2}', "amount is given twice"),
        ("pay", b'{"to": "a", "note": "", "note": "b"}', "note is given twice"),
        ("debit", b'{"amuont": 1, "amount": 2}', "amuont is no argument of Methods.debit, which takes amount"),
        ("none", b'{"a": 1}', "a is no argument of Methods.none, which takes none"),
        ("debit", b'{"__class__": 1, "amount": 2}', "__class__ is no argument"),
        ("debit", b'{"a b": 1, "amount": 2}', "'a b' is no argument"),
        ("named", b'{"self": {"item": "a"}}', "self is no argument"),
        ("debit", b"[1, 2]", "takes at most 1 argument by position, 2 were given"),
        ("none", b"[1]", "takes at most 0 arguments by position, 1 were given"),
        ("rest", b'["a", 1, "b"]', "more: Expected `int`, got `str`"),
        ("named", b'{"x": {"item": 5}}', "x.item: Expected `str`, got `int`"),
        ("many", b'{"lines": [{"item": "a"}, {"item": 5}]}', "lines[1].item: Expected `str`, got `int`"),
        ("many", b'{"lines": [{}]}', "lines[0]: Object missing required field `item`"),
        ("id", b'["alice"]', "to: not an actor id: 'alice'; write BINDING/name"),
        ("id", b"[5]", "to: Expected an actor id"),
        ("strange", b"[5]", "it: too strange"),
        ("anything", b'[1, "b"]', "mode: Invalid enum value 'b'"),
        ("debit", b"30", "must be a JSON object"),
        ("debit", b'"amount"', "must be a JSON object"),
        ("debit", b"null", "must be a JSON object"),
        ("debit", b"  ", "must be a JSON object"),
        ("debit", b"\xef\xbb\xbf{}", "must be a JSON object"),
        ("debit", b'{"amount": 1', "the body is no JSON: Input data was truncated"),
        ("debit", b'{"amount": 1}{"amount": 1}', "the body is no JSON: JSON is malformed: trailing characters"),
        ("debit", b"[1] x", "the body is no JSON"),
        ("debit", b"[1,,2]", "the body is no JSON"),
        ("debit", b'{"\xff": 1}', "the body is no JSON: it is not UTF-8"),
        ("open", b'{"anything": "\xff"}', "anything: it is not UTF-8"),
        ("open", rb'{"anything": "\ud800"}', "the body is no JSON"),
        ("debit", b'{"amount": ' + b"[" * 100_000, "it is nested too deep"),
        ("open", b"[" * 100_000, "it is nested too deep"),
        ("open", b"[" * 100_000 + b"]" * 100_000, "it is nested too deep"),
    ],
)
def test_a_json_body_that_does_not_fit_is_refused_by_the_arguments_name(name: str, body: bytes, says: str) -> None:
    assert says in refusal(name, body)


def test_what_pydantic_finds_is_told_in_one_line() -> None:
    order = b'{"line":{"item":"a"},"card":{"number":"1"},"color":"red","person":%s}'
    detail = refusal("order", order % b'{"age":-1}')
    assert detail == "person: name: Field required; age: Input should be greater than or equal to 0"
    assert refusal("order", order % b'{"name":"nobody","age":1}') == "person: Value error, nobody is nobody"


def test_pydantic_is_not_imported_for_those_who_do_not_use_it() -> None:
    program = "import sys, kubeactor.arguments, kubeactor.key; print('pydantic' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "bound"),
    [
        ("debit", (30,), {}, ((30,), {})),
        ("debit", (), {"amount": 30}, ((30,), {})),
        ("pay", ("a",), {"when": T0}, (("a", 5), {"note": "", "when": T0})),
        ("rest", ("a", 1, 2), {}, (("a", 1, 2), {})),
        ("named", (), {"x": Line("a", {"b"})}, ((1,), {"x": Line("a", {"b"})})),
        ("open", ({(1, 2): {3}}, 2**70), {}, (({(1, 2): {3}}, 2**70), {})),
        ("id", (ID, [ID]), {}, ((ID, [ID]), {})),
        (
            "order",
            (Line("a", {"b"}), Card("1")),
            {"color": Color.RED, "person": Person(name="Al", age=1)},
            ((Line("a", {"b"}), Card("1"), Color.RED, Person(name="Al", age=1)), {}),
        ),
        ("anything", (math.inf,), {}, ((math.inf, "a"), {})),
        ("anything", ((1, 2),), {}, (((1, 2), "a"), {})),
    ],
)
def test_arguments_of_an_actor_arrive_as_they_are(name: str, args: Any, kwargs: Any, bound: Any) -> None:
    arguments = of(name)
    assert arguments.decode(arguments.encode(args, kwargs), CODEC) == bound


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "says"),
    [
        ("debit", (), {}, "amount is missing"),
        ("debit", (0,), {}, "amount: Expected `int` >= 1"),
        ("debit", ("30",), {}, "amount: Expected `int`, got `str`"),
        ("debit", (1, 2), {}, "takes at most 1 argument by position, 2 were given"),
        ("debit", (1,), {"amount": 2}, "amount is given twice"),
        ("debit", (1,), {"other": 2}, "other is no argument"),
        ("positional", (1,), {"a": 2}, "a is no argument"),
        ("many", ([Line(5)],), {}, "lines[0].item: Expected `str`, got `int`"),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_an_actor_are_checked_like_those_from_outside(
    name: str, args: Any, kwargs: Any, says: str
) -> None:
    assert says in refusal(name, of(name).encode(args, kwargs), CODEC)


@pytest.mark.parametrize("value", [5, [1], [[], {}, {}], [[], []], {"a": 1}])
def test_a_codec_body_of_another_shape_is_refused(value: Any) -> None:
    assert "no pair" in refusal("debit", codec.encode(value), CODEC)


def test_a_codec_body_may_be_a_tuple() -> None:
    assert of("debit").decode(codec.encode(((30,), {})), CODEC) == ((30,), {})


def test_a_damaged_codec_body_is_a_codec_error() -> None:
    with pytest.raises(CodecError):
        of("debit").decode(b"\x01\x92", CODEC)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "says"),
    [
        ("open", ([len],), {}, "Methods.open, anything: $[0]: is a builtin_function_or_method"),
        ("open", (1,), {"other": Line("a")}, "Methods.open, other: $: is a Line"),
        ("open", (1, 2, len), {}, "Methods.open, it: $: is a builtin_function_or_method"),
        ("open", (1,), {"what": len}, "Methods.open, what: $: is a builtin_function_or_method"),
        ("rest", ("a", 1, len), {}, "Methods.rest, more: $: is"),
    ],
)
def test_an_argument_without_a_form_in_bytes_is_named(name: str, args: Any, kwargs: Any, says: str) -> None:
    with pytest.raises(CodecError) as caught:
        of(name).encode(args, kwargs)
    assert caught.value.detail.startswith(says)


def test_arguments_that_are_only_together_too_deep_are_refused() -> None:
    value: Any = 5
    for _ in range(codec.DEPTH - 1):
        value = [value]
    with pytest.raises(CodecError, match="nested deeper"):
        of("open").encode((value,), {})


def test_arguments_and_results_above_4_mib_are_refused() -> None:
    big = b"x" * BODY_BYTES
    with pytest.raises(BodyTooLargeError, match=r"arguments of Methods\.open"):
        of("open").encode((big,), {})
    for kind in (JSON, CODEC):
        with pytest.raises(BodyTooLargeError, match=r"result of Methods\.open") as caught:
            of("open").encode_result(big, kind)
        assert caught.value.started == "yes"


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (None, b"null"),
        (70, b"70"),
        (2**70, b"1180591620717411303424"),
        (1.5, b"1.5"),
        ({"ok": True, "balance": 70}, b'{"ok":true,"balance":70}'),
        ({"a": None}, b'{"a":null}'),
        ([None, (1, {2}), frozenset([3])], b"[null,[1,[2]],[3]]"),
        (Line("tea", {"hot"}), b'{"item":"tea","tags":["hot"]}'),
        ([Card("1"), Color.RED, Person(name="Al", age=1)], b'[{"number":"1"},"red",{"name":"Al","age":1}]'),
        ({"at": T0, "raw": b"ab"}, b'{"at":"2024-01-01T00:00:00Z","raw":"YWI="}'),
        ([timedelta(1), Decimal("1.10"), date(2024, 1, 1)], b'["P1D","1.10","2024-01-01"]'),
        ({ID: [ID], 1: 2, 2.5: uuid.UUID(int=1)}, b'{"ACCOUNT/alice":["ACCOUNT/alice"],"1":2,"2.5":"%s"}'),
    ],
)
def test_a_result_becomes_json_by_msgspecs_conventions(value: Any, body: bytes) -> None:
    expected = body.replace(b"%s", str(uuid.UUID(int=1)).encode())
    assert of("open").encode_result(value, JSON) == expected


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (math.nan, "$: nan has no form in JSON"),
        ({"a": [1, math.inf]}, "$['a'][1]: inf has no form in JSON"),
        ({"a": {"b": -math.inf}}, "$['a']['b']: -inf has no form in JSON"),
        ({math.nan: 1}, "$: nan has no form in JSON"),
        (Line(math.nan), "$['item']: nan has no form in JSON"),  # type: ignore[arg-type]
        ([len], "$[0]: is a builtin_function_or_method"),
        ({"a": OrderedDict()}, "$['a']: is a OrderedDict, a subclass of dict"),
        ({(1, 2): 3}, "$: Only dicts with str-like or number-like keys are supported"),
        ("\ud800", "$: 'utf-8' codec can't encode"),
        pytest.param(2**20_000, "$: Exceeds the limit", id="digits"),
    ],
)
def test_a_result_without_a_form_in_json_is_refused(value: Any, says: str) -> None:
    with pytest.raises(CodecError) as caught:
        of("open").encode_result(value, JSON)
    assert caught.value.detail.startswith(f"the result of Methods.open: {says}")


def test_a_result_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    for kind in (JSON, CODEC):
        with pytest.raises(CodecError, match=r"contains itself|nested deeper"):
            of("open").encode_result(value, kind)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("debit", 70),
        ("open", {(1,): {2}}),
        ("order", {"a": Line("tea", {"hot"})}),
        ("many", Line("tea")),
        ("id", ID),
        ("anything", Card("1")),
        ("anything", None),
        ("ends", None),
    ],
)
def test_a_result_between_actors_comes_back_as_it_was(name: str, value: Any) -> None:
    arguments = of(name)
    back = arguments.decode_result(arguments.encode_result(value, CODEC))
    assert back == value
    assert type(back) is type(value)


def test_a_record_without_a_return_hint_is_refused_between_actors() -> None:
    with pytest.raises(CodecError, match=r"result of Methods\.open: \$: is a Line"):
        of("open").encode_result(Line("tea"), CODEC)


def test_a_result_that_is_not_of_its_record_is_a_codec_error() -> None:
    with pytest.raises(CodecError, match=r"result of Methods\.many does not fit its return hint"):
        of("many").decode_result(codec.encode({"item": 5}))


class Plain:
    pass


class Broken:
    async def hidden(self, price: Hidden) -> None: ...
    async def bound(self, amount: Annotated[int, Meta(lt=2**63)]) -> None: ...
    async def plain(self, it: Plain) -> None: ...
    async def result(self) -> Plain: ...
    async def attribute(self, it: typing.Nothing) -> None: ...  # type: ignore[name-defined]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hidden", "Broken.hidden: the type Hidden can't be resolved; move its import out of `if TYPE_CHECKING`"),
        ("bound", "Broken.bound, parameter amount: the type Annotated[int, msgspec.Meta(lt=9223372036854775808)]"),
        (
            "plain",
            "Broken.plain, parameter it: Plain can't be checked; use a dataclass, a msgspec.Struct or a pydantic",
        ),
        ("result", "Broken.result, its result: Plain can't be checked"),
        ("attribute", "Broken.attribute: a type hint can't be resolved: "),
    ],
)
def test_a_signature_that_can_not_be_checked_is_a_type_error_at_load(name: str, says: str) -> None:
    with pytest.raises(TypeError, match=re.escape(says)):
        Arguments(getattr(Broken, name), f"Broken.{name}")
