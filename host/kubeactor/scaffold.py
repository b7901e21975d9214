"""`kubeactor init`: a folder with an actor, its test, and what `kubeactor dev`, pytest and Kubernetes need to know."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path
from string import Template
from typing import Final

__all__ = ["ScaffoldError", "create", "next_steps"]

NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
NAME_CHARS: Final = 40  # of an ActorNamespace
TAKEN: Final = ("Account", "Actor", "Annotated", "Binding", "Env", "InsufficientFunds", "Key", "Meta", "Problem")

CODE: Final = '''\
"""Accounts. Each name is one, with a balance of its own; one call at a time, on disk before it is answered."""

from typing import Annotated

from msgspec import Meta

from kubeactor import Actor, Binding, Env, Key, Problem

Amount = Annotated[int, Meta(gt=0, le=2**53)]
BALANCE = Key("balance", int, 0)


class InsufficientFunds(Problem):
    status = 409
    balance: int


class Account(Actor):
    env: "$env"

    async def balance(self) -> int:
        return await self.ctx.storage.get(BALANCE)

    async def deposit(self, amount: Amount) -> int:
        balance = await self.balance() + amount
        await self.ctx.storage.put(BALANCE, balance)
        return balance

    async def debit(self, amount: Amount) -> int:
        balance = await self.balance()
        if balance < amount:
            raise InsufficientFunds(f"{amount} is more than {balance}", balance=balance)
        await self.ctx.storage.put(BALANCE, balance - amount)
        return balance - amount


class $env(Env):
    ACCOUNT: Binding[Account]
'''

TEST: Final = '''\
"""Tests run on a real RocksDB of their own, in a temporary folder, and can crash it."""

import pytest
from $name import $env, InsufficientFunds

from kubeactor.testing import Actors


async def test_what_was_deposited_survives_a_crash(actors: Actors[$env]) -> None:
    alice = actors.env.ACCOUNT.id_from_name("alice")
    assert await alice.deposit(100) == 100
    await actors.crash()
    assert await alice.debit(30) == 70


async def test_an_account_is_never_overdrawn(actors: Actors[$env]) -> None:
    alice = actors.env.ACCOUNT.id_from_name("alice")
    with pytest.raises(InsufficientFunds, match="30 is more than 0"):
        await alice.debit(30)
'''

PYPROJECT: Final = """\
[project]
name = "$label"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["kubeactor"]

[dependency-groups]
dev = ["kubeactor[test]"]

[tool.kubeactor]
env = "$name:$env"
"""

NAMESPACE: Final = """\
# For Kubernetes, later. With kubeactor's operator in the cluster:
#   kubectl create configmap $label-code --from-file=$name.py
#   kubectl apply -f namespace.yaml
apiVersion: kubeactor.io/v1alpha1
kind: ActorNamespace
metadata:
  name: $label
spec:
  code:
    configMap: $label-code
  actors:
    - binding: ACCOUNT
      class: "$name:Account"
  hosts:
    replicas: 2
    storage:
      size: 1Gi
  ingress:
    replicas: 2
"""


class ScaffoldError(Exception):
    """Raised when the folder can't be made; one sentence that says what to choose instead."""


def create(name: str, parent: Path) -> list[Path]:
    """Write the folder `name` below `parent`; the files that it holds.

    Raises:
        ScaffoldError: when the name can't be a module's and a namespace's, or there is such a folder.
    """
    _check(name)
    folder = parent / name
    words = {"name": name, "label": name.replace("_", "-"), "env": _env_name(name)}
    files = {f"{name}.py": CODE, f"test_{name}.py": TEST, "pyproject.toml": PYPROJECT, "namespace.yaml": NAMESPACE}
    try:
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(Template(text).substitute(words))
    except FileExistsError as error:
        raise ScaffoldError(f"there is a {folder.name} here already: choose another name") from error
    except OSError as error:
        raise ScaffoldError(f"{folder} can't be written: {error.strerror}") from error
    return [folder / file for file in files]


def next_steps(name: str) -> list[str]:
    """The commands to type next."""
    return [f"cd {name}", "kubeactor dev", "pytest"]


def _check(name: str) -> None:
    if not NAME.fullmatch(name) or len(name) > NAME_CHARS:
        near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")[:NAME_CHARS].rstrip("_")
        raise ScaffoldError(
            f"{name!r} can't be a module's name: small letters, digits and single _, at most {NAME_CHARS}"
            + (f", as in {near!r}" if NAME.fullmatch(near) else "")
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name.startswith("test_"):
        raise ScaffoldError(f"{name!r} has a meaning of its own in Python or pytest: choose another name")
    if name in sys.stdlib_module_names or _installed(name):
        raise ScaffoldError(f"{name!r} is the name of an installed module, which it would hide: choose another name")


def _installed(name: str) -> bool:
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None and "site-packages" in found.origin


def _env_name(name: str) -> str:
    """`my_bank` as MyBank; `account` as AccountEnv, since the class has its name already."""
    camel = "".join(word.capitalize() for word in name.split("_"))
    return f"{camel}Env" if camel in TAKEN else camel
