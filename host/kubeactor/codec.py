"""Values as bytes: what storage holds and what travels between actors. Type and value come back exactly.

A version byte leads every value, so that a later layout can be told from this one; then MessagePack by msgspec. What
MessagePack has is written as such (None, bool, int of 64 bits, float, str, bytes, list, dict); the rest is an
extension, whose codes are below and never change meaning. The bytes of sets do not depend on their order in memory.

Only exact types are taken: a subclass would come back as its base. Nothing is ever pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec import Raw, Struct
from msgspec.msgpack import Decoder, Encoder, Ext

from kubeactor.errors import CodecError
from kubeactor.ids import ActorId

__all__ = ["DEPTH", "VERSION", "decode", "encode", "why_not"]

VERSION: Final = b"\x01"
DEPTH: Final = 100  # levels of containers; a value nested deeper is refused

TUPLE: Final = 1
SET: Final = 2
FROZENSET: Final = 3
BIG_INT: Final = 4
DATETIME: Final = 5
DATE: Final = 6
TIME: Final = 7
TIMEDELTA: Final = 8
DECIMAL: Final = 9
UUID_: Final = 10
ACTOR_ID: Final = 11
PAIRS: Final = 12  # a dict with keys that are extensions: key, value, key, value ...

_SCALARS: Final = frozenset({int, str, float, bool, NoneType, bytes})
_STR: Final = frozenset({str})
_SEQUENCES: Final[dict[type, int]] = {tuple: TUPLE, set: SET, frozenset: FROZENSET}
_CONTAINERS: Final = (dict, list, *_SEQUENCES)
_MICROSECOND: Final = timedelta(microseconds=1)

_pack: Final = Encoder().encode


def encode(value: Any) -> bytes:
    """The bytes of a value.

    Raises:
        CodecError: when a part of it has no stored form; the detail names its path, as in `$.items[3].f`.
    """
    kind = type(value)
    try:
        if kind in _SCALARS:
            return VERSION + _pack(value)
        return VERSION + _pack(_packable(value, 0))
    except (OverflowError, UnicodeEncodeError, TypeError):
        # An integer beyond 64 bits or a lone surrogate: found by MessagePack itself, so that the usual value need
        # not be searched for them.
        return _encode_thoroughly(value)
    except _Refusal as refusal:
        raise refusal.as_codec_error() from None


def decode(data: bytes) -> Any:
    """The value that `encode` gave these bytes.

    Raises:
        CodecError: when they are damaged, or written by a later version.
    """
    if data[:1] != VERSION:
        raise CodecError(_unknown_version(data))
    try:
        return _unpack(data[1:])
    except CodecError:
        raise
    except Exception as error:
        # Damaged bytes can fail in any constructor below; whatever it is, the value can't be read.
        raise CodecError(f"the stored value is damaged: {error}") from error


def _unknown_version(data: bytes) -> str:
    if not data:
        return "the stored value is damaged: it is empty"
    return f"the stored value has version {data[0]}, this kubeactor reads version {VERSION[0]}"


class _Refusal(Exception):
    """A part of a value has no stored form. Its path is put together while the call stack unwinds."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.trail: list[tuple[object, str]] = []  # (container, step inside it), innermost first

    def at(self, container: object, step: str) -> _Refusal:
        self.trail.append((container, step))
        return self

    def as_codec_error(self) -> CodecError:
        path, reason, seen = "$", self.reason, set[int]()
        for container, step in reversed(self.trail):
            if id(container) in seen:
                reason = "contains itself"
                break
            seen.add(id(container))
            path += step
        shown = path if len(path) <= 500 else f"{path[:250]}...{path[-250:]}"
        return CodecError(f"{shown}: {reason}")


def _encode_thoroughly(value: Any) -> bytes:
    try:
        return VERSION + _pack(_packable(value, 0, thorough=True))
    except _Refusal as refusal:
        raise refusal.as_codec_error() from None
    except (TypeError, UnicodeEncodeError) as error:  # inside an ActorId, or the name of a time zone
        raise CodecError(f"$: {error}") from error


def _packable(value: Any, depth: int, thorough: bool = False) -> Any:
    """The value itself where MessagePack can hold it as it is, else a copy with extensions.

    `thorough`: look at each integer and text too, which the first try leaves to MessagePack.
    """
    kind = type(value)
    if kind in _SCALARS:
        return _scalar(value) if thorough else value
    if (extension := _EXTENSIONS.get(kind)) is not None:
        return extension(value)
    if kind not in _CONTAINERS:
        raise _Refusal(why_not(value))
    if depth >= DEPTH:
        raise _Refusal(f"is nested deeper than {DEPTH} levels")
    if kind is dict:
        return _dict(value, depth + 1, thorough)
    if kind is list:
        return _list(value, depth + 1, thorough)
    items = _items(value, depth + 1, thorough)
    return Ext(_SEQUENCES[kind], _pack(items if kind is tuple else _sorted(items)))


def _scalar(value: Any) -> Any:
    if type(value) is int and not -(2**63) <= value < 2**64:
        return Ext(BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    if type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Refusal("has a lone surrogate, which is no Unicode text") from None
    return value


def _list(value: list[Any], depth: int, thorough: bool) -> list[Any]:
    if not thorough and _SCALARS.issuperset(map(type, value)):
        return value
    return _items(value, depth, thorough)


def _items(value: Any, depth: int, thorough: bool) -> list[Any]:
    done: list[Any] = []
    try:
        for item in value:
            done.append(_packable(item, depth, thorough))
    except _Refusal as refusal:
        ordered = isinstance(value, list | tuple)
        raise refusal.at(value, f"[{len(done)}]" if ordered else f"{{{_short(item)}}}") from None
    return done


def _sorted(items: list[Any]) -> list[Raw]:
    return [Raw(data) for data in sorted(map(_pack, items))]


def _dict(value: dict[Any, Any], depth: int, thorough: bool) -> Any:
    if not thorough and _STR.issuperset(map(type, value)) and _SCALARS.issuperset(map(type, value.values())):
        return value
    keys, values = _dict_keys(value, depth, thorough), _dict_values(value, depth, thorough)
    if _SCALARS.issuperset(map(type, keys)):
        return dict(zip(keys, values, strict=True))
    return Ext(PAIRS, _pack([part for pair in zip(keys, values, strict=True) for part in pair]))


def _dict_keys(value: dict[Any, Any], depth: int, thorough: bool) -> list[Any]:
    key = None
    try:
        return [_packable(key := each, depth, thorough) for each in value]
    except _Refusal as refusal:
        raise refusal.at(value, f"[key {_short(key)}]") from None


def _dict_values(value: dict[Any, Any], depth: int, thorough: bool) -> list[Any]:
    key = None
    try:
        return [_packable(value[key := each], depth, thorough) for each in value]
    except _Refusal as refusal:
        raise refusal.at(value, _step(key)) from None


def _step(key: Any) -> str:
    return f".{key}" if type(key) is str and key.isidentifier() else f"[{_short(key)}]"


def _short(value: object) -> str:
    """A part of a path, at most 40 characters and always printable."""
    text = ascii(value) if type(value) in _SCALARS else f"<{type(value).__name__}>"
    return text if len(text) <= 40 else f"{text[:37]}..."


# What becomes an extension -------------------------------------------------------------------------------------------


def _datetime(value: datetime) -> Ext:
    day = (value.year, value.month, value.day)
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return Ext(DATETIME, _pack((*day, *clock, _zone(value.tzinfo))))


def _time(value: time) -> Ext:
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return Ext(TIME, _pack((*clock, _zone(value.tzinfo))))


def _zone(zone: tzinfo | None) -> Any:
    """None, the key of a ZoneInfo, or [microseconds] or [microseconds, name] of a fixed offset."""
    if zone is None:
        return None
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    if type(zone) is timezone:
        arguments: Any = zone.__reduce__()[1]  # (offset,) or (offset, name), as it was made
        return [arguments[0] // _MICROSECOND, *arguments[1:]]
    raise _Refusal(
        f"has a {type(zone).__name__} as its time zone; use datetime.timezone, or zoneinfo.ZoneInfo with a key"
    )


def _read_zone(zone: Any) -> tzinfo | None:
    if zone is None:
        return None
    if type(zone) is not str:
        return timezone(timedelta(microseconds=zone[0]), *zone[1:])
    try:
        return ZoneInfo(zone)
    except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError, see below
        raise CodecError(f"the time zone {zone!r} can't be read here: {error}") from error
    except KeyError as error:
        raise CodecError(f"the time zone {zone!r} is not known here; install tzdata") from error


def _read_datetime(data: Any) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold, zone = _unpack(data)
    return datetime(year, month, day, hour, minute, second, microsecond, _read_zone(zone), fold=fold)


def _read_time(data: Any) -> time:
    hour, minute, second, microsecond, fold, zone = _unpack(data)
    return time(hour, minute, second, microsecond, _read_zone(zone), fold=fold)


_EXTENSIONS: Final[dict[type, Callable[[Any], Ext]]] = {
    datetime: _datetime,
    date: lambda value: Ext(DATE, _pack(value.toordinal())),
    time: _time,
    timedelta: lambda value: Ext(TIMEDELTA, _pack((value.days, value.seconds, value.microseconds))),
    Decimal: lambda value: Ext(DECIMAL, str(value).encode()),
    UUID: lambda value: Ext(UUID_, value.bytes),
    ActorId: lambda value: Ext(ACTOR_ID, _pack(tuple(value))),
}


def _read_pairs(data: Any) -> dict[Any, Any]:
    parts = _unpack(data)
    return dict(zip(parts[::2], parts[1::2], strict=True))


_READERS: Final[dict[int, Callable[[Any], Any]]] = {
    TUPLE: lambda data: tuple(_unpack(data)),
    SET: lambda data: set(_unpack(data)),
    FROZENSET: lambda data: frozenset(_unpack(data)),
    BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    DATETIME: _read_datetime,
    DATE: lambda data: date.fromordinal(_unpack(data)),
    TIME: _read_time,
    TIMEDELTA: lambda data: timedelta(*_unpack(data)),
    DECIMAL: lambda data: Decimal(str(data, "ascii")),
    UUID_: lambda data: UUID(bytes=bytes(data)),
    ACTOR_ID: lambda data: ActorId(*_unpack(data)),
    PAIRS: _read_pairs,
}


def _read_extension(code: int, data: memoryview) -> Any:
    if (reader := _READERS.get(code)) is None:
        raise CodecError(f"the stored value has an extension {code} that this kubeactor does not know")
    return reader(data)


_unpack: Final[Callable[[Any], Any]] = Decoder(ext_hook=_read_extension).decode


# What is refused, and what to write instead --------------------------------------------------------------------------


def why_not(value: object) -> str:
    """Why a value of that type has no stored form, and what to write instead; goes on after `$.path: `."""
    kind = type(value)
    name = kind.__name__
    if hasattr(kind, "__kubeactor_stub__"):
        return "is a stub; write kubeactor.id_of(stub), and env.BINDING.get(id) to come back"
    if isinstance(value, Coroutine):
        return "is a call that was not awaited: write `await` in front of it"
    if isinstance(value, Enum | Struct) or hasattr(kind, "__dataclass_fields__") or hasattr(kind, "model_validate"):
        return f'is a {name}, which is read back by its type: write Key("name", {name}), or a type hint on the method'
    for base in (*_CONTAINERS, *_EXTENSIONS, int, str, float, bytes):
        if isinstance(value, base):
            return f"is a {name}, a subclass of {base.__name__} that would not come back as such" + _plainly(base)
    if isinstance(value, bytearray | memoryview):
        return f"is a {name}; write bytes(value)"
    return f'is a {name}, which has no stored form; store plain data, or a dataclass by Key("name", Class)'


def _plainly(base: type) -> str:
    return "" if base in _EXTENSIONS else f"; write {base.__name__}(value)"
