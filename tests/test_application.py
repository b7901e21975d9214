"""What a user's code declares, and what is said when it can't be served."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeactor.application import Application, UserCodeError, upper_snake

BANK = """
from __future__ import annotations
from kubeactor import Actor, Binding, Env

class Account(Actor):
    env: "Bank"
    async def balance(self) -> int: return 0

class ShoppingCart(Actor):
    async def items(self) -> list[int]: return []

class Bank(Env):
    ACCOUNT: Binding[Account]
    FEE: int

async def fetch(request, env): ...
class app:
    async def __call__(self, scope, receive, send): ...
asgi = app()
number = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        made.append(name)

    write("ka_bank", BANK)
    yield write
    for name in made:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("module")
def test_classes_are_bound_under_their_names_or_the_given_one() -> None:
    application = Application.load(["ka_bank:Account", "CART=ka_bank:ShoppingCart"], "ka_bank:fetch")
    assert set(application.bindings) == {"ACCOUNT", "CART"}
    assert application.env_class.__name__ == "Bank"
    assert application.front_door_is_fetch
    assert not Application.load(["ka_bank:Account"], "ka_bank:asgi").front_door_is_fetch
    assert set(Application.load(["ka_bank:ShoppingCart"]).bindings) == {"SHOPPING_CART"}
    assert any(path.name == "ka_bank.py" for path in application.source_files())


@pytest.mark.usefixtures("module")
def test_the_env_is_made_with_all_that_is_configured() -> None:
    application = Application.load(["ka_bank:Account"])
    env: Any = application.make_env(lambda: None, {"FEE": "3"})  # type: ignore[arg-type,return-value]
    assert env.FEE == 3
    with pytest.raises(UserCodeError, match="FEE is not set"):
        application.make_env(lambda: None, {})  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("actors", "front_door", "said"),
    [
        (["ka_bank"], None, "not of the form module:name"),
        (["ka_missing:Account"], None, "no module 'ka_missing'"),
        (["ka_bank:Acount"], None, "did you mean 'Account'"),
        (["ka_missing.py:Account"], None, "did you mean 'ka_missing'"),
        (["ka_bank:number"], None, "ka_bank:number is no class: name one that derives from kubeactor.Actor"),
        (["X=ka_bank:number"], None, "not a subclass"),
        (["bad=ka_bank:Account"], None, "no binding name"),
        (["ka_bank:Account", "ACCOUNT=ka_bank:ShoppingCart"], None, "two classes are bound as ACCOUNT"),
        (["ka_bank:Account"], "ka_bank:number", "neither an ASGI app nor"),
        (["ka_raises:Account"], None, "ka_raises can't be imported: ValueError: at import"),
        (["ka_imports:Account"], None, "ka_imports can't be imported: No module named 'ka_nothing'"),
        (["ka_plain:Account"], None, "write `async def balance`"),
        (["ka_hint:Account"], None, "TYPE_CHECKING"),
        (["ka_bank:Account", "ka_other:Other"], None, "all actors share one Env"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_sentence(
    module: Callable[[str, str], None], actors: list[str], front_door: str | None, said: str
) -> None:
    module("ka_raises", "raise ValueError('at import')")
    module("ka_imports", "import ka_nothing")
    module("ka_plain", "from kubeactor import Actor\nclass Account(Actor):\n    def balance(self): ...\n")
    module("ka_hint", "from kubeactor import Actor\nclass Account(Actor):\n    env: 'Nowhere'\n")
    module("ka_other", "from kubeactor import Actor, Env\nclass E(Env): ...\nclass Other(Actor):\n    env: E\n")
    with pytest.raises(UserCodeError, match=said) as caught:
        Application.load(actors, front_door)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "snake"), [("Account", "ACCOUNT"), ("ShoppingCart", "SHOPPING_CART"), ("HTTPServer2", "HTTP_SERVER2")]
)
def test_class_names_become_upper_snake(name: str, snake: str) -> None:
    assert upper_snake(name) == snake
