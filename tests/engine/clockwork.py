"""What tests of alarms and messages share: time that passes when they say so, and waiting until a host is at rest."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.harness.engine import Machine

from kubeactor import clock
from kubeactor.limits import RETRY_MAX_S

LONGEST_S = RETRY_MAX_S * 1.25


def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let alarms and messages that wait for a time look at the virtual clock every 2 ms."""
    monkeypatch.setattr(clock, "WAKE_S", 0.002)


def now(m: Machine) -> datetime:
    """The time of the machine's wall clock."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=m.clock.wall_us)


async def pass_time(m: Machine, seconds: float) -> None:
    """Let time pass, then let what is due run to its end."""
    m.clock.advance(seconds)
    m.engine.alarms.fire()
    await rest(m)


async def rest(m: Machine) -> None:
    """Wait until no turn runs or waits, no alarm is due and all is synced."""
    engine = m.engine

    def busy() -> bool:
        due = [entry for entry in engine.alarms._heap if entry[0] <= m.clock.wall_us]
        return bool(
            engine.alarms._running
            or due
            or engine.suspended
            or engine.waiting_instances
            or engine.gate.written > engine.gate.synced
        )

    quiet = 0
    while quiet < 3:
        await asyncio.sleep(0.0005)
        quiet = 0 if busy() else quiet + 1


async def delivered(m: Machine) -> None:
    """Wait until no message is left to deliver, and let time pass as long as one waits for it."""
    while m.engine.outbox.pending_in_memory:
        await rest(m)
        await asyncio.sleep(0.003)
        if m.engine.outbox.pending_in_memory:
            m.clock.wall_us += round(LONGEST_S * 1e6)


def due_rows(m: Machine) -> int:
    """Due rows on disk."""
    prefixes = [number.to_bytes(2, "big") + b"t" for number in range(m.shards)]
    return sum(1 for prefix in prefixes for _ in m.store.rows(prefix, prefix[:2] + b"u"))
