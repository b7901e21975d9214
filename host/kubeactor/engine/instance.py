"""The host's record of one name: small, since there is one for each name that was touched lately.

It outlives the user's object: an object is dropped when its turn failed, the record stays until its last batch is on
disk, so that neither an eviction nor a replay can go round the gate.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from kubeactor.actor import Actor, ActorType
from kubeactor.call import Call, CallId
from kubeactor.engine.layout import DATA, instance_key

if TYPE_CHECKING:
    from kubeactor.engine.turn import Turn

__all__ = ["UNKNOWN", "Instance"]

UNKNOWN: Final[Any] = object()
CACHED_KEYS: Final = 32
CACHED_VALUE_BYTES: Final = 1024


class Instance:
    """One name.

    Attributes:
        key: `BINDING NUL identity`.
        data: what its rows of user keys begin with.
        actor: the user's object; None when it has to be activated.
        turn: the running turn.
        queue: calls that wait for it.
        batch: number of the last batch that its next turn could see.
        inflight: the calls with an id that can repeat, from admission to reply.
        alarm: the alarm's row as stored; None if there is none, UNKNOWN before it was read.
        cache: stored values by user key, None for an absent one; as committed.
        failures, not_before: of its activations in a row.
        draining: whether its queue is being worked off further up the stack.
        keyed: how many results under client keys are recorded, by day.
    """

    __slots__ = (
        "actor",
        "alarm",
        "batch",
        "cache",
        "data",
        "draining",
        "failures",
        "identity",
        "inflight",
        "key",
        "keyed",
        "not_before",
        "queue",
        "queue_bytes",
        "shard",
        "turn",
        "type",
        "used",
    )

    def __init__(self, type: ActorType, identity: bytes, shard: int) -> None:
        self.type = type
        self.identity = identity
        self.shard = shard
        self.key = b"%b\0%b" % (type.binding.encode(), identity)
        self.data = instance_key(shard, DATA, self.key) + b"\0"
        self.actor: Actor | None = None
        self.turn: Turn | None = None
        self.queue: deque[Call] | None = None
        self.queue_bytes = 0
        self.draining = False
        self.batch = 0
        self.used = 0.0
        self.inflight: dict[CallId, Call] | None = None
        self.alarm: Any = UNKNOWN
        self.cache: dict[bytes, bytes | None] | None = None
        self.failures = 0
        self.not_before = 0.0
        self.keyed: dict[int, int] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits here."""
        return self.turn is None and not self.queue and not self.inflight

    def remember(self, key: bytes, value: bytes | None) -> None:
        """Keep a committed value for the next read, if it is small."""
        if value is not None and len(value) > CACHED_VALUE_BYTES:
            if self.cache is not None:
                self.cache.pop(key, None)
            return
        if self.cache is None:
            self.cache = {}
        elif len(self.cache) >= CACHED_KEYS and key not in self.cache:
            self.cache.clear()
        self.cache[key] = value
