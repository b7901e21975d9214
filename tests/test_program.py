"""The program of the API as it is printed (tests/typing/program): its tests pass, it is served, its client pays."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.harness.dev import Dev

PROGRAM = Path(__file__).parent / "typing" / "program"
ADDRESS = "http://bank-api.default:8081"

SHOP = """
import asyncio, shop
for order, price in (("order-17", 30), ("order-17", 30), ("order-18", 1)):
    print(asyncio.run(shop.pay(order, price)), end=" ")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for path in PROGRAM.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_text(path.read_text())
    return tmp_path


@pytest.fixture
def served(project: Path) -> Iterator[Dev]:
    dev = Dev(project / "data", actors=(), front_door=None, folder=project)
    dev.start()
    try:
        asyncio.run(dev.ready())
        yield dev
    finally:
        dev.kill()


def test_its_test_passes(project: Path) -> None:
    options = ("-q", "-W", "error", "-p", "no:kmock", "-o", "asyncio_default_fixture_loop_scope=function")
    command = [str(Path(sys.executable).with_name("pytest")), *options]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=100, check=False)
    assert re.search(r"^1 passed in ", result.stdout, re.MULTILINE), result.stdout + result.stderr


def test_its_service_is_served_and_its_client_pays_once(served: Dev, project: Path) -> None:
    (project / "shop.py").write_text(
        (project / "shop.py").read_text().replace(ADDRESS, f"http://127.0.0.1:{served.port}")
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=30) as http:
        assert http.post("/v1/actors/ACCOUNT/alice/deposit", json={"amount": 100}).json() == 100
        assert http.post("/alice", json={"amount": 20}).json() == {"balance": 80}
        refused = http.post("/alice", json={"amount": 1000})
        assert (refused.status_code, refused.json()["name"], refused.json()["balance"]) == (
            409,
            "InsufficientFunds",
            80,
        )
    command = [sys.executable, "-W", "error", "-c", SHOP]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=100, check=False)
    assert result.stdout == "50 50 49 ", result.stdout + result.stderr
