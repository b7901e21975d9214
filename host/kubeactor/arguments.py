"""The arguments and the result of a method: bytes to checked values and back, by the method's type hints.

A JSON body is read in one pass by a Struct made for the method, whose fields are its parameters. Whatever that does
not take, and methods with `*args` or `**kwargs`, go the long way: each argument is bound and converted by itself, and
the error names it. Between actors a body is the codec's bytes of `[args, kwargs]`.
"""

from __future__ import annotations

import copy
import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any, Final

import msgspec

from kubeactor import codec
from kubeactor.call import CODEC, JSON
from kubeactor.errors import ActorArgumentError, BodyTooLargeError, CodecError
from kubeactor.ids import ActorId
from kubeactor.limits import BODY_BYTES
from kubeactor.plain import NATIVE, SCALARS, check_hint, convert, from_json, json_hint, reason_of, to_plain

__all__ = ["Arguments"]

Bound = tuple[tuple[Any, ...], dict[str, Any]]

_BY_POSITION: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_JSON_SPACE: Final = b" \t\r\n"
_STR: Final = frozenset({str})
_JSON_SCALARS: Final = frozenset({int, str, bool, type(None)})
_JSON_LEAVES: Final = SCALARS.union(NATIVE)
_REST: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)

_astuple: Final = msgspec.structs.astuple
_to_json: Final = msgspec.json.encode


class _Name:
    """A member's name of a JSON object. Equal ones stay apart in a dict, so that a repeated name is seen."""

    __slots__ = ("text",)

    def __init__(self, cls: type, text: str) -> None:
        self.text = text


_members: Final = msgspec.json.Decoder(dict[_Name, msgspec.Raw], dec_hook=_Name)
_items: Final = msgspec.json.Decoder(list[msgspec.Raw])


class _Parameter:
    """One parameter: how its value is read from JSON and checked when it comes from an actor."""

    __slots__ = ("default", "hint", "is_plain", "kind", "name", "read", "scalar")

    def __init__(self, owner: str, parameter: Parameter, hint: Any) -> None:
        self.name = parameter.name
        self.kind = parameter.kind
        self.default = parameter.default
        self.hint = hint
        try:
            self.is_plain = not check_hint(hint)
        except TypeError as error:
            raise TypeError(f"{owner}, parameter {self.name}: {error}") from error
        self.scalar: Any = hint if hint in SCALARS else None
        self.read = msgspec.json.Decoder(json_hint(hint), dec_hook=from_json).decode

    @property
    def required(self) -> bool:
        return self.default is Parameter.empty and self.kind not in _REST

    def from_raw(self, raw: Any) -> Any:
        return self._checked(self.read, raw)

    def from_value(self, value: Any) -> Any:
        if value.__class__ is self.scalar or self.hint is Any:
            return value
        return self._checked(lambda given: convert(given, self.hint), value)

    def _checked(self, read: Callable[[Any], Any], given: Any) -> Any:
        try:
            return read(given)
        except msgspec.ValidationError as error:
            where, what = reason_of(error)
            raise ActorArgumentError(f"{self.name}{where}: {what}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ActorArgumentError(f"{self.name}: {_malformed(error)}") from error

    def plain(self, value: Any) -> Any:
        return value if self.is_plain else to_plain(value)

    def named(self, name: str) -> _Parameter:
        """One member of `**kwargs`, under the name that it was given."""
        one = copy.copy(self)
        one.name = _shown(name)
        return one

    def field(self) -> tuple[Any, ...]:
        """The default of its field in the body's Struct: the very object, as Python gives it."""
        return () if self.required else (msgspec.field(default_factory=lambda: self.default),)


_UNKNOWN: Final = _Parameter("", Parameter("it", Parameter.VAR_KEYWORD), Any)


class Arguments:
    """What a method takes and returns, built once from its signature without `self`.

    Args:
        function: the method as it stands on the class.
        owner: `Account.debit`, for messages.

    Raises:
        TypeError: when a hint can't be resolved or checked; one sentence says what to write.
    """

    __slots__ = (
        "_array",
        "_by_name",
        "_keywords",
        "_object",
        "_owner",
        "_positional",
        "_read_result",
        "_required",
        "_rest",
        "_rest_named",
        "_result",
        "_result_is_plain",
        "_self_name",
    )

    def __init__(self, function: Callable[..., Any], owner: str) -> None:
        self._owner = owner
        hints = _hints(function, owner)
        itself, *found = inspect.signature(function).parameters.values()
        every = [_Parameter(owner, parameter, hints.get(parameter.name, Any)) for parameter in found]
        self._self_name = None if itself.kind is Parameter.POSITIONAL_ONLY else itself.name
        self._positional = [each for each in every if each.kind in _BY_POSITION]
        self._keywords = [each for each in every if each.kind is Parameter.KEYWORD_ONLY]
        self._by_name = {each.name: each for each in every if each.kind not in _REST}
        self._rest = next((each for each in every if each.kind is Parameter.VAR_POSITIONAL), None)
        self._rest_named = next((each for each in every if each.kind is Parameter.VAR_KEYWORD), None)
        self._set_result(hints.get("return", Any))
        self._set_readers()

    def _set_result(self, hint: Any) -> None:
        self._result = None if hint in (typing.NoReturn, typing.Never) else hint
        try:
            self._result_is_plain = not check_hint(self._result)
            self._read_result = msgspec.json.Decoder(json_hint(self._result), dec_hook=from_json).decode
        except TypeError as error:
            raise TypeError(f"{self._owner}, its result: {error}") from error

    def _set_readers(self) -> None:
        """The one-pass readers of JSON, where the signature allows them."""
        self._required = max(1, sum(each.required for each in self._by_name.values()))
        self._object: Callable[[bytes], Any] | None = None
        self._array: Callable[[bytes], Any] | None = None
        if self._rest_named is None:
            self._object = _reader([*self._positional, *self._keywords], array_like=False)
        if self._rest is None and not any(each.required for each in self._keywords):
            self._array = _reader(self._positional, array_like=True)

    @property
    def parameters(self) -> list[_Parameter]:
        """Each with its `name`, `hint` and whether it is `required`; without those of `*args` and `**kwargs`."""
        return [*self._positional, *self._keywords]

    # Arguments -------------------------------------------------------------------------------------------------------

    def decode(self, body: bytes, format: int) -> Bound:
        """The positional and the named arguments of a body, defaults filled in.

        A JSON object gives arguments by name, positional-only ones too; an array by position; an empty body none.

        Raises:
            ActorArgumentError: when they do not fit; the detail names the argument.
            CodecError: when a body of an actor is damaged.
        """
        if format != JSON:
            return self._from_codec(body)
        first = body[:1]
        try:
            # Each name takes a colon, so as many colons as required names prove that no name is repeated.
            if first == b"{" and self._object is not None and body.count(b":") <= self._required:
                values = _astuple(self._object(body))
                return (values, {}) if not self._keywords else self._split(values)
            if first == b"[" and self._array is not None:
                return _astuple(self._array(body)), {}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # the long way says what is wrong
        return self._from_json(body)

    def _split(self, values: tuple[Any, ...]) -> Bound:
        count = len(self._positional)
        return values[:count], {each.name: value for each, value in zip(self._keywords, values[count:], strict=True)}

    def _from_json(self, body: bytes) -> Bound:
        first = body.lstrip(_JSON_SPACE)[:1]
        if body and first not in (b"{", b"["):
            raise ActorArgumentError("the body must be a JSON object (arguments by name) or array (by position)")
        try:
            members = _members.decode(body) if first == b"{" else {}
            items = _items.decode(body) if first == b"[" else []
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ActorArgumentError(f"the body is no JSON: {_malformed(error)}") from error
        named: dict[str, Any] = {}
        for name, raw in members.items():
            if name.text in named:
                raise ActorArgumentError(f"{_shown(name.text)} is given twice")
            named[name.text] = raw
        return self._bind(items, named, _Parameter.from_raw)

    def _from_codec(self, body: bytes) -> Bound:
        pair = codec.decode(body)
        if not (type(pair) in (list, tuple) and len(pair) == 2 and type(pair[1]) is dict):
            raise ActorArgumentError("the body is no pair of positional and named arguments")
        return self._bind(pair[0], pair[1], _Parameter.from_value)

    def _bind(self, given: Sequence[Any], named: dict[str, Any], read: Callable[[_Parameter, Any], Any]) -> Bound:
        """Bind as Python does, each value converted by `read`; uses up `named`."""
        if self._rest_named is None:  # before what is missing, since a name that was misspelt is both
            for name in named:
                if name not in self._by_name:
                    raise self._unknown(name)
        args = [self._argument(each, n, given, named, read) for n, each in enumerate(self._positional)]
        if surplus := given[len(args) :]:
            if (rest := self._rest) is None:
                count = f"{len(args)} argument{'s' * (len(args) != 1)}"
                raise ActorArgumentError(f"{self._owner} takes at most {count} by position, {len(given)} were given")
            args += [read(rest, value) for value in surplus]
        kwargs = {each.name: self._argument(each, 0, (), named, read) for each in self._keywords}
        for name, value in named.items():
            if self._rest_named is None or name == self._self_name:
                raise self._unknown(name)
            kwargs[name] = read(self._rest_named.named(name), value)
        return tuple(args), kwargs

    def _argument(
        self,
        each: _Parameter,
        n: int,
        given: Sequence[Any],
        named: dict[str, Any],
        read: Callable[[_Parameter, Any], Any],
    ) -> Any:
        if n < len(given):
            if each.name in named and each.kind is not Parameter.POSITIONAL_ONLY:
                raise ActorArgumentError(f"{each.name} is given twice")
            return read(each, given[n])
        if each.name in named:
            return read(each, named.pop(each.name))
        if each.required:
            raise ActorArgumentError(f"{each.name} is missing")
        return each.default

    def _unknown(self, name: str) -> ActorArgumentError:
        expected = ", ".join(self._by_name) or "none"
        return ActorArgumentError(f"{_shown(name)} is no argument of {self._owner}, which takes {expected}")

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any], format: int = CODEC) -> bytes:
        """The body of a call. What does not fit the hints is refused by the callee.

        Raises:
            CodecError: when an argument has no form in that format; the detail names the argument and the path.
            BodyTooLargeError: when the body is above 4 MiB.
        """
        body = self._to_json(args, kwargs) if format == JSON else self._to_codec(args, kwargs)
        if len(body) > BODY_BYTES:
            raise BodyTooLargeError(f"the arguments of {self._owner} have {len(body)} bytes, at most {BODY_BYTES}")
        return body

    def _to_json(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """An array, or an object as soon as one argument is named; nothing for none."""
        given = [self._one_to_json(self._by_position(n).name, value) for n, value in enumerate(args)]
        if not kwargs:
            return b"[%b]" % b",".join(given) if given else b""
        if len(given) > len(self._positional):
            raise CodecError(f"{self._owner}: JSON has no form for `*args` together with named arguments")
        members = {each.name: value for each, value in zip(self._positional, given, strict=False)}
        for name, value in kwargs.items():
            if name in members:
                raise CodecError(f"{self._owner}, {_shown(name)}: it is given twice")
            members[name] = self._one_to_json(name, value)
        return b"{%b}" % b",".join(b"%b:%b" % (_to_json(name), value) for name, value in members.items())

    def _one_to_json(self, name: str, value: Any) -> bytes:
        try:
            return _json(value)
        except CodecError as error:
            raise CodecError(f"{self._owner}, {_shown(name)}: {error.detail}") from error

    def _to_codec(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        try:
            given = [self._by_position(n).plain(value) for n, value in enumerate(args)]
            named = {name: self._named(name).plain(value) for name, value in kwargs.items()}
            return codec.encode([given, named])
        except CodecError:
            self._name_culprit(args, kwargs)
            raise

    def _by_position(self, n: int) -> _Parameter:
        return self._positional[n] if n < len(self._positional) else self._rest or _UNKNOWN

    def _named(self, name: str) -> _Parameter:
        return self._by_name.get(name) or self._rest_named or _UNKNOWN

    def _name_culprit(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise for the first argument that the codec refuses by itself, so that the error names it."""
        pairs = [(self._by_position(n), self._by_position(n).name, value) for n, value in enumerate(args)]
        pairs += [(self._named(name), name, value) for name, value in kwargs.items()]
        for parameter, name, value in pairs:
            try:
                codec.encode(parameter.plain(value))
            except CodecError as error:
                raise CodecError(f"{self._owner}, {_shown(name)}: {error.detail}") from error

    # Results ---------------------------------------------------------------------------------------------------------

    def encode_result(self, value: Any, format: int) -> bytes:
        """The bytes of a result, in the format of the call.

        Between actors a record (dataclass, Struct, Enum, model) needs a return hint that tells its type.

        Raises:
            CodecError: when it has no form in that format; NaN and infinity have none in JSON.
            BodyTooLargeError: when it is above 4 MiB.
        """
        try:
            if format == JSON:
                body = _json(value)
            else:
                body = codec.encode(value if self._result_is_plain else to_plain(value))
        except CodecError as error:
            raise CodecError(f"the result of {self._owner}: {error.detail}") from error
        if len(body) > BODY_BYTES:
            size = f"{len(body)} bytes, at most {BODY_BYTES}"
            raise BodyTooLargeError(f"the result of {self._owner} has {size}", started="yes")
        return body

    def decode_result(self, body: bytes, format: int = CODEC) -> Any:
        """The result that a method returned, its records made again by the return hint.

        Raises:
            CodecError: when the bytes are damaged, or do not fit the hint.
        """
        try:
            if format == JSON:
                return self._read_result(body)
            value = codec.decode(body)
            return value if self._result_is_plain else convert(value, self._result)
        except msgspec.ValidationError as error:
            raise CodecError(f"the result of {self._owner} does not fit its return hint: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CodecError(f"the result of {self._owner} is no JSON: {_malformed(error)}") from error


def _hints(function: Callable[..., Any], owner: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{owner}: the type {error.name} can't be resolved; move its import out of `if TYPE_CHECKING`"
        ) from error
    except (AttributeError, SyntaxError, TypeError) as error:
        raise TypeError(f"{owner}: a type hint can't be resolved: {error}") from error


def _reader(parameters: list[_Parameter], *, array_like: bool) -> Callable[[bytes], Any]:
    """A one-pass reader of all parameters. Its fields have names of our own, so that no parameter's name can clash."""
    fields = [(f"f{n}", json_hint(each.hint), *each.field()) for n, each in enumerate(parameters)]
    struct = msgspec.defstruct(
        "Body",
        fields,
        array_like=array_like,
        kw_only=True,
        forbid_unknown_fields=True,
        gc=False,
        rename={f"f{n}": each.name for n, each in enumerate(parameters)},
    )
    return msgspec.json.Decoder(struct, dec_hook=from_json).decode


def _malformed(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _shown(name: str) -> str:
    """A name that came from outside, for a message."""
    return name if name.isidentifier() and len(name) <= 100 else ascii(name[:100])


def _json(value: Any) -> bytes:
    kind = type(value)
    try:
        if kind in _JSON_SCALARS:
            return _to_json(value)
        if kind is dict and _STR.issuperset(map(type, value)) and _JSON_SCALARS.issuperset(map(type, value.values())):
            return _to_json(value)
        return _to_json(_json_ready(to_plain(value), "$", 0))
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise CodecError(f"$: {error}") from error


def _json_ready(value: Any, path: str, depth: int) -> Any:
    """The value with ids as text, once it is sure that JSON can hold it: msgspec writes NaN and infinity as null."""
    kind = type(value)
    if kind is float and not math.isfinite(value):
        raise CodecError(f"{path}: {value} has no form in JSON")
    if kind in _JSON_LEAVES:
        return value
    if kind is ActorId:
        return str(value)
    if depth > codec.DEPTH:
        raise CodecError(f"{path[:200]}...: is nested deeper than {codec.DEPTH} levels")
    if kind is dict:
        return {
            _json_key(key, path): _json_ready(item, f"{path}[{key!r:.40}]", depth + 1) for key, item in value.items()
        }
    if kind in (list, tuple, set, frozenset):
        return [_json_ready(item, f"{path}[{n}]", depth + 1) for n, item in enumerate(value)]
    raise CodecError(f"{path}: {codec.why_not(value)}")


def _json_key(key: Any, path: str) -> Any:
    return _json_ready(key, path, 0) if type(key) in (float, ActorId) else key
