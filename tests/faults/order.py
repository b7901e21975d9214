"""The order proof: no reply left before the sync that covers what it tells.

A token is in the batch that stores it, so its bytes are in the WAL, and in every reply that a turn which saw it gives.
For each send with a token, the log of the shim must have a successful sync of that WAL which began after the write of
the batch had ended and which ended before the send began. Kernel and shim stamp all three on one clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tests.faults.shim import Event, Kind, Shim

__all__ = ["Proof", "covered_at", "prove_order", "token_of"]

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
    first = _first_writes(shim, events)
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


def _first_writes(shim: Shim, events: Iterable[Event]) -> dict[bytes, Event]:
    first: dict[bytes, Event] = {}
    for event in events:
        if event.kind is Kind.WRITE:
            for token in TOKEN.findall(shim.bytes_of(event)):
                first.setdefault(token, event)
    return first
