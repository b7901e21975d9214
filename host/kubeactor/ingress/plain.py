"""Requests so plain that they need no HTTP parser: whole, unambiguous calls, read straight from the buffer.

The rule that keeps this sound: whatever is not matched here byte for byte is left to httptools, and nothing is refused
here. Every accepted request is one that httptools reads the same way (a differential property test holds both to it):
an origin-form POST with HTTP/1.1 and CRLF line ends; fields that are a token, a colon and visible ASCII; no field
that changes framing or connection except one Content-Length and `Connection: keep-alive`.
"""

from __future__ import annotations

import re
from typing import Final

from kubeactor.errors import ActorError
from kubeactor.ingress.requests import Conditions, Target, conditions_of, target_of
from kubeactor.limits import BODY_BYTES, CLIENT_KEY_BYTES, NAME_BYTES

__all__ = ["REQUEST", "PlainHeads", "plain_target"]

REQUEST: Final = re.compile(
    rb"POST (/v1/(actors|ids)/([A-Z][A-Z0-9_]{0,62})/([!$%&'()*+,\-.0-9:;=@A-Z_a-z~]{1,3072})/([A-Za-z0-9_]{1,255}))"
    rb" HTTP/1\.1\r\n"
)
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e]*)\r\n")
_KEY: Final = re.compile(rb"(?:\A|(?<=\r\n))[Ii]dempotency-[Kk]ey: ([!-~]{1,%d})\r\n" % CLIENT_KEY_BYTES)
_UNUSUAL: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection"})

HEAD_BYTES: Final = 8192
MEMO_HEADS: Final = 1024
MEMO_HEAD_BYTES: Final = 1024


class PlainHeads:
    """Reads header blocks. A client sends the same block again and again, so those read are remembered."""

    __slots__ = ("_memo",)

    def __init__(self) -> None:
        self._memo: dict[bytes, Conditions | None] = {}

    def read(self, block: bytes) -> Conditions | None:
        """The conditions that a block of header lines sets; None when it is not plain.

        The block is what stands after the request line, without the empty line.
        """
        try:
            return self._memo[block]
        except KeyError:
            return self._read_new(block)

    def _read_new(self, block: bytes) -> Conditions | None:
        # A key is different each time: it is cut out, and the block without it is what repeats.
        if (match := _KEY.search(block)) is not None:
            rest = self.read(block[: match.start()] + block[match.end() :])
            return None if rest is None or rest.key is not None else rest._replace(key=match[1])
        conditions = _read(block)
        if len(block) <= MEMO_HEAD_BYTES and (conditions is None or conditions.key is None):
            if len(self._memo) >= MEMO_HEADS:
                self._memo.clear()
            self._memo[block] = conditions
        return conditions


def _read(block: bytes) -> Conditions | None:
    headers: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(block):
        field = _FIELD.match(block, at)
        if field is None:
            return None
        name = field[1].lower()
        if name in _UNUSUAL or (name == b"connection" and field[2].strip(b" \t").lower() != b"keep-alive"):
            return None
        headers.append((name, field[2]))
        at = field.end()
    try:
        conditions = conditions_of(headers)
    except ActorError:
        return None
    return conditions if conditions.length is None or conditions.length <= BODY_BYTES else None


def plain_target(match: re.Match[bytes]) -> Target | None:
    """The target of a matched request line; None when the slow path has something to say about it."""
    path, kind, binding, name, method = match.groups()
    if method == b"fetch":
        return None
    if kind == b"actors" and b"%" not in name and len(name) <= NAME_BYTES:
        return Target(binding.decode(), name, method.decode())
    try:
        return target_of(path)
    except ActorError:
        return None
