"""What of a class can be called, and what is refused when it is loaded."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kubeactor import Actor, ActorPrivateMethodError, ActorUnknownMethodError, AlarmInfo, method
from kubeactor.actor import ActorType


class Mixin:
    async def mixed_in(self) -> None: ...

    def helper(self) -> int:
        return 1


class Base(Actor):
    async def inherited(self) -> str:
        return "base"

    async def overridden(self) -> str:
        return "base"

    async def hidden(self) -> None: ...


class Full(Mixin, Base):
    LIMIT = 5
    hidden = None  # type: ignore[assignment]

    async def own(self) -> None: ...

    async def overridden(self) -> str:
        return "own"

    async def _private(self) -> None: ...

    async def alarm(self, info: AlarmInfo, /) -> None: ...

    @property
    def size(self) -> int:
        return 1

    @staticmethod
    def static() -> int:
        return 1

    @classmethod
    def build(cls) -> int:
        return 1

    @method(internal=True, timeout_s=5, aliases=["old_name", "older"])
    async def inside(self) -> None: ...


def test_public_coroutine_methods_of_the_class_its_bases_and_mixins_are_callable() -> None:
    actor_type = ActorType("FULL", Full)
    assert set(actor_type.methods) == {"mixed_in", "inherited", "overridden", "own", "inside", "old_name", "older"}
    assert actor_type.methods["overridden"].function is Full.overridden
    assert (actor_type.has_alarm, actor_type.has_activate, actor_type.has_undelivered) == (True, False, False)


def test_aliases_reach_the_method_under_its_own_name() -> None:
    methods = ActorType("FULL", Full).methods
    assert methods["old_name"] is methods["older"] is methods["inside"]
    assert (methods["inside"].name, methods["inside"].timeout_s, methods["inside"].internal) == ("inside", 5, True)


@pytest.mark.parametrize(
    "name", ["_private", "__init__", "alarm", "fetch", "activate", "ctx", "size", "static", "LIMIT"]
)
def test_what_is_no_public_coroutine_method_is_unknown(name: str) -> None:
    with pytest.raises(ActorUnknownMethodError):
        ActorType("FULL", Full).method(name, internal=True)


def test_an_internal_method_is_private_from_outside_only() -> None:
    actor_type = ActorType("FULL", Full)
    assert actor_type.method("inside", internal=True).name == "inside"
    with pytest.raises(ActorPrivateMethodError):
        actor_type.method("old_name", internal=False)


def test_the_nearest_method_is_told_and_an_internal_one_to_actors_only() -> None:
    actor_type = ActorType("FULL", Full)
    with pytest.raises(ActorUnknownMethodError, match="'insyde'; did you mean 'inside'"):
        actor_type.method("insyde", internal=True)
    with pytest.raises(ActorUnknownMethodError, match=r"'insyde'$"):
        actor_type.method("insyde", internal=False)


class PlainFunction(Actor):
    def work(self) -> None: ...


class Generates(Actor):
    async def work(self) -> AsyncIterator[int]:
        yield 1


class PlainHook(Actor):
    def activate(self) -> None: ...  # type: ignore[override]


class AlarmWithoutInfo(Actor):
    async def alarm(self) -> None: ...  # type: ignore[override]


class UndeliveredWithMore(Actor):
    async def undelivered(self, message: Any, error: Any, more: int) -> None: ...  # type: ignore[override]


class HidesContext(Actor):
    async def ctx(self) -> None: ...  # type: ignore[override,assignment]


class Wrapped(Actor):
    work = functools.partial(print)


class TwoNames(Actor):
    @method(aliases=["b"])
    async def a(self) -> None: ...

    async def b(self) -> None: ...


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (PlainFunction, "write `async def work`"),
        (Generates, "is an async generator"),
        (PlainHook, r"write `async def activate\(self\)`"),
        (AlarmWithoutInfo, r"write `async def alarm\(self, info\)`"),
        (UndeliveredWithMore, r"write `async def undelivered\(self, message, error\)`"),
        (HidesContext, "would hide what the host puts there"),
        (Wrapped, "wraps something that is no coroutine method"),
        (TwoNames, "two methods are reached as 'b'"),
        (Actor, "is not a subclass"),
        (int, r"is not a subclass of kubeactor.Actor: write `class int\(Actor\)`"),
        (len, "is not a subclass"),
    ],
)
def test_a_class_that_cannot_be_served_is_refused_with_what_to_write(cls: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        ActorType("X", cls)


@pytest.mark.parametrize(
    "options", [{"timeout_s": 0}, {"timeout_s": 301}, {"aliases": ["_x"]}, {"aliases": ["alarm"]}, {"aliases": ["a b"]}]
)
def test_options_out_of_range_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        method(**options)
