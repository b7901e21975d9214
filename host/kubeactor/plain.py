"""Between a user's types and plain data: what typed keys, arguments and results have in common.

A dataclass, Struct, Enum, named tuple or pydantic model travels and is stored as the plain data of its fields, and is
made again from its type hint. So fields with defaults may be added, and the class may be renamed or moved.
"""

from __future__ import annotations

import abc
import dataclasses
import types
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec import inspect as shape

from kubeactor.codec import DEPTH
from kubeactor.errors import CodecError
from kubeactor.ids import ActorId

__all__ = [
    "NATIVE",
    "SCALARS",
    "IdText",
    "check_hint",
    "convert",
    "from_json",
    "hint_name",
    "is_record",
    "json_hint",
    "reason_of",
    "to_plain",
]

SCALARS: Final = frozenset({int, str, float, bool, bytes, type(None)})

# What the codec holds as it is, so that `convert` neither expects nor makes another form of it.
NATIVE: Final = (bytes, datetime, date, time, timedelta, Decimal, UUID)


class IdText(abc.ABC):  # noqa: B024  (abstract only to take ActorId for its subclass)
    """Stands for ActorId in hints of JSON, where an id is text (msgspec would take the tuple for an array)."""


IdText.register(ActorId)


def is_model(cls: object) -> bool:
    """Whether it is a pydantic model, told without importing pydantic."""
    return isinstance(cls, type) and callable(getattr(cls, "model_validate", None))


def is_record(cls: object) -> bool:
    """Whether it is a class whose values are replaced by their plain data."""
    if not isinstance(cls, type):
        return False
    named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields") and cls is not ActorId
    return issubclass(cls, Enum | msgspec.Struct) or dataclasses.is_dataclass(cls) or named_tuple or is_model(cls)


def convert(value: Any, hint: Any) -> Any:
    """Plain data of the codec as the type that the hint names, strictly: no text becomes a number.

    Raises:
        msgspec.ValidationError: when it does not fit.
    """
    return msgspec.convert(value, hint, builtin_types=NATIVE, dec_hook=from_json)


def from_json(cls: type, value: Any) -> Any:
    """Make what msgspec can't make by itself: ids from text, pydantic models. A `dec_hook`.

    Raises:
        ValueError: when the value does not fit.
    """
    if cls is IdText:
        if type(value) is not str:
            raise ValueError("Expected an actor id such as `ACCOUNT/alice`")
        return ActorId.parse(value)
    if cls is object or isinstance(value, cls):
        return value
    try:
        return cls.model_validate(value)  # type: ignore[attr-defined]
    except ValueError as error:
        raise ValueError(_model_reason(error)) from error


def _model_reason(error: ValueError) -> str:
    """Pydantic's findings in one line, as `field: message`."""
    errors: Callable[..., list[dict[str, Any]]] | None = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    found = errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(": ".join([*(".".join(map(str, one["loc"])),) * bool(one["loc"]), one["msg"]]) for one in found)


def reason_of(error: Exception) -> tuple[str, str]:
    """What msgspec says, split into where (`.items[0].f`, or nothing) and what."""
    what, at, where = str(error).rpartition(" - at `$")
    return (where.rstrip("`"), what) if at else ("", str(error))


# From typed values to plain data -------------------------------------------------------------------------------------


def to_plain(value: Any, depth: int = 0) -> Any:
    """A value in which dataclasses, Structs, models, Enums and named tuples are replaced by their plain data.

    Anything else stays as it is, for the codec to take or to refuse; so does what is nested too deep.

    Raises:
        CodecError: when a record stands in a set or as a dict key and its plain data can't be hashed.
    """
    kind = type(value)
    if kind in SCALARS or depth > DEPTH or kind is ActorId or kind in NATIVE:
        return value
    try:
        if kind is dict:
            return {to_plain(key, depth + 1): to_plain(item, depth + 1) for key, item in value.items()}
        if kind in (list, tuple, set, frozenset):
            return kind([to_plain(item, depth + 1) for item in value])
    except TypeError as error:
        raise CodecError(f"a {kind.__name__} holds a record whose plain data can't be hashed: {error}") from error
    return _plain_object(value, depth)


def _plain_object(value: Any, depth: int) -> Any:
    kind = type(value)
    if isinstance(value, Enum):
        return to_plain(value.value, depth + 1)
    if isinstance(value, msgspec.Struct):
        return _plain_struct(value, depth + 1)
    if dataclasses.is_dataclass(kind):
        fields = dataclasses.fields(value)
        return {field.name: to_plain(getattr(value, field.name), depth + 1) for field in fields}
    if is_model(kind):
        return to_plain(value.model_dump(by_alias=True), depth + 1)
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return tuple(to_plain(item, depth + 1) for item in value)
    return value


def _plain_struct(value: msgspec.Struct, depth: int) -> Any:
    """As msgspec would write it: renamed fields, tag and array form are kept, unset fields left out."""
    config = value.__struct_config__
    names = value.__struct_encode_fields__
    values = [to_plain(getattr(value, field), depth) for field in value.__struct_fields__]
    if config.array_like:
        return values if config.tag is None else [config.tag, *values]
    tagged = {} if config.tag is None else {config.tag_field: config.tag}
    fields = {name: item for name, item in zip(names, values, strict=True) if item is not msgspec.UNSET}
    return tagged | fields


# Hints ---------------------------------------------------------------------------------------------------------------


def check_hint(hint: Any) -> bool:
    """Whether values of that hint have to go through `to_plain` before the codec takes them.

    Raises:
        TypeError: when values can't be checked against that hint; one sentence without the name of what carries it.
    """
    try:
        found = shape.type_info(hint)
        msgspec.json.Decoder(hint, dec_hook=from_json)
    except NameError as error:
        name = getattr(error, "name", None) or str(error)
        raise TypeError(f"{name} can't be resolved; move its import out of `if TYPE_CHECKING`") from error
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the type {hint_name(hint)} can't be checked: {str(error).partition(' If you need')[0]}"
        ) from error
    return _walk(found, set())


def _walk(found: shape.Type, seen: set[type]) -> bool:
    """Whether the type has records in it; refuses the classes that nothing can make."""
    cls: Any = getattr(found, "cls", None)
    if isinstance(found, shape.CustomType) and not (cls in (object, IdText, ActorId) or is_model(cls)):
        raise TypeError(f"{cls.__name__} can't be checked; use a dataclass, a msgspec.Struct or a pydantic model")
    if cls in seen:
        return True
    record = is_record(cls)
    if record:
        seen.add(cls)
    inner = [_walk(part, seen) for part in _parts(found)]  # every part, for what it refuses
    return record or any(inner)


def _parts(found: shape.Type) -> list[shape.Type]:
    parts = [field.type for field in getattr(found, "fields", ())]
    for name in ("types", "item_types"):
        parts.extend(getattr(found, name, ()))
    inner = (getattr(found, name, None) for name in ("item_type", "key_type", "value_type"))
    return [*parts, *(part for part in inner if isinstance(part, shape.Type))]


def json_hint(hint: Any) -> Any:
    """The hint as JSON is read by it: each ActorId outside of classes becomes `IdText`."""
    if hint is ActorId:
        return IdText
    origin, parts = get_origin(hint), get_args(hint)
    if not parts or origin is Literal:
        return hint
    if origin is Annotated:
        return Annotated[(json_hint(parts[0]), *parts[1:])]
    swapped = tuple(part if isinstance(part, list) else json_hint(part) for part in parts)
    if swapped == parts:
        return hint
    return Union[swapped] if origin in (Union, types.UnionType) else origin[swapped]  # noqa: UP007


def hint_name(hint: Any) -> str:
    """How a person writes the hint."""
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
