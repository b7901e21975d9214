"""The order proof: no reply left before the sync that covers what it tells.

A token is in the batch that stores it, so its bytes are in the WAL, and in every reply that a turn which saw it gives.
For each send with a token, the log of the shim must have a successful sync of that WAL which began after the write of
the batch had ended and which ended before the send began. Kernel and shim stamp all three on one clock.
"""

from __future__ import annotations

import bisect
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tests.faults.shim import Event, Kind, Shim

__all__ = ["Proof", "covered_at", "prove_order", "token_of"]

BLOCK: Final = 32 * 1024
HEADER: Final = 7
RECYCLED_HEADER: Final = 11
PLAIN_KINDS: Final = 4
TOKEN: Final = re.compile(rb"tok-[0-9a-f]{12}")


def token_of(number: int) -> str:
    """The n-th token."""
    return f"tok-{number:012x}"


@dataclass(frozen=True)
class Proof:
    """What was looked at: a proof over nothing proves nothing."""

    writes: int
    syncs: int
    replies: int


def prove_order(shim: Shim) -> Proof:
    """Check every reply that left a process with a WAL since the log began; an ingress has none, it hands on.

    Raises:
        AssertionError: naming the first token that left too early.
    """
    events = list(shim.events())
    first = _first_writes(events)
    syncs = [event for event in events if event.kind is Kind.SYNC]
    hosts = {event.process for event in events if event.kind is Kind.WRITE}
    replies = 0
    for send in events:
        if send.kind is Kind.SEND and send.process in hosts:
            for token in set(TOKEN.findall(send.text)):
                write = first.get(token)
                assert write is not None, f"{token!r} was told and is in no WAL"
                covered = covered_at(write, syncs)
                assert covered is not None, f"{token!r} was told and never synced"
                assert covered <= send.began_ns, (
                    f"{token!r} was told {covered - send.began_ns} ns before it was on disk"
                )
                replies += 1
    return Proof(len(first), len(syncs), replies)


def covered_at(write: Event, syncs: Iterable[Event]) -> int | None:
    """When the first sync that covers a write had returned; None if none does."""
    ends = [s.ended_ns for s in syncs if s.inode == write.inode and s.began_ns >= write.ended_ns]
    return min(ends, default=None)


def _first_writes(events: Iterable[Event]) -> dict[bytes, Event]:
    """The write that brought the last byte of each token into a WAL."""
    first: dict[bytes, Event] = {}
    for writes in _lives(events):
        text, places = _logical(writes[0].offset, b"".join(write.text for write in writes))
        for match in TOKEN.finditer(text):
            end = _physical(match.end() - 1, places)
            write = next((event for event in writes if event.offset <= end < event.offset + event.length), None)
            if write is not None and match[0] not in first:
                first[match[0]] = write
    return first


def _lives(events: Iterable[Event]) -> list[list[Event]]:
    """The writes to each file, in order; a recycled one that is written from its beginning again begins a new life."""
    lives: list[list[Event]] = []
    latest: dict[int, list[Event]] = {}
    for event in events:
        if event.kind is Kind.WRITE:
            life = latest.get(event.inode)
            if life is None or event.offset < life[-1].offset + life[-1].length:
                life = latest[event.inode] = []
                lives.append(life)
            life.append(event)
    return lives


def _logical(start: int, file: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """What a WAL's records hold, without their headers, and for each piece where it begins there and in the file.

    A record that crosses the end of a block of 32 KiB is cut in pieces, each with a header of its own: checksum (4),
    length (2), type (1), and for a recycled log its number (4). (RocksDB wiki, "Write Ahead Log File Format".)

    Args:
        start: where in the file these bytes begin, which is where a record does.
        file: the bytes.
    """
    text, places, at = bytearray(), [], start
    while at + HEADER <= start + len(file):
        left = BLOCK - at % BLOCK
        here = at - start
        size, kind = int.from_bytes(file[here + 4 : here + 6], "little"), file[here + 6]
        if left < HEADER or kind == 0:
            at += left
            continue
        header = HEADER if kind <= PLAIN_KINDS else RECYCLED_HEADER
        places.append((len(text), at + header))
        text += file[here + header : here + header + size]
        at += header + size
    return bytes(text), places


def _physical(logical: int, places: list[tuple[int, int]]) -> int:
    text_at, file_at = places[bisect.bisect_right(places, (logical, sys.maxsize)) - 1]
    return file_at + logical - text_at
