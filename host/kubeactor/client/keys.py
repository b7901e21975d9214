"""The Idempotency-Key of a call: its own, or the one that `idempotency_key` sets for it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from kubeactor.errors import IdempotencyConflictError
from kubeactor.limits import CLIENT_KEY_BYTES

__all__ = ["idempotency_key", "take_key"]


class _Given:
    """A key that waits for its call. `pop` is atomic, so of two threads one gets it."""

    __slots__ = ("left", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.left = [text.encode()]


_GIVEN: ContextVar[_Given | None] = ContextVar("kubeactor.client.key", default=None)


@contextmanager
def idempotency_key(key: str) -> Iterator[None]:
    """Make the one call that is written inside this block under a key of your own.

    Whoever repeats the same call under the same key within 24 h, also from another process, gets the first one's
    result: it is applied once. Keys are scoped to the instance that is called.

    Args:
        key: 1 to 256 bytes of UTF-8, such as an order's number.

    Raises:
        TypeError: when it is no text.
        ValueError: when the key is too long, empty, or holds control characters or spaces at its ends.
        IdempotencyConflictError: at a second call inside the block, or one that is made when the block has ended.
    """
    given = _Given(_checked(key))
    token = _GIVEN.set(given)
    try:
        yield
    finally:
        given.left.clear()
        _GIVEN.reset(token)


def take_key() -> bytes:
    """The key of the call that is being written: the one given for it, else a new one of 128 random bits.

    Raises:
        IdempotencyConflictError: when the given key has had its call.
    """
    given = _GIVEN.get()
    if given is None:
        return secrets.token_hex(16).encode()
    try:
        return given.left.pop()
    except IndexError:
        raise IdempotencyConflictError(
            f"idempotency_key({given.text!r}) is for exactly one call inside its block; open another block for this one"
        ) from None


def _checked(key: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"an idempotency key is text, not {type(key).__name__}: write idempotency_key(str(...))")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise ValueError("an idempotency key must be Unicode text without lone surrogates") from error
    if not 1 <= size <= CLIENT_KEY_BYTES:
        raise ValueError(f"an idempotency key has 1 to {CLIENT_KEY_BYTES} bytes of UTF-8, this one has {size}")
    if key != key.strip(" ") or any(ord(char) < 0x20 or char == "\x7f" for char in key):
        raise ValueError(f"an idempotency key has no control characters and no spaces at its ends: {key!r}")
    return key
