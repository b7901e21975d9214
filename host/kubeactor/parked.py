"""Parked alarms and messages as people and machines see them; `kubeactor parked` and `kubeactor retry`."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["ALARM", "MESSAGE", "Item", "Retry"]

ALARM: Final = "alarm"
MESSAGE: Final = "message"


class Item(msgspec.Struct, frozen=True):
    """One of them.

    Attributes:
        kind: "alarm" or "message".
        instance: whose alarm, or who sent the message: `ACCOUNT/alice`.
        number: of the message; 0 for an alarm.
        attempts: counted ones.
        error: of the last attempt.
        since: when it was parked, seconds since 1970.
        receiver, method: of a message.
    """

    kind: str
    instance: str
    number: int
    attempts: int
    error: str
    since: float
    receiver: str = ""
    method: str = ""


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which one to try again."""

    kind: str
    instance: str
    number: int = 0
