"""Scheduled reports: a counter that mails what it counted, every day, to those who asked for it.

kubeactor dev
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from msgspec import Meta

from kubeactor import Actor, AlarmInfo, Binding, Env, Key, Problem

Seconds = Annotated[float, Meta(ge=1, le=366 * 86_400)]
MAILS_MAX = 100


@dataclass
class Report:
    """What happened until then."""

    topic: str
    until: datetime
    events: dict[str, int]


EVENTS = Key("events", dict[str, int], {})
EVERY = Key("every", timedelta)
READERS = Key("readers", list[str], [])
MAILS = Key("mails", list[Report], [])


class TooManyReaders(Problem):
    """A report goes to a hundred readers at most."""

    status = 409


class Topic(Actor):
    """Counts events, and sends them as a report at its time."""

    env: Office

    async def count(self, event: str) -> int:
        events = await self.ctx.storage.get(EVENTS)
        events[event] = events.get(event, 0) + 1
        await self.ctx.storage.put(EVENTS, events)
        return events[event]

    async def subscribe(self, reader: str) -> None:
        readers = await self.ctx.storage.get(READERS)
        if len(readers) >= 100:
            raise TooManyReaders("a hundred readers get it already")
        await self.ctx.storage.put(READERS, sorted({*readers, reader}))

    async def schedule(self, every_s: Seconds) -> datetime:
        """Send a report every so often; when the first one leaves."""
        every = timedelta(seconds=every_s)
        await self.ctx.storage.put(EVERY, every)
        await self.ctx.storage.set_alarm(every)
        return self.ctx.now() + every

    async def alarm(self, info: AlarmInfo) -> None:
        """Report, messages, counters at zero and the next alarm are one turn: all of it or nothing."""
        report = Report(self.ctx.name, info.scheduled_time, await self.ctx.storage.get(EVENTS))
        for reader in await self.ctx.storage.get(READERS):
            self.ctx.send(self.env.MAILBOX.id_from_name(reader).deliver, report)
        await self.ctx.storage.delete("events")
        if every := await self.ctx.storage.get(EVERY):
            await self.ctx.storage.set_alarm(info.scheduled_time + every)


class Mailbox(Actor):
    """Keeps the last reports of one reader."""

    async def deliver(self, report: Report) -> None:
        mails = await self.ctx.storage.get(MAILS)
        await self.ctx.storage.put(MAILS, [*mails, report][-MAILS_MAX:])

    async def mails(self) -> list[Report]:
        return await self.ctx.storage.get(MAILS)


class Office(Env):
    TOPIC: Binding[Topic]
    MAILBOX: Binding[Mailbox]
