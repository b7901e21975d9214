"""Typed keys of storage: the type is told once, beside the name, and checked at every put and get."""

from __future__ import annotations

import copy
import types
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Final, Generic, TypeVar, Union, cast, get_args, get_origin, is_typeddict, overload
from uuid import UUID

import msgspec

from kubeactor import codec
from kubeactor.errors import CodecError, StorageLimitError, StorageTypeError
from kubeactor.ids import ActorId
from kubeactor.limits import KEY_BYTES
from kubeactor.plain import check_hint, convert, hint_name, is_record, reason_of, to_plain

__all__ = ["Key"]

T = TypeVar("T")
D = TypeVar("D")

_MISSING: Final[Any] = object()
_SCALARS: Final = frozenset({int, str, float, bool, bytes})
_IMMUTABLE: Final = _SCALARS | {datetime, date, time, timedelta, Decimal, UUID, ActorId, type(None)}


class Key(Generic[T]):
    """A key of storage whose value has a type.

    >>> BALANCE = Key("balance", int, 0)      # get gives an int, 0 when there is none
    >>> EVERY = Key("every", timedelta)       # get gives a timedelta or None

    A dataclass, msgspec.Struct, Enum or pydantic model, also inside containers, is stored as plain data and read by
    its type: fields with defaults may be added, unknown ones are ignored, the class may be renamed or moved. Inside
    such a class a field hinted as Any is read back as plain data.

    Attributes:
        name: the key; raw: its UTF-8 bytes, at most 2,048; type: of the value.

    Raises:
        StorageLimitError: when the name is too long.
        TypeError: when the name is no text, the type is a union with None, or the default is not of the type.
    """

    __slots__ = ("_class", "_default", "_fresh", "_plain", "_scalar", "name", "raw", "type")

    @overload
    def __init__(self: Key[D | None], name: str, type: type[D], /) -> None: ...
    @overload
    def __init__(self, name: str, type: type[T], /, default: T) -> None: ...
    def __init__(self, name: str, type: Any, /, default: Any = _MISSING) -> None:
        self.name = name
        self.raw = _raw(name)
        self.type = type
        self._plain = _checked(name, type)
        self._class = _class_of(type)
        self._scalar: Any = type if type in _SCALARS else None
        self._default: Any = None if default is _MISSING else self._checked_default(default)
        self._fresh = not (isinstance(self._default, Enum) or self._default.__class__ in _IMMUTABLE)

    def __repr__(self) -> str:
        return f"Key({self.name!r}, {hint_name(self.type)})"

    def encode(self, value: T) -> bytes:
        """The bytes to store.

        Raises:
            StorageTypeError: when the value is not of the key's type.
            CodecError: when a part of it has no stored form.
        """
        if value.__class__ is self._scalar:
            return codec.encode(value)
        if value is None and self._default is None:
            return codec.encode(None)
        self._check_class(value)
        plain = to_plain(value) if self._plain else value
        data = codec.encode(plain)
        self._typed(plain, value.__class__, "was put")
        return data

    def decode(self, data: bytes | None) -> T:
        """The value of stored bytes; the default, or None, when there are none.

        Raises:
            StorageTypeError: when what is stored is not of the key's type.
            CodecError: when the bytes can't be read.
        """
        if data is None:
            return cast("T", copy.deepcopy(self._default) if self._fresh else self._default)
        value = codec.decode(data)
        if value.__class__ is self._scalar or (value is None and self._default is None):
            return cast("T", value)
        return cast("T", self._typed(value, value.__class__, "is stored"))

    def _typed(self, value: Any, kind: Any, done: str) -> Any:
        try:
            return convert(value, self.type)
        except msgspec.ValidationError as error:
            where, what = reason_of(error)
            raise StorageTypeError(
                f"{self.name!r}: {kind.__name__} {done}, its Key wants {hint_name(self.type)} (${where}: {what})"
            ) from error

    def _check_class(self, value: object) -> None:
        """Refuse what merely has the fields of the class; of records a subclass too, whose fields would be lost."""
        if isinstance(value, self._class) and (type(value) is self._class or not is_record(self._class)):
            return
        if self._class is not float or type(value) is not int:
            raise StorageTypeError(
                f"{self.name!r}: {type(value).__name__} was put, its Key wants {hint_name(self.type)}"
            )

    def _checked_default(self, default: T) -> T:
        if default is None:
            raise TypeError(f"Key({self.name!r}, ...): leave the default out instead of writing None")
        try:
            self.encode(default)
        except (StorageTypeError, CodecError) as error:
            raise TypeError(
                f"the default of Key({self.name!r}, {hint_name(self.type)}) does not fit: {error}"
            ) from error
        return default


def _raw(name: str) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"a key's name is text, not {type(name).__name__}")
    try:
        raw = name.encode()
    except UnicodeEncodeError as error:
        raise TypeError("a key's name must be Unicode text without lone surrogates") from error
    if len(raw) > KEY_BYTES:
        raise StorageLimitError(f"a key has at most {KEY_BYTES} bytes of UTF-8, {name[:40]!r}... has {len(raw)}")
    return raw


def _bare(hint: Any) -> Any:
    return _bare(get_args(hint)[0]) if get_origin(hint) is Annotated else hint


def _class_of(hint: Any) -> type:
    """The class of which a value has to be; object where the hint names none, TypedDicts are dicts."""
    bare = get_origin(_bare(hint)) or _bare(hint)
    if is_typeddict(bare):
        return dict
    return bare if isinstance(bare, type) and bare is not Any and bare is not types.UnionType else object


def _checked(name: str, hint: Any) -> bool:
    bare = _bare(hint)
    optional = get_origin(bare) in (Union, types.UnionType) and type(None) in get_args(bare)
    if bare is None or bare is type(None) or optional:
        raise TypeError(
            f"Key({name!r}, {hint_name(hint)}): leave None and the default out, then get gives None if absent"
        )
    try:
        return check_hint(hint)
    except TypeError as error:
        raise TypeError(f"Key({name!r}, ...): {error}") from error
