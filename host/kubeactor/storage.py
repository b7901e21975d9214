"""`self.ctx.storage`: what a turn reads and writes. It acts for the turn in the caller's context.

Writes take effect in the turn's overlay at the call, so nothing depends on an `await`; they reach RocksDB as one
batch when the turn ends.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Awaitable, Generator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from kubeactor import codec
from kubeactor.errors import ActorArgumentError, ActorFencedError, StorageLimitError
from kubeactor.key import Key
from kubeactor.limits import KEY_BYTES, KEYS_PER_OPERATION, LIST_BYTES, LIST_LIMIT, VALUE_BYTES
from kubeactor.scope import SCOPE

if TYPE_CHECKING:
    from kubeactor.engine.instance import Instance
    from kubeactor.engine.turn import Turn

__all__ = ["Storage"]

T = TypeVar("T")
D = TypeVar("D")
SCAN_PAGE = 256
SCAN_BYTES = 1024 * 1024
_NO_VALUE: Any = object()


class _Done:
    """An awaitable that is done: writes have taken effect when the call returns."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.value
        yield  # makes it a generator function


_NOTHING: Awaitable[None] = _Done(None)


class Storage:
    """The key-value storage of one instance. Keys are text of at most 2,048 bytes, in UTF-8 byte order.

    Every method raises `ActorFencedError` outside of a turn of this instance, and after the turn has ended.
    """

    __slots__ = ("_instance",)

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def _turn(self) -> Turn:
        turn = SCOPE.get()
        if turn is None or not turn.live or getattr(turn, "instance", None) is not self._instance:
            raise _fenced(turn is not None and turn.live)
        return turn  # type: ignore[return-value]

    # --- reading

    @overload
    async def get(self, key: Key[T], /) -> T: ...
    @overload
    async def get(self, key: str, default: None = None, /) -> Any: ...
    @overload
    async def get(self, key: str, default: D, /) -> D: ...
    @overload
    async def get(self, keys: builtins.list[str], /) -> dict[str, Any]: ...
    async def get(self, key: Any, default: Any = None, /) -> Any:
        """The value of a key, or the default; of a list of keys, a dict of those present.

        Raises:
            StorageTypeError: when the stored value is not of the typed key's type.
            StorageLimitError: for more than 1,000 keys, or a key above 2,048 bytes.
        """
        turn = self._turn()
        if key.__class__ is Key:
            return key.decode(turn.read(key.raw))
        if isinstance(key, str):
            raw = turn.read(_raw_key(key))
            return default if raw is None else codec.decode(raw)
        if isinstance(key, builtins.list):
            found = {}
            for one in _bounded_keys(key):
                if (raw := turn.read(_raw_key(one))) is not None:
                    found[one] = codec.decode(raw)
            return found
        raise ActorArgumentError(f"get takes a key, a Key or a list of keys, not {type(key).__name__}")

    async def list(
        self,
        *,
        prefix: str = "",
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """Keys and values in key order; `start` inclusive, `start_after` and `end` exclusive.

        Raises:
            StorageLimitError: when there are more than 1,000 and no `limit`, or the answer is above 16 MiB.
            ActorArgumentError: when `limit` is not 1..1000.
        """
        if limit is not None and not (isinstance(limit, int) and 1 <= limit <= LIST_LIMIT):
            raise ActorArgumentError(f"limit is 1 to {LIST_LIMIT}, not {limit!r}; use scan() to go through more")
        turn = self._turn()
        low, high = _range(prefix, start, start_after, end)
        rows = turn.rows(low, high, reverse, LIST_LIMIT + 1 if limit is None else limit, LIST_BYTES)
        if limit is None and len(rows) > LIST_LIMIT:
            raise StorageLimitError(f"list found more than {LIST_LIMIT} keys; give a limit, or use scan()")
        if size_of(rows) > LIST_BYTES:
            raise StorageLimitError(f"list found more than {LIST_BYTES} bytes; give a smaller limit, or use scan()")
        return {key.decode(): codec.decode(value) for key, value in rows}

    async def scan(
        self,
        *,
        prefix: str = "",
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        reverse: bool = False,
    ) -> AsyncIterator[tuple[str, Any]]:
        """All keys and values of a range in key order, any number, a page at a time.

        Writes made while it runs are seen if they lie ahead.
        """
        low, high = _range(prefix, start, start_after, end)
        while True:
            rows = self._turn().rows(low, high, reverse, SCAN_PAGE, SCAN_BYTES)
            for key, value in rows:
                yield key.decode(), codec.decode(value)
            if len(rows) < SCAN_PAGE and size_of(rows) <= SCAN_BYTES:
                return
            if reverse:
                high = rows[-1][0]
            else:
                low = rows[-1][0] + b"\0"

    # --- writing

    @overload
    def put(self, key: Key[T], value: T, /) -> Awaitable[None]: ...
    @overload
    def put(self, key: str, value: object, /) -> Awaitable[None]: ...
    @overload
    def put(self, values: Mapping[str, object], /) -> Awaitable[None]: ...
    def put(self, key: Any, value: Any = _NO_VALUE, /) -> Awaitable[None]:
        """Write a value, or all of a mapping; it is copied.

        Raises:
            CodecError: when a value has no stored form; names the path.
            StorageTypeError: when it is not of the typed key's type.
            StorageLimitError: above 2 MiB a value, 16 MiB a turn, 1,000 keys, or when the disk is nearly full.
        """
        turn = self._turn()
        if (value is _NO_VALUE) != isinstance(key, Mapping):
            raise ActorArgumentError("put takes (key, value) or one mapping of keys to values")
        if key.__class__ is Key:
            turn.write(key.raw, _bounded_value(key.name, key.encode(value)))
        elif isinstance(key, str):
            turn.write(_raw_key(key), _bounded_value(key, codec.encode(value)))
        elif value is _NO_VALUE:
            encoded = [(_raw_key(k), _bounded_value(k, codec.encode(v))) for k, v in _bounded_keys(key).items()]
            turn.write_many(encoded)
        else:
            raise ActorArgumentError(f"put takes a key or a Key, not {type(key).__name__}")
        return _NOTHING

    @overload
    def delete(self, key: str | Key[Any], /) -> Awaitable[bool]: ...
    @overload
    def delete(self, keys: builtins.list[str], /) -> Awaitable[int]: ...
    def delete(self, key: Any, /) -> Awaitable[Any]:
        """Delete a key (True if it was there) or a list of keys (how many were there)."""
        turn = self._turn()
        if isinstance(key, builtins.list):
            return _Done(sum(turn.remove(_raw_key(one)) for one in _bounded_keys(key)))
        return _Done(turn.remove(key.raw if isinstance(key, Key) else _raw_key(key)))

    def delete_all(self, *, keep_alarm: bool = False) -> Awaitable[None]:
        """Clear all keys, the alarm (a parked one too) and the outbox. Recorded results stay."""
        self._turn().delete_all(keep_alarm=keep_alarm)
        return _NOTHING

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A nested savepoint: an exception inside discards the writes, alarm changes and sends made inside, only."""
        turn = self._turn()
        savepoint = turn.savepoint()
        try:
            yield
        except BaseException:
            if turn.live:
                turn.rollback(savepoint)
            raise

    # --- the alarm

    def set_alarm(self, when: datetime | timedelta, /) -> Awaitable[None]:
        """Set the one alarm of this instance, replacing an earlier one; a time that has passed means now.

        Args:
            when: an aware datetime, or a timedelta from now.

        Raises:
            ActorArgumentError: for a number, a naive datetime, a time out of range, or a class without `alarm`.
        """
        turn = self._turn()
        if not self._instance.type.has_alarm:
            name = self._instance.type.cls.__qualname__
            raise ActorArgumentError(f"{name} has no `async def alarm(self, info)` that could run: write one")
        turn.set_alarm(_alarm_us(when, turn.now_us()))
        return _NOTHING

    async def get_alarm(self) -> datetime | None:
        """When the alarm runs next, in UTC; None if there is none, or inside its own handler."""
        due_us = self._turn().get_alarm()
        return None if due_us is None else from_us(due_us)

    def delete_alarm(self) -> Awaitable[None]:
        """Delete the alarm, a parked one too."""
        self._turn().delete_alarm()
        return _NOTHING


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_us(us: int) -> datetime:
    """Microseconds since 1970 as an aware UTC datetime."""
    return _EPOCH + timedelta(microseconds=us)


def to_us(when: datetime) -> int:
    """An aware datetime as microseconds since 1970."""
    return (when - _EPOCH) // timedelta(microseconds=1)


def _alarm_us(when: object, now_us: int) -> int:
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise ActorArgumentError("set_alarm takes an aware datetime: write datetime.now(UTC) + ...")
        due = to_us(when)
    elif isinstance(when, timedelta):
        due = now_us + when // timedelta(microseconds=1)
    else:
        raise ActorArgumentError(
            f"set_alarm takes a timedelta from now or an aware datetime, not {type(when).__name__}:"
            " write timedelta(seconds=...)"
        )
    try:
        from_us(due)
    except OverflowError as error:
        raise ActorArgumentError("set_alarm: that time is beyond the year 9999") from error
    return max(due, now_us)


def _fenced(other: bool) -> ActorFencedError:
    if other:
        return ActorFencedError("storage belongs to its instance's own turns: call a method of that instance instead")
    return ActorFencedError("storage is used inside a turn only, and this turn has ended (or there is none)")


def _raw_key(key: object) -> bytes:
    if not isinstance(key, str):
        raise ActorArgumentError(f"a key is text or a Key, not {type(key).__name__}")
    try:
        raw = key.encode()
    except UnicodeEncodeError as error:
        raise ActorArgumentError("a key must not hold lone surrogates") from error
    if len(raw) > KEY_BYTES:
        raise StorageLimitError(f"a key has at most {KEY_BYTES} bytes of UTF-8, this one has {len(raw)}")
    return raw


def _bounded_keys(keys: T) -> T:
    if len(keys) > KEYS_PER_OPERATION:  # type: ignore[arg-type]
        raise StorageLimitError(f"at most {KEYS_PER_OPERATION} keys at once")
    return keys


def _bounded_value(key: object, value: bytes) -> bytes:
    if len(value) > VALUE_BYTES:
        raise StorageLimitError(f"the value of {key!r} has {len(value)} bytes, at most {VALUE_BYTES} are stored")
    return value


def _range(prefix: str, start: str | None, start_after: str | None, end: str | None) -> tuple[bytes, bytes | None]:
    if start is not None and start_after is not None:
        raise ActorArgumentError("give start or start_after, not both")
    low = raw_prefix = _raw_key(prefix)
    high = after_prefix(raw_prefix)
    if start is not None:
        low = max(low, _raw_key(start))
    if start_after is not None:
        low = max(low, _raw_key(start_after) + b"\0")
    if end is not None:
        high = min(_raw_key(end), high) if high is not None else _raw_key(end)
    return low, high


def after_prefix(prefix: bytes) -> bytes | None:
    """The first key after all that begin with the prefix; None if there is no end."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def merged(
    stored: Iterator[tuple[bytes, bytes]],
    overlay: builtins.list[tuple[bytes, bytes | None]],
    reverse: bool,
    limit: int,
    bound: int,
) -> builtins.list[tuple[bytes, bytes]]:
    """Stored rows with the overlay's laid over them, in order; a None value hides its key.

    Args:
        limit: of rows; bound: of bytes, passed by the last row at most.
    """
    found: builtins.list[tuple[bytes, bytes]] = []
    size = 0
    waiting = iter(overlay)
    ours = next(waiting, None)
    theirs = next(stored, None)
    while len(found) < limit and size <= bound and (ours is not None or theirs is not None):
        if ours is None:
            take_ours = False
        elif theirs is None:
            take_ours = True
        else:
            take_ours = ours[0] >= theirs[0] if reverse else ours[0] <= theirs[0]
        if take_ours:
            assert ours is not None
            if theirs is not None and theirs[0] == ours[0]:
                theirs = next(stored, None)
            row, ours = ours, next(waiting, None)
        else:
            assert theirs is not None
            row, theirs = theirs, next(stored, None)
        key, value = row
        if value is not None:
            found.append((key, value))
            size += len(key) + len(value)
    return found


def size_of(rows: builtins.list[tuple[bytes, bytes]]) -> int:
    """Bytes of keys and values."""
    return sum(len(key) + len(value) for key, value in rows)
