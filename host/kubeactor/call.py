"""One call on its way to a turn: the plain record that ingress, wire, router and engine hand on.

Nothing here does I/O. A `Dispatcher` takes calls; the engine of a host is one, and so is the router of an ingress.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from kubeactor.errors import ActorError

if TYPE_CHECKING:
    from kubeactor.engine.instance import Instance
    from kubeactor.scope import Scope

__all__ = ["CODEC", "JSON", "Call", "CallId", "Dispatcher", "Reply", "derived_id"]

# How the body of a call is encoded; the result comes back in the same format.
JSON: Final = 0  # from outside: a JSON object, array or nothing
CODEC: Final = 1  # between actors: kubeactor.codec of (args, kwargs)

# Kinds of call id, see CallId.
LOCAL: Final = 0
SESSION: Final = 1
CLIENT: Final = 2
DERIVED: Final = 3
MESSAGE: Final = 4
ALARM: Final = 5

# The retention of a root call whose derived results are kept for a day: under a client's key, or an alarm.
DAY: Final = 0

Reply = Callable[[bytes | ActorError], None]


class CallId(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What makes two frames the same call.

    kind     key                          slot            count
    LOCAL    16 random bytes              0               0        never repeated, so never recorded
    SESSION  8 bytes, an ingress's life   lowest free     uses     recorded in the row of the slot (RIFL, SOSP 2015)
    CLIENT   the client's Idempotency-Key 0               0        recorded for 24 h, whether it wrote or not
    DERIVED  16 bytes, see derived_id     0               0        recorded if it wrote, as long as its root may return
    MESSAGE  the sender: BINDING NUL id   counted tries   number   the receiver keeps the last number per sender
    ALARM    the instance: BINDING NUL id 0               generation  the id of an alarm's run, never on the wire
    """

    kind: int
    key: bytes
    slot: int = 0
    count: int = 0


def derived_id(parent: bytes, binding: str, identity: bytes, method: str, n: int) -> CallId:
    """The id of the n-th call of a method of an instance within one turn or request.

    Args:
        parent: the token of the call that makes it (`Call.token`).
        n: counts from 0 the calls with the same binding, identity and method.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (parent, binding.encode(), identity, method.encode()):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    digest.update(n.to_bytes(4, "big"))
    return CallId(DERIVED, digest.digest())


class Call:
    """A call of one method of one instance, from admission to its reply.

    Attributes:
        shard: of the identity; epoch: of the shard, as the sender knows it.
        body: the arguments in `format` (JSON or CODEC).
        deadline: on this process's monotonic clock, seconds.
        id: None only where no retry can follow and nothing below can be called twice.
        bucket: ten-minute bucket of the root call's start (unix time // 600), or DAY.
        chain: the instances (`BINDING NUL identity`) whose turns wait for this call, outermost first.
        root: the token of the root call, by which cycles are broken.
        repeat: whether the sender has sent this id before.
        internal: comes from an actor, a front door or the system: methods marked internal are allowed.
        target: the engine's record of the instance, once admitted; only the engine uses it.
        scope: who made it, in this process; None for a call from outside. Never on the wire.
        reply: called exactly once, with the result in `format` or the error.
    """

    __slots__ = (
        "binding",
        "body",
        "bucket",
        "chain",
        "deadline",
        "epoch",
        "format",
        "id",
        "identity",
        "internal",
        "method",
        "repeat",
        "reply",
        "root",
        "scope",
        "shard",
        "target",
    )

    def __init__(
        self,
        binding: str,
        identity: bytes,
        method: str,
        body: bytes,
        *,
        shard: int,
        deadline: float,
        reply: Reply,
        epoch: int = 0,
        format: int = JSON,
        id: CallId | None = None,
        bucket: int = DAY,
        chain: tuple[bytes, ...] = (),
        root: bytes = b"",
        repeat: bool = False,
        internal: bool = False,
        scope: Scope | None = None,
    ) -> None:
        self.binding = binding
        self.identity = identity
        self.method = method
        self.body = body
        self.shard = shard
        self.epoch = epoch
        self.deadline = deadline
        self.reply = reply
        self.format = format
        self.id = id
        self.bucket = bucket
        self.chain = chain
        self.root = root
        self.repeat = repeat
        self.internal = internal
        self.scope = scope
        self.target: Instance | None = None

    @property
    def instance(self) -> bytes:
        """`BINDING NUL identity`, as it stands in chains and in storage keys."""
        return b"%b\0%b" % (self.binding.encode(), self.identity)

    def token(self) -> bytes:
        """Bytes that are the same for every attempt of this call and for no other call."""
        if self.id is None:
            return b""
        scope = self.instance if self.id.kind == CLIENT else b""
        slot = 0 if self.id.kind == MESSAGE else self.id.slot  # a message's counts its tries
        return msgspec.msgpack.encode((self.id.kind, self.id.key, slot, self.id.count, self.shard, scope))

    def origin(self) -> bytes:
        """What the ids of the calls made inside are derived from, the same for every attempt.

        A router gives a root call that is made again another slot, so there it is the root's own token.
        """
        if self.root and self.id is not None and self.id.kind in (LOCAL, SESSION):
            return self.root
        return self.token()


class Dispatcher(Protocol):
    """Takes a call and sees to it that `call.reply` is called exactly once, at the latest at its deadline."""

    shards: int

    def submit(self, call: Call) -> None:
        """Accept the call; may reply before it returns."""
