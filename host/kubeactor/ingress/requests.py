"""What a request asks for, read from its path and headers; the fast and the slow path both read it here.

A path is `/v1/actors/{binding}/{name}/{method}` or `/v1/ids/{binding}/{32 hex digits}/{method}`. Segments are
percent-decoded one by one, so that `%2F` stays inside a name; `.`, `..` and `+` are ordinary characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from kubeactor.errors import ActorArgumentError, ActorUnknownBindingError, ActorUnknownMethodError
from kubeactor.ids import BINDING, ActorId, identity_of_name, identity_of_unique
from kubeactor.limits import CALL_DEFAULT_S, CALL_MAX_S, CLIENT_KEY_BYTES

__all__ = ["Conditions", "Target", "check_path", "conditions_of", "is_call_path", "is_fetch_path", "target_of"]

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SECONDS: Final = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}")
_CALLS: Final = ([b"v1", b"actors"], [b"v1", b"ids"])
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class Target(NamedTuple):
    """Which method of which instance."""

    binding: str
    identity: bytes
    method: str

    @property
    def instance(self) -> str:
        """As problem documents name it."""
        return str(ActorId(self.binding, self.identity))


class Conditions(NamedTuple):
    """What the headers ask for: the client's own key, the time limit in seconds, the body's length if it is given."""

    key: bytes | None
    timeout_s: float
    length: int | None


def is_call_path(raw_path: bytes) -> bool:
    """Whether the path has the shape of a call, so that only its HTTP method can be wrong."""
    segments = raw_path.split(b"/")
    return len(segments) == 6 and segments[1:3] in _CALLS and segments[5] != b"fetch"


def is_fetch_path(raw_path: bytes) -> bool:
    """Whether the path is that of an instance's `fetch`, or below it."""
    segments = raw_path.split(b"/")
    return len(segments) >= 6 and segments[1:3] in _CALLS and segments[5] == b"fetch"


def check_path(raw_path: bytes) -> None:
    """Refuse a path that is not percent-encoded UTF-8: decoded, several of them would be one, and name one instance.

    Raises:
        ActorArgumentError: when it is not.
    """
    if b"%" in raw_path:
        _decoded(raw_path)


def target_of(raw_path: bytes) -> Target:
    """The target of a path as it stood in the request line, without its query.

    Raises:
        ActorArgumentError: when a segment is not percent-encoded UTF-8, or the name or id is not a legal one.
        ActorUnknownBindingError: when the binding's segment can't be one.
        ActorUnknownMethodError: when nothing is served at the path.
    """
    segments = raw_path.split(b"/")
    if not is_call_path(raw_path) and not is_fetch_path(raw_path):
        raise ActorUnknownMethodError("nothing is served here; calls are POST /v1/actors/{binding}/{name}/{method}")
    binding, name, method = (_decoded(segment) for segment in segments[3:6])
    if not BINDING.fullmatch(binding):
        raise ActorUnknownBindingError(f"no actor is bound under {binding[:80]!r}: write a binding as in ACCOUNT")
    try:
        identity = identity_of_name(name) if segments[2] == b"actors" else identity_of_unique(name)
    except ValueError as error:
        raise ActorArgumentError(str(error)) from error
    return Target(binding, identity, method)


def _decoded(segment: bytes) -> str:
    if _BAD_ESCAPE.search(segment):
        raise ActorArgumentError("a % in the path must be followed by two hex digits")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise ActorArgumentError("the path must be percent-encoded UTF-8") from error


def conditions_of(headers: Iterable[tuple[bytes, bytes]]) -> Conditions:
    """The conditions that headers (names in lower case) set.

    Raises:
        ActorArgumentError: when one of them is given twice or is out of its bounds.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in (b"idempotency-key", b"kubeactor-timeout", b"content-length"):
            if name in found:
                raise ActorArgumentError(f"the header {name.decode()} is given twice")
            found[name] = value.strip(b" \t")
    length = found.get(b"content-length")
    if length is not None and not _LENGTH.fullmatch(length):
        raise ActorArgumentError("the header content-length must be a number of bytes")
    return Conditions(
        _key(found.get(b"idempotency-key")),
        _timeout_s(found.get(b"kubeactor-timeout")),
        None if length is None else int(length),
    )


def _key(value: bytes | None) -> bytes | None:
    if value is not None and not 1 <= len(value) <= CLIENT_KEY_BYTES:
        raise ActorArgumentError(f"an Idempotency-Key has 1 to {CLIENT_KEY_BYTES} bytes, this one has {len(value)}")
    return value


def _timeout_s(value: bytes | None) -> float:
    if value is None:
        return CALL_DEFAULT_S
    seconds = float(value) if _SECONDS.fullmatch(value) else 0.0
    if not 0.0 < seconds <= CALL_MAX_S:
        raise ActorArgumentError(f"Kubeactor-Timeout is a number of seconds above 0 and at most {CALL_MAX_S:g}")
    return seconds
