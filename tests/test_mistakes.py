"""The first mistakes of a newcomer: each is made here, and answered by the sentence of docs/mistakes.md."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.harness.engine import Machine

from kubeactor import Actor, Binding, Env
from kubeactor.actor import ActorType
from kubeactor.engine import watched
from kubeactor.engine.watched import Answered, WatchedEngine
from kubeactor.env import make_env

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "mistakes.md").read_text()
ANSWERS = {
    mistake: answer.replace("\\", "") for mistake, answer in re.findall(r"^\| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)
}
ANSWERS = {mistake: answer for mistake, answer in ANSWERS.items() if answer not in ("answer", "---")}


def answered(mistake: str, said: str) -> None:
    """It is the page's sentence, and one."""
    assert ANSWERS[mistake] in said, said
    assert "\n" not in said


# When the class is loaded


def plain_def(actor: type[Any]) -> type[Any]:
    class Account(actor):  # type: ignore[misc]
        def debit(self, amount: int) -> None: ...

    return Account


def generator(actor: type[Any]) -> type[Any]:
    class Account(actor):  # type: ignore[misc]
        async def items(self) -> Any:
            yield 1

    return Account


def init_with_arguments(actor: type[Any]) -> type[Any]:
    class Account(actor):  # type: ignore[misc]
        def __init__(self, owner: str) -> None: ...

    return Account


def type_checking(actor: type[Any]) -> type[Any]:
    class Account(actor):  # type: ignore[misc]
        async def debit(self, amount: Amount) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    return Account


def unchecked_type(actor: type[Any]) -> type[Any]:
    class Account(actor):  # type: ignore[misc]
        async def debit(self, amount: complex) -> None: ...

    return Account


LOADS = {
    "a public method without `async`": plain_def,
    "a method that yields": generator,
    "`__init__` with arguments": init_with_arguments,
    "a type that is imported under `TYPE_CHECKING` only": type_checking,
    "a type that can't be checked": unchecked_type,
}


@pytest.mark.parametrize("mistake", LOADS)
def test_at_load(mistake: str) -> None:
    cls = LOADS[mistake](Actor)
    cls.__qualname__ = "Account"
    with pytest.raises(TypeError) as caught:
        ActorType("ACCOUNT", cls)
    answered(mistake, re.sub(r"\w+\.<locals>\.", "", str(caught.value)))


def test_a_missing_variable() -> None:
    class Bank(Env):
        FEE: int

    Bank.__annotations__["FEE"] = int
    with pytest.raises(ValueError, match="FEE") as caught:
        make_env(Bank, {}, lambda: None, {})  # type: ignore[arg-type,return-value]
    answered("an environment variable that is missing", re.sub(r"\w+\.<locals>\.", "", str(caught.value)))


# When it is called


@dataclass
class Note:
    text: str


class Quiet(Actor):
    async def later(self) -> None:
        self.ctx.storage.set_alarm(timedelta(seconds=1))


class Account(Actor):
    """Makes one mistake a method."""

    env: Bank

    def __init__(self) -> None:
        self.total = 0
        self._seen = 0

    @property
    def other(self) -> Account:
        return self.env.ACCOUNT.id_from_name("bob")

    async def debit(self, amount: int) -> int:
        return amount

    async def unawaited_stub(self) -> None:
        self.other.debit(1)

    async def unawaited_own(self) -> Any:
        call: Any = self.debit(1)
        try:
            return call + 1
        finally:
            call.close()

    async def forgot(self) -> Any:
        return self.other.debit(1)

    async def absent(self) -> Any:
        return await self.ctx.storage.get("nothing") + 1

    async def misspelt(self) -> Any:
        stub: Any = self.other
        return await stub.debitt(1)

    async def field(self) -> Any:
        return str(self.other.ctx)

    async def counted(self) -> Any:
        name: Any = 17
        return await self.env.ACCOUNT.id_from_name(name).debit(1)

    async def stub(self) -> None:
        self.ctx.storage.put("friend", self.other)

    async def note(self) -> None:
        self.ctx.storage.put("note", Note("text"))

    async def number(self) -> None:
        self.ctx.storage.set_alarm(60)  # type: ignore[arg-type]

    async def naive(self) -> None:
        self.ctx.storage.set_alarm(datetime(2030, 1, 1))

    async def by_hand(self) -> Any:
        return await Account().absent()

    async def send_call(self) -> None:
        call: Any = self.other.debit(1)
        try:
            self.ctx.send(call)
        finally:
            await call

    async def block(self) -> None:
        time.sleep(0.02)

    async def count(self) -> None:
        self.total += 1

    async def cache(self) -> None:
        self._seen += 1

    async def store(self) -> None:
        self.total += 1
        self.ctx.storage.put("total", self.total)

    async def alarm(self, info: Any) -> None: ...


class Bank(Env):
    ACCOUNT: Binding[Account]


CALLS: dict[str, tuple[Any, ...]] = {
    "a body of the wrong type": ("ACCOUNT", "debit", "30"),
    "a wrong name of a method": ("ACCOUNT", "debitt"),
    "a number as the name of an instance": ("ACCOUNT", "counted"),
    "a call of another actor without `await`": ("ACCOUNT", "unawaited_stub"),
    "any other forgotten `await`": ("ACCOUNT", "unawaited_own"),
    "no default for a key that is absent": ("ACCOUNT", "absent"),
    "a misspelt method of a stub": ("ACCOUNT", "misspelt"),
    "a field of a stub": ("ACCOUNT", "field"),
    "a stub as argument or value": ("ACCOUNT", "stub"),
    "an object that has no stored form": ("ACCOUNT", "note"),
    "`set_alarm` with a number": ("ACCOUNT", "number"),
    "`set_alarm` with a naive datetime": ("ACCOUNT", "naive"),
    "`set_alarm` without `alarm`": ("QUIET", "later"),
    "an object made by hand": ("ACCOUNT", "by_hand"),
    "`ctx.send` of a call instead of a method": ("ACCOUNT", "send_call"),
}


@pytest.mark.parametrize("mistake", CALLS)
def test_at_the_call(tmp_path: Path, mistake: str) -> None:
    machine = Machine(tmp_path, Account, Quiet, env_class=Bank)
    binding, method, *args = CALLS[mistake]

    async def main() -> None:
        answered(mistake, (await machine.error(binding, "alice", method, *args)).detail)

    machine.run(main())


def test_a_wrong_name_of_an_argument() -> None:
    arguments = ActorType("ACCOUNT", Account).methods["debit"].arguments
    with pytest.raises(Exception, match="amont") as caught:
        arguments.decode(b'{"amont": 30}', 0)
    answered("a wrong name of an argument", str(caught.value))


def test_a_result_that_was_not_awaited() -> None:
    arguments = ActorType("ACCOUNT", Account).methods["forgot"].arguments
    call = Account().debit(1)
    with pytest.raises(Exception, match="result") as caught:
        arguments.encode_result(call, 0)
    call.close()
    answered("a result that was not awaited", str(caught.value))


# What raises nothing


class Silent:
    """A watcher that wants to know and keeps nothing."""

    def wants(self) -> bool:
        return True

    def answered(self, answered: Answered) -> None: ...

    def close(self) -> None: ...


class Watched(Machine):
    engine_class = WatchedEngine

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Account, env_class=Bank)
        self.prepare = lambda engine: setattr(engine, "watcher", Silent())


def test_a_call_that_blocks_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watched, "BLOCKED_S", 0.02)
    machine = Watched(tmp_path)

    async def main() -> None:
        await machine.call("ACCOUNT", "alice", "block")
        await machine.call("ACCOUNT", "bob", "block")

    machine.run(main())
    told = [message for message in warnings(caplog) if "block" in message]
    assert len(told) == 1
    answered("a call that blocks, such as `time.sleep`", told[0])


def test_a_field_that_was_meant_to_last_is_told_once_and_a_cache_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Watched(tmp_path)

    async def main() -> None:
        await machine.call("ACCOUNT", "alice", "cache")
        await machine.call("ACCOUNT", "alice", "store")
        assert not warnings(caplog)
        await machine.call("ACCOUNT", "alice", "count")
        await machine.call("ACCOUNT", "bob", "count")

    machine.run(main())
    assert len(warnings(caplog)) == 1
    answered("a field that was meant to last", warnings(caplog)[0])


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "kubeactor.dev"]


def test_every_mistake_of_the_page_is_made_here() -> None:
    named = re.findall(r'^    answered\("(.+?)", ', Path(__file__).read_text(), re.MULTILINE)
    assert {*named, *LOADS, *CALLS} == set(ANSWERS)
