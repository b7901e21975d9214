"""What a shop publishes of its tills: Protocols, types and errors, no actor."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Protocol
from uuid import UUID

import msgspec

from kubeactor import ActorId, Binding, Env, Problem


class Colour(Enum):
    RED = "red"


@dataclass
class Line:
    article: str
    price: Decimal
    colour: Colour = Colour.RED


class Receipt(msgspec.Struct):
    number: UUID
    at: datetime
    lines: list[Line]
    signature: bytes
    tags: set[int]
    notes: dict[int, str]
    valid: timedelta


class TillIsShort(Problem):
    """There is not that much in the till."""

    status = 409
    left: Decimal


class TillApi(Protocol):
    """A till, as other services see it."""

    async def add(self, n: int = 1) -> int: ...
    async def count(self) -> int: ...
    async def take(self, amount: Decimal) -> Decimal: ...
    async def print(self, receipt: Receipt) -> Receipt: ...
    async def follow(self, id: ActorId, *, deep: bool = False) -> ActorId | None: ...
    async def sum(self, first: int, /, *rest: int, **named: int) -> int: ...
    async def anything(self, value: Any) -> Any: ...
    async def text(self, size: int) -> str: ...
    async def wait(self, seconds: float) -> None: ...
    async def fail(self) -> None: ...
    async def hidden(self) -> None: ...
    async def missing(self) -> None: ...
    async def lies(self) -> int: ...


class Shop(Env):
    TILL: Binding[TillApi]
    CURRENCY: str
