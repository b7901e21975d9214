"""The fixture `actors` in projects of users, each run by a pytest of its own."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

BANK = """
from kubeactor import Actor, AlarmInfo, Binding, Env

class Account(Actor):
    env: "Bank"
    async def deposit(self, amount: int) -> int:
        balance = await self.ctx.storage.get("balance", 0) + amount
        self.ctx.storage.put("balance", balance)
        return balance
    async def fail(self) -> None:
        secret = "shown in the traceback"
        raise ValueError(secret)
    async def alarm(self, info: AlarmInfo) -> None:
        raise ValueError("it rings no more")
    async def ring(self) -> None:
        from datetime import timedelta
        self.ctx.storage.set_alarm(timedelta(0))

class Bank(Env):
    ACCOUNT: Binding[Account]

async def door(request, env):
    from starlette.responses import PlainTextResponse
    return PlainTextResponse(str(await env.ACCOUNT.id_from_name("door").deposit(1)))
"""
PROJECT = '[tool.kubeactor]\nenv = "bank:Bank"\nfront-door = "bank:door"\n'
TEST = """
from bank import Bank
from kubeactor.testing import Actors

async def test_it(actors: Actors[Bank]) -> None:
    assert await actors.env.ACCOUNT.id_from_name("alice").deposit(3) == 3
    assert (await actors.http.get("/")).text == "1"

class TestClass:
    async def test_it(self, actors: Actors[Bank]) -> None:
        assert await actors.env.ACCOUNT.id_from_name("alice").deposit(3) == 3
"""
STRICT = ("-o", "asyncio_default_fixture_loop_scope=function")
AUTO = (*STRICT, "-o", "asyncio_mode=auto")
ALONE = ("-p", "no:asyncio", "-p", "no:anyio")
# Of this project's own tests, and slow to load.
OTHERS_OFF = ("-p", "no:hypothesispytest", "-p", "no:kmock", "-p", "no:cacheprovider")


def run(folder: Path, test: str, *options: str, project: str = PROJECT) -> subprocess.CompletedProcess[str]:
    (folder / "bank.py").write_text(BANK)
    (folder / "pyproject.toml").write_text(project)
    (folder / "test_bank.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *OTHERS_OFF, *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def passed(result: subprocess.CompletedProcess[str], number: int) -> bool:
    assert re.search(rf"^{number} passed in ", result.stdout, re.MULTILINE), result.stdout + result.stderr
    return True


def failed(result: subprocess.CompletedProcess[str], *texts: str) -> None:
    assert result.returncode == 1, result.stdout + result.stderr
    for text in texts:
        assert text in result.stdout, result.stdout


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(ALONE, id="alone"),
        pytest.param(STRICT, id="pytest-asyncio strict"),
        pytest.param(AUTO, id="pytest-asyncio auto"),
        pytest.param(("-o", "anyio_mode=auto", "-p", "no:asyncio"), id="anyio auto"),
        pytest.param((*STRICT, "--import-mode=importlib"), id="importlib"),
    ],
)
def test_an_async_test_that_takes_actors_runs_without_a_marker(tmp_path: Path, options: tuple[str, ...]) -> None:
    passed(run(tmp_path, TEST, *options), 2)


OTHERS = """
import asyncio
import pytest, pytest_asyncio

@pytest_asyncio.fixture
async def opened():
    return asyncio.get_running_loop()

@pytest.fixture
def alice(actors):
    return actors.env.ACCOUNT.id_from_name("alice")

@pytest.mark.asyncio
async def test_marked_for_asyncio_on_its_loop(opened, alice):
    assert asyncio.get_running_loop() is opened
    assert await alice.deposit(2) == 2

@pytest.mark.anyio
async def test_marked_for_anyio(actors, anyio_backend):
    assert await actors.env.ACCOUNT.id_from_name("alice").deposit(2) == 2

async def test_without_a_marker_and_a_fixture_in_between(alice):
    assert await alice.deposit(2) == 2

@pytest.mark.parametrize("amount", [1, 2])
async def test_with_parameters(actors, amount):
    assert await actors.env.ACCOUNT.id_from_name("alice").deposit(amount) == amount

def test_without_actors():
    pass
"""


def test_other_plugins_run_the_tests_that_are_theirs_on_their_own_loops(tmp_path: Path) -> None:
    passed(run(tmp_path, OTHERS, *STRICT), 6)


def test_trio_is_refused_in_one_sentence(tmp_path: Path) -> None:
    test = """
async def test_trio(actors):
    raise AssertionError("it ran")
"""
    plugin = """
def pytest_pyfunc_call(pyfuncitem):
    pyfuncitem.obj(actors=pyfuncitem.funcargs["actors"]).send(None)
    return True
"""
    (tmp_path / "conftest.py").write_text(plugin)
    failed(run(tmp_path, test, *STRICT), "RuntimeError: actors run on asyncio: let the test run on it, not on trio")


def test_a_background_error_fails_the_test_that_caused_it_and_no_other(tmp_path: Path) -> None:
    test = """
async def test_bad(actors):
    await actors.env.ACCOUNT.id_from_name("alice").ring()
    await actors.advance(seconds=0)

async def test_good(actors):
    assert await actors.env.ACCOUNT.id_from_name("alice").deposit(3) == 3
"""
    result = run(tmp_path, test, *STRICT)
    failed(result, "1 failed, 1 passed", "the alarm of ACCOUNT/alice failed", 'raise ValueError("it rings no more")')


def test_what_a_method_raises_is_shown_with_its_own_lines(tmp_path: Path) -> None:
    test = """
async def test_bad(actors):
    await actors.env.ACCOUNT.id_from_name("alice").fail()
"""
    failed(
        run(tmp_path, test, *STRICT), 'secret = "shown in the traceback"', "ACCOUNT.fail raised ValueError: shown in"
    )


@pytest.mark.parametrize(
    ("test", "project", "sentence"),
    [
        ("def test_it(actors): pass", PROJECT, "actors serve on the loop of an async test: write `async def test_it`"),
        (
            "from hypothesis import given, strategies\n@given(x=strategies.none())\nasync def test_it(actors, x): pass",
            PROJECT,
            "each example of hypothesis wants actors of its own",
        ),
        (
            "import pytest\n@pytest.fixture\ndef x(actors): actors.http\nasync def test_it(x): pass",
            PROJECT,
            "actors serve inside of the test; an async fixture opens its own",
        ),
        ("async def test_it(actors): pass", "", 'have no pyproject.toml with [tool.kubeactor] env = "bank:Bank"'),
        (
            "async def test_it(actors): pass",
            '[tool.kubeactor]\nenv = "bank:Bonk"\n',
            "bank has no 'Bonk'; did you mean 'Bank'?",
        ),
        ("async def test_it(actors): pass", "[tool.kubeactor]\nenf = 3\n", '[tool.kubeactor] holds env = "bank:Bank"'),
    ],
)
def test_wrong_use_is_told_in_one_sentence(tmp_path: Path, test: str, project: str, sentence: str) -> None:
    result = run(tmp_path, test, *STRICT, project=project)
    assert sentence in result.stdout, result.stdout + result.stderr
    assert "During handling" not in result.stdout
    assert "1 error" in result.stdout


def test_the_nearest_pyproject_counts(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "tests").mkdir()
    run(tmp_path / "inner", TEST, "--collect-only")
    (tmp_path / "inner" / "test_bank.py").rename(tmp_path / "inner" / "tests" / "test_bank.py")
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = inner\n")
    command = [sys.executable, "-m", "pytest", "-q", *OTHERS_OFF, *ALONE]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    passed(result, 2)


def test_the_plugin_can_be_switched_off(tmp_path: Path) -> None:
    failed_ = run(tmp_path, TEST, *STRICT, "-p", "no:kubeactor")
    assert "fixture 'actors' not found" in failed_.stdout


def test_the_plugin_starts_nothing_and_loads_nothing_of_the_host(tmp_path: Path) -> None:
    test = """
import sys, threading
def test_it():
    heavy = {"kubeactor", "rocksdict", "uvloop", "starlette", "httpx", "msgspec", "asyncio"}
    assert not heavy & set(sys.modules)
    assert threading.active_count() == 1
"""
    passed(run(tmp_path, test, *ALONE), 1)


def test_a_pytest_run_starts_about_as_fast_with_the_plugin_as_without(tmp_path: Path) -> None:
    """Processor time, so that what else runs on the machine counts little."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    def seconds(*options: str) -> float:
        before = time.monotonic(), os.times()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
        after = os.times()
        return after.children_user + after.children_system - before[1].children_user - before[1].children_system

    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    rounds = [(seconds("-p", "kubeactor_pytest"), seconds()) for _ in range(5)]
    with_it, without = (statistics.median(each) for each in zip(*rounds, strict=True))
    print(f"pytest with the plugin {with_it * 1000:.0f} ms, without {without * 1000:.0f} ms")
    assert with_it - without < 0.1
