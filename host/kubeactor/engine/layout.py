"""How rows are named in RocksDB.

A shard is one contiguous range: every key of it begins with its number (2 bytes, big-endian). Then comes one byte for
the kind of row. Bindings and identities hold no NUL, so `BINDING NUL identity NUL` is a prefix of one instance only.

kind  rest of the key                       value
d     instance NUL user key                 the user's encoded value
a     instance                              Alarm row (alarms.py)
t     due time us (8) + instance            empty; the alarms of a shard in due order
o     instance NUL number (8)               Message row (outbox.py)
n     instance                              the last message number of this sender (8)
p     instance NUL number (8)               parked: under 0 the alarm (empty, its row stays), else a Message row
i     instance NUL sender instance          the last number applied from that sender, and how it ended
k     day (4) + instance NUL key            result recorded for 24 h under a client's key
h     day (4) + digest (16)                 result recorded for 24 h under a derived id
r     bucket (4) + digest (16)              result under a derived id, for as long as its root call may return
s     session (8) + slot (4)                result under an ingress's own id
!     nothing                               what the built-in probe wrote last (check.py)
"""

from __future__ import annotations

from typing import Final

DATA: Final = b"d"
ALARM: Final = b"a"
DUE: Final = b"t"
OUTBOX: Final = b"o"
NUMBER: Final = b"n"
PARKED: Final = b"p"
INBOX: Final = b"i"
KEYED: Final = b"k"
DERIVED_DAY: Final = b"h"
DERIVED_BUCKET: Final = b"r"
SESSION: Final = b"s"
CHECK: Final = b"!"

# No shard number comes near it: a namespace has at most 4,096.
META: Final = b"\xff\xff"
VOLUME: Final = META + b"volume"
EPOCH: Final = META + b"epoch"
KEYED_BYTES: Final = META + b"keyed"
FILLER: Final = META + b"filler"  # never there: what WAL files are laid out with


def shard_prefix(shard: int, kind: bytes = b"") -> bytes:
    """What all keys of a shard, or of one kind in it, begin with."""
    return shard.to_bytes(2, "big") + kind


def instance_key(shard: int, kind: bytes, instance: bytes) -> bytes:
    """The row of an instance for the kinds that have one."""
    return b"%b%b%b" % (shard.to_bytes(2, "big"), kind, instance)


def due_key(shard: int, due_us: int, instance: bytes) -> bytes:
    """The row that puts an instance's alarm in due order."""
    return b"%b%b%b%b" % (shard.to_bytes(2, "big"), DUE, due_us.to_bytes(8, "big"), instance)


def numbered_key(shard: int, kind: bytes, instance: bytes, number: int) -> bytes:
    """The row of a number of an instance, for messages and what is parked."""
    return b"%b%b%b\0%b" % (shard.to_bytes(2, "big"), kind, instance, number.to_bytes(8, "big"))


def epoch_key(shard: int) -> bytes:
    """The row of a shard's epoch and state on this volume."""
    return EPOCH + shard.to_bytes(2, "big")


def range_end(prefix: bytes) -> bytes:
    """The first key after all that begin with the prefix."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1])
