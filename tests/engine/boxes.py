"""Actors that send to each other, for the tests of messages."""

from __future__ import annotations

from typing import Any

from tests.harness.engine import Machine, on_engine, pauses

from kubeactor import Actor, ActorError, Binding, Env, Message, Problem


class Unwanted(Problem):
    status = 409
    limit: int


class Box(Actor):
    """Sends to other boxes and keeps what it gets, in order."""

    env: Street

    async def send(self, to: str, *texts: str) -> None:
        for text in texts:
            self.ctx.send(self.env.BOX.id_from_name(to).take, text)

    async def send_to_many(self, to: list[str], text: str) -> None:
        for name in to:
            self.ctx.send(self.env.BOX.id_from_name(name).take, text)

    async def send_and_raise(self, to: str, text: str) -> None:
        self.ctx.send(self.env.BOX.id_from_name(to).take, text)
        raise RuntimeError("after all")

    async def send_in_transaction(self, to: str) -> None:
        self.ctx.send(self.env.BOX.id_from_name(to).take, "before")
        try:
            async with self.ctx.storage.transaction():
                self.ctx.send(self.env.BOX.id_from_name(to).take, "inside")
                raise LookupError
        except LookupError:
            self.ctx.send(self.env.BOX.id_from_name(to).take, "after")

    async def send_gone(self, to: str) -> None:
        self.ctx.send(self.env.GONE.id_from_name(to).take, "x")

    async def ask_to_send(self, through: str, to: str, text: str) -> None:
        await self.env.BOX.id_from_name(through).send(to, text)

    async def set_mood(self, mood: str) -> None:
        self.ctx.storage.put("mood", mood)

    async def wipe(self, to: str = "", text: str = "") -> None:
        self.ctx.storage.delete_all()
        if to:
            self.ctx.send(self.env.BOX.id_from_name(to).take, text)

    async def hold(self, name: str) -> None:
        await pauses.here(name)

    async def take(self, text: str) -> None:
        mood = await self.ctx.storage.get("mood", "")
        pauses.log.append((self.ctx.name, text))
        if mood == "full":
            raise Unwanted("no room", limit=3)
        if mood == "broken" or (mood == "picky" and text == "bad"):
            raise RuntimeError("as planned")
        if mood == "refuses bad" and text == "bad":
            raise Unwanted("not that one", limit=3)
        if mood.startswith("slow"):
            await pauses.here("take")
        if mood == "slow and broken":
            raise RuntimeError("as planned")
        if mood == "slow and full":
            raise Unwanted("no room", limit=3)
        self.ctx.storage.put("got", [*await self.ctx.storage.get("got", []), text])

    async def pass_on(self, to: str, left: int) -> None:
        self.ctx.storage.put("passed", await self.ctx.storage.get("passed", 0) + 1)
        if left:
            self.ctx.send(self.env.BOX.id_from_name(to).pass_on, self.ctx.name, left - 1)

    async def passed(self) -> int:
        return await self.ctx.storage.get("passed", 0)

    async def got(self) -> list[str]:
        return await self.ctx.storage.get("got", [])

    async def returned(self) -> list[Any]:
        return await self.ctx.storage.get("returned", [])

    async def undelivered(self, message: Message, error: ActorError, /) -> None:
        mood = await self.ctx.storage.get("mood", "")
        limit = getattr(error, "limit", None)
        entry = [message.receiver, message.method, *message.args, message.number, message.attempts, error.name, limit]
        self.ctx.storage.put("returned", [*await self.ctx.storage.get("returned", []), entry])
        if mood == "heartless":
            raise RuntimeError("as planned")


class Mute(Actor):
    """Sends, and has no `undelivered`."""

    env: Street

    async def send(self, to: str, *texts: str) -> None:
        for text in texts:
            self.ctx.send(self.env.BOX.id_from_name(to).take, text)

    async def wipe(self) -> None:
        self.ctx.storage.delete_all()


class Gone(Actor):
    """Its binding is taken away."""

    async def take(self, text: str) -> None:
        pauses.log.append(text)


class Street(Env):
    BOX: Binding[Box]
    MUTE: Binding[Mute]
    GONE: Binding[Gone]


def street(**options: Any) -> Any:
    return on_engine(Box, Mute, Gone, env_class=Street, **options)


def rows(m: Machine, kind: bytes) -> int:
    """Rows of that kind on disk: b"o" of messages, b"p" of what is parked."""
    prefixes = [number.to_bytes(2, "big") + kind for number in range(m.shards)]
    return sum(1 for prefix in prefixes for _ in m.store.rows(prefix, prefix + b"\xff"))


def run(tmp_path: Any, story: Any, **options: Any) -> None:
    pauses.reset()
    machine = Machine(tmp_path, Box, Mute, Gone, env_class=Street, **options)
    machine.run(story(machine))
