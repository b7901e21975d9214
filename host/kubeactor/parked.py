"""Parked alarms and messages as people and machines see them: over HTTP, in frames, on the command line.

`GET /v1/parked` answers a JSON array of `Item`; `POST /v1/parked/retry` takes a `Retry` and answers `Retried`.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

__all__ = ["ALARM", "MESSAGE", "PATH", "Item", "Keeper", "Keepers", "Retried", "Retry"]

ALARM: Final = "alarm"
MESSAGE: Final = "message"
PATH: Final = "/v1/parked"


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
    """Which one to try again; an alarm needs no number."""

    kind: str
    instance: str
    number: int = 0


class Retried(msgspec.Struct, frozen=True):
    """Whether there was such a one, which is tried again now."""

    retried: bool


class Keeper(Protocol):
    """What a host has parked."""

    def items(self) -> list[Item]:
        """At most 500 of them."""

    def retry(self, retry: Retry) -> bool:
        """Try one again, a message under a new number; False when there is none such.

        Raises:
            ActorArgumentError: when the instance is no actor id.
            ActorOverloadedError: when the disk is behind.
        """


class Keepers(Protocol):
    """What all hosts have parked."""

    async def list_parked(self) -> list[Item]:
        """At most 500 of each host.

        Raises:
            ActorShardUnavailableError: when a host can't be reached.
        """

    async def retry_parked(self, retry: Retry) -> bool:
        """Try one again; False when there is none such.

        Raises:
            ActorError: what its host answered; ActorShardUnavailableError when it can't be reached.
        """
