"""The client needs msgspec and httpx, and loads nothing else that is installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = "import sys; {}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
PROGRAM = """
from typing import Protocol
from kubeactor import Binding, Env, Problem
from kubeactor.client import connect, connect_sync, idempotency_key
class Account(Protocol):
    async def debit(self, amount: int) -> int: ...
class Bank(Env):
    ACCOUNT: Binding[Account]
connect(Bank, 'http://127.0.0.1:1')
with connect_sync(Bank, 'http://127.0.0.1:1') as bank, idempotency_key('a'):
    bank.env.ACCOUNT.new_unique_id()
"""


def loaded_by(code: str) -> set[str]:
    program = LOADED.format(f"exec({code!r})")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_the_client_loads_msgspec_and_httpx_only() -> None:
    loaded = loaded_by(PROGRAM) - loaded_by("import httpx, msgspec.inspect") - set(sys.stdlib_module_names)
    assert {name for name in loaded if not name.startswith("_sysconfigdata")} == {"kubeactor"}


@pytest.mark.parametrize("package", ["kubeactor.engine", "kubeactor.ingress", "kubeactor.router", "kubeactor.host"])
def test_the_client_loads_no_part_of_the_server(package: str) -> None:
    code = f"import sys, kubeactor.client; sys.exit({package!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_httpx_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['httpx'] = None; import kubeactor; import kubeactor.client"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.splitlines()[-1].endswith("kubeactor.client needs httpx: pip install 'kubeactor[client]'")


def test_every_public_name_exists_and_is_documented() -> None:
    import kubeactor.client

    assert kubeactor.client.__all__ == ["SyncClient", "connect", "connect_sync", "idempotency_key"]
    for name in kubeactor.client.__all__:
        assert getattr(kubeactor.client, name).__doc__, name
