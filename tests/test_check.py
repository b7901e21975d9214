"""`kubeactor check`: what would be served, or one sentence that says why it can't be."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.harness.dev import BANK
from tests.harness.program import COMMAND, ENVIRONMENT, refused

from kubeactor.engine.volume import FORMAT
from kubeactor.wire import VERSION

SHOP = """
from contextlib import asynccontextmanager
from kubeactor import Actor, Binding, Env, method
print("imported")
class Cart(Actor):
    env: "Shop"
    async def activate(self) -> None: ...
    @method(aliases=["put"])
    async def add(self, item: str) -> int: return 1
class Shop(Env):
    CART: Binding[Cart]
    BASKET: Binding[Cart]
    FEE: int
    TOKEN: str
async def fetch(request, env): ...
"""


def printed(*arguments: str, folder: Path, **environment: str) -> str:
    result = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return result.stdout


def test_json_is_one_line_with_versions_bindings_and_front_door() -> None:
    text = printed("check", "--json", "bank:Account", "--front-door", "bank:app", folder=BANK)
    assert text.count("\n") == 1
    methods = ["balance", "debit", "deposit", "interest", "transfer"]
    assert json.loads(text) == {
        "version": version("kubeactor"),
        "protocol": VERSION,
        "format": FORMAT,
        "bindings": {"ACCOUNT": {"class": "bank:Account", "methods": methods, "hooks": ["alarm", "undelivered"]}},
        "front_door": "bank:app",
    }


def test_an_env_gives_its_bindings_and_what_the_code_prints_is_kept_out(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    text = printed("check", "shop:Shop", folder=tmp_path, FEE="1", TOKEN="t")
    assert text.splitlines() == [
        f"kubeactor {version('kubeactor')}, protocol {VERSION}, volume format {FORMAT}",
        "BASKET  shop:Cart",
        "  methods  add, put",
        "  hooks    activate",
        "CART  shop:Cart",
        "  methods  add, put",
        "  hooks    activate",
        "front door  none",
    ]


def test_what_a_pyproject_names_is_checked_without_arguments(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "pyproject.toml").write_text('[tool.kubeactor]\nenv = "shop:Shop"\nfront-door = "shop:fetch"\n')
    found = json.loads(printed("check", "--json", folder=tmp_path, FEE="1", TOKEN="t"))
    assert (set(found["bindings"]), found["front_door"]) == ({"CART", "BASKET"}, "shop:fetch")


def test_all_missing_variables_are_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP.replace('print("imported")\n', ""))
    says = refused("check", "--json", "shop:Shop", folder=tmp_path)
    assert says == (
        "kubeactor: Shop: the environment variable FEE is not set; the environment variable TOKEN is not set\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name what to serve, as in bank:Account, or write [tool.kubeactor]"),
        (["shop:Cart", "--front-door", "shop:fetsh"], "shop has no 'fetsh'; did you mean 'fetch'?"),
        (["shopp:Cart"], "there is no module 'shopp' here or on the Python path; did you mean 'shop'?"),
        (["inner.shopp:Cart"], "did you mean 'inner.shop'?"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "inner").mkdir()
    for folder in (tmp_path, tmp_path / "inner"):
        (folder / "shop.py").write_text(SHOP.replace('print("imported")\n', ""))
    text = refused("check", *arguments, folder=tmp_path)
    assert says in text
    assert text.startswith("kubeactor: ")
    assert text.count("\n") == 1


def test_the_version_is_told() -> None:
    text = printed("--version", folder=BANK)
    assert text == f"kubeactor {version('kubeactor')}, protocol {VERSION}, volume format {FORMAT}\n"
