"""The programs of docs/client.md, run as they stand against the bank, and checked by mypy."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.harness.dev import Dev

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text()
ADDRESS = "http://bank-api.default:8081"
PROGRAMS = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Dev]:
    dev = Dev(tmp_path / "data")
    dev.start()
    try:
        asyncio.run(dev.ready())
        yield dev
    finally:
        dev.kill()


def imported(name: str, port: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    import types

    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(PROGRAMS[name].replace(ADDRESS, f"http://127.0.0.1:{port}"), f"{name}.py", "exec"), vars(module))
    return module


def test_the_programs_of_the_page_run(bank: Dev, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(PROGRAMS) == {"bank_api", "shop", "till"}
    imported("bank_api", bank.port, monkeypatch)
    till = imported("till", bank.port, monkeypatch)
    assert till.deposit("alice", 100) == 100
    shop = imported("shop", bank.port, monkeypatch)
    assert asyncio.run(shop.pay("order-17", 30)) is True
    assert asyncio.run(shop.pay("order-17", 30)) is True  # the recorded result
    assert asyncio.run(shop.pay("order-18", 71)) is False
    assert till.bank.call(till.bank.env.ACCOUNT.id_from_name("alice").balance) == 70
    assert asyncio.run(shop.refund(30)) == 100
    assert asyncio.run(shop.refund(2**63 - 1)) == 100
    till.bank.close()


def test_the_programs_of_the_page_are_typed(tmp_path: Path) -> None:
    for name, text in PROGRAMS.items():
        (tmp_path / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", *(f"{name}.py" for name in PROGRAMS)]
    environment = {"MYPYPATH": str(ROOT / "host"), "PATH": "/usr/bin:/bin"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
