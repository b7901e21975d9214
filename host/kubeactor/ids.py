"""Names, ids and the fixed map from a name to its shard.

The identity of an instance is a byte string: the UTF-8 bytes of its name, or `0xff` and 32 hex digits for a unique id.
No UTF-8 text contains the byte 0xff, so a unique id collides with no name; neither contains NUL, which ends an
identity inside storage keys.
"""

from __future__ import annotations

import re
import secrets
from typing import Final, NamedTuple

from kubeactor.limits import NAME_BYTES

__all__ = ["ActorId", "identity_of_name", "new_unique_identity", "shard_of"]

_UNIQUE: Final = b"\xff"
_HEX: Final = re.compile(r"[0-9a-f]{32}")
BINDING: Final = re.compile(r"[A-Z][A-Z0-9_]{0,62}")


class ActorId(NamedTuple):
    """Which instance: its binding and its identity bytes. May be stored, passed and returned."""

    binding: str
    identity: bytes

    @property
    def name(self) -> str | None:
        """The name it was made from; None for a unique id."""
        return None if self.identity[:1] == _UNIQUE else self.identity.decode()

    def __str__(self) -> str:
        """`ACCOUNT/alice`, or `ACCOUNT!` and 32 hex digits for a unique id: what `Binding.get` takes back."""
        if self.identity[:1] == _UNIQUE:
            return f"{self.binding}!{self.identity[1:].decode()}"
        return f"{self.binding}/{self.identity.decode()}"

    @classmethod
    def parse(cls, text: str) -> ActorId:
        """The id that `str` gave.

        Raises:
            ValueError: when the text is not of either form.
        """
        cut = next((i for i, char in enumerate(text) if char in "/!"), 0)
        binding, mark, rest = text[:cut], text[cut : cut + 1], text[cut + 1 :]
        if not BINDING.fullmatch(binding):
            raise ValueError(f"not an actor id: {text!r}; write BINDING/name")
        if mark == "!":
            return cls(binding, identity_of_unique(rest))
        return cls(binding, identity_of_name(rest))


def identity_of_name(name: str) -> bytes:
    """The identity bytes of a name: 1..1024 bytes of UTF-8, not normalised.

    Raises:
        ValueError: when the name is empty, too long, or holds NUL or a lone surrogate.
        TypeError: when it is no text.
    """
    try:
        identity = name.encode()
    except AttributeError as error:
        kind = type(name).__name__
        raise TypeError(f"an actor's name is text, not {kind}: write id_from_name(str(...))") from error
    except UnicodeEncodeError as error:
        raise ValueError("an actor's name must be Unicode text without lone surrogates") from error
    if not identity:
        raise ValueError("an actor's name must have at least one byte")
    if len(identity) > NAME_BYTES:
        raise ValueError(f"an actor's name has at most {NAME_BYTES} bytes of UTF-8, this one has {len(identity)}")
    if b"\0" in identity:
        raise ValueError("an actor's name must not contain NUL")
    return identity


def identity_of_unique(digits: str) -> bytes:
    """The identity bytes of a unique id given as 32 hex digits.

    Raises:
        ValueError: when it is anything else.
    """
    if not _HEX.fullmatch(digits):
        raise ValueError("a unique id is 32 lower-case hex digits")
    return _UNIQUE + digits.encode()


def new_unique_identity() -> bytes:
    """The identity bytes of a new unique id: 128 random bits."""
    return _UNIQUE + secrets.token_hex(16).encode()


def shard_of(identity: bytes, shards: int) -> int:
    """The shard of an identity: xxh3-64 (seed 0) of its bytes modulo the shard count. Never changes."""
    import xxhash  # here, since a client has ids and no shards

    return xxhash.xxh3_64_intdigest(identity) % shards
