"""Bindings and configuration."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.requests import Request

from kubeactor import Actor, Binding, Env, Secret, id_of
from kubeactor.actor import ActorType
from kubeactor.env import STATE_KEY, make_env


class Account(Actor):
    async def total(self) -> int:
        return 0


class Bank(Env):
    ACCOUNT: Binding[Account]
    FEE: int = 3
    RATE: float
    DEBUG: bool = False
    TOKEN: Secret = Secret("none")
    NAME: str = "bank"
    lower_case = 1


TYPES = {"ACCOUNT": ActorType("ACCOUNT", Account)}


def made(**environ: str) -> Bank:
    env = make_env(Bank, TYPES, lambda: None, environ)  # type: ignore[arg-type,return-value]
    assert isinstance(env, Bank)
    return env


def test_configuration_is_read_and_converted() -> None:
    env = made(RATE="0.5", FEE="7", DEBUG="true", TOKEN="abc", NAME="x")
    assert (env.FEE, env.RATE, env.DEBUG, env.TOKEN, env.NAME) == (7, 0.5, True, "abc", "x")
    assert isinstance(env.TOKEN, Secret)
    assert "abc" not in repr(env.TOKEN)
    assert (made(RATE="1").FEE, made(RATE="1").NAME) == (3, "bank")


def test_all_that_is_missing_or_wrong_is_told_at_once() -> None:
    class Wrong(Bank):
        OTHER: Binding[Account]

    with pytest.raises(ValueError, match="Wrong") as caught:
        make_env(Wrong, TYPES, lambda: None, {"FEE": "three"})  # type: ignore[arg-type,return-value]
    text = str(caught.value)
    assert "FEE is not of its type" in text
    assert "RATE is not set" in text
    assert "OTHER is declared as a binding" in text


def test_bindings_give_stubs_by_name_id_or_text() -> None:
    account = made(RATE="1").ACCOUNT
    alice = account.id_from_name("alice")
    assert alice == account.idFromName("alice") == account.get_by_name("alice") == account.get("ACCOUNT/alice")
    assert account.get(id_of(alice)) == alice
    assert hash(alice) == hash(account.id_from_name("alice"))
    assert alice != account.id_from_name("bob")
    unique = account.new_unique_id()
    assert account.get(str(id_of(unique))) == unique
    assert "Account" in repr(account)


def test_ids_of_other_bindings_and_bad_names_are_refused() -> None:
    account = made(RATE="1").ACCOUNT
    for text in ("CART/alice", "alice"):
        with pytest.raises(ValueError, match=r"."):
            account.get(text)
    with pytest.raises(ValueError, match="at least one byte"):
        account.id_from_name("")


def test_a_name_that_is_not_bound_is_an_error_that_lists_what_is() -> None:
    env: Any = made(RATE="1")
    with pytest.raises(AttributeError, match="no 'ACOUNT'; bound are: ACCOUNT"):
        _ = env.ACOUNT


def test_an_env_without_a_class_of_its_own_has_the_bindings() -> None:
    env: Any = make_env(Env, TYPES, lambda: None, {})  # type: ignore[arg-type,return-value]
    assert "ACCOUNT/alice" in repr(env.ACCOUNT.id_from_name("alice"))


def test_of_gives_the_env_of_a_request_and_says_when_there_is_none() -> None:
    env = made(RATE="1")
    assert Bank.of(Request({"type": "http", "state": {STATE_KEY: env}})) is env
    with pytest.raises(TypeError, match="behind a kubeactor front door"):
        Bank.of(Request({"type": "http"}))


def test_the_default_lifespan_does_nothing() -> None:
    async def enter() -> None:
        async with made(RATE="1").lifespan():
            pass

    asyncio.run(enter())


@dataclass
class Unused:
    """Hints beside bindings that are no configuration are left alone."""


class WithHelper(Env):
    helper: Unused


def test_lower_case_attributes_are_no_configuration() -> None:
    make_env(WithHelper, {}, lambda: None, {})  # type: ignore[arg-type,return-value]


class Unhinted(Env):
    FEE = 3
    RATE = 0.5
    NAME = "bank"
    LOUD = False
    ITEMS = ()  # no scalar: it is the class's own
    lower = 1


def test_a_default_without_a_hint_tells_the_type() -> None:
    env: Any = make_env(Unhinted, {}, no_dispatcher, {"FEE": "7", "LOUD": "true", "ITEMS": "x", "lower": "2"})
    assert (env.FEE, env.RATE, env.NAME, env.LOUD, env.ITEMS, env.lower) == (7, 0.5, "bank", True, (), 1)
    with pytest.raises(ValueError, match="FEE is not of its type"):
        make_env(Unhinted, {}, no_dispatcher, {"FEE": "much"})


class Unresolved(Env):
    FEE: Nowhere  # type: ignore[name-defined]  # noqa: F821


def test_a_hint_that_cannot_be_resolved_is_told() -> None:
    with pytest.raises(ValueError, match="TYPE_CHECKING"):
        make_env(Unresolved, {}, no_dispatcher, {})


def no_dispatcher() -> Any:
    raise AssertionError("no call is made")
