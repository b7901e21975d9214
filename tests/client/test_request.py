"""Addresses and paths; what `Env` classes a client takes. Without a network."""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client.app.till_api import Shop

from kubeactor import Actor, ActorId, Binding, Env, id_of, method
from kubeactor.client import connect, connect_sync
from kubeactor.client.request import path_of
from kubeactor.ids import NAME_BYTES, identity_of_name
from kubeactor.ingress.requests import Target, target_of

names = st.text(min_size=1, max_size=NAME_BYTES // 4).filter(lambda text: "\0" not in text)


@given(names)
@pytest.mark.parametrize("base", ["http://h:1", "https://h/a/b"])
def test_a_name_survives_httpx_and_the_ingress_reads_the_same_one(base: str, name: str) -> None:
    instance = ActorId("TILL", identity_of_name(name))
    raw = httpx.URL(f"{base}{path_of(instance)}/add").raw_path
    own = raw[raw.index(b"/v1/") :]
    assert target_of(own) == Target("TILL", instance.identity, "add")
    assert unquote_to_bytes(raw.split(b"/")[-2]) == instance.identity


def test_a_unique_id_has_a_path_of_its_own_kind() -> None:
    stub = connect_sync(Shop, "http://h").env.TILL.new_unique_id()
    assert target_of(f"{path_of(id_of(stub))}/add".encode()).identity == id_of(stub).identity


@pytest.mark.parametrize(
    "url",
    ["bank-api:8081", "bank-api", "", "ftp://h", "http://", "http://h?x=1", "http://h/#x", "/v1", "http://u:p@h"],
)
def test_an_address_that_can_not_be_one_is_refused_at_once(url: str) -> None:
    for make in (connect, connect_sync):
        with pytest.raises(ValueError, match=r"address"):
            make(Shop, url)


@pytest.mark.parametrize("token", ["", "a b", "a\n", "ü"])
def test_a_token_that_can_not_be_sent_is_refused_at_once(token: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        connect(Shop, "http://h", token=token)


def test_a_time_limit_out_of_bounds_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="at most 300 seconds"):
        connect(Shop, "http://h", timeout_s=301)


class Account(Actor):
    async def debit(self, amount: int) -> int:
        return amount

    @method(aliases=["old_debit"])
    async def new_debit(self) -> None: ...


class Plain(Protocol):
    def debit(self, amount: int) -> int: ...


class Nothing(Protocol):
    name: str


class Unbound(Env):
    FEE: int


class Bare(Env):
    ACCOUNT: Binding  # type: ignore[type-arg]


class Lower(Env):
    account: Binding[Account]


class OfPlain(Env):
    ACCOUNT: Binding[Plain]


class OfNothing(Env):
    ACCOUNT: Binding[Nothing]


class OfAny(Env):
    ACCOUNT: Binding[Any]


class OfUnion(Env):
    ACCOUNT: Binding[Account | None]


class Unresolved(Env):
    ACCOUNT: Binding[Missing]  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("env", "text"),
    [
        (Account, "takes a subclass of kubeactor.Env"),
        (Unbound, "write `ACCOUNT: Binding"),
        (Bare, r"write Binding\[Account\]"),
        (Lower, "'account' is no binding name"),
        (OfPlain, "Plain.debit is a plain function: write `async def debit`"),
        (OfNothing, "Nothing has no public `async def` method"),
        (OfAny, "Any has no public `async def` method"),
        (OfUnion, "an actor class or a Protocol"),
        (Unresolved, "the type Missing can't be resolved; move its import out of `if TYPE_CHECKING`"),
    ],
)
def test_an_env_that_can_not_be_called_is_refused_with_what_to_write(env: Any, text: str) -> None:
    for make in (connect, connect_sync):
        with pytest.raises(TypeError, match=text):
            make(env, "http://h")


class Bank(Env):
    ACCOUNT: Binding[Account]


def test_an_actor_class_is_bound_with_its_methods_and_their_earlier_names() -> None:
    stub: Any = connect_sync(Bank, "http://h").env.ACCOUNT.id_from_name("a")
    assert sorted(type(stub)._type.methods) == ["debit", "new_debit", "old_debit"]
    assert not hasattr(stub, "alarm")


def test_connecting_again_makes_the_classes_of_stubs_only_once() -> None:
    one, other = (connect_sync(Bank, "http://h").env.ACCOUNT.id_from_name("a") for _ in range(2))
    assert type(one) is type(other)
