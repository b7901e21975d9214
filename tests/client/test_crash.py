"""Through the client a SIGKILL costs time: no call fails, and each is applied once.

The server is `kubeactor dev`, embedded and with two hosts behind an ingress. Workers die one by one, or the whole tree
dies and is started again on the same data, as someone does who kills `make run` and runs it again.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest
from tests.client.app.till_api import Shop
from tests.client.serving import till_dev
from tests.harness.dev import Dev, until

from kubeactor import Binding, Env
from kubeactor.client import connect, connect_sync

ROOT = Path(__file__).resolve().parents[2]
KILLS = 5
TELLERS = 8
TILLS = 3

HOSTS = pytest.mark.parametrize("hosts", [pytest.param(None, id="embedded"), pytest.param(2, id="two hosts")])
Kill = Callable[[Dev], Awaitable[None]]


async def _kill_a_worker(dev: Dev) -> None:
    before = dev.workers()
    victim = random.choice(before)
    os.kill(victim, signal.SIGKILL)
    await until(lambda: victim not in dev.workers() and len(dev.workers()) == len(before), what="a new worker")


async def _kill_everything(dev: Dev) -> None:
    dev.kill()
    dev.start()
    await dev.ready()


KILL = pytest.mark.parametrize(
    "kill", [pytest.param(_kill_a_worker, id="a worker"), pytest.param(_kill_everything, id="the whole tree")]
)


async def _kill_under_load(dev: Dev, kill: Kill, made: Counter[str]) -> None:
    """Each kill comes while calls are being answered, and at another moment of their way."""
    for _ in range(KILLS):
        before = made.total()
        await until(lambda: made.total() > before + 20, what="traffic")  # noqa: B023
        await asyncio.sleep(random.random() * 0.02)
        await kill(dev)


@HOSTS
@KILL
def test_no_call_of_the_async_client_fails_and_each_is_applied_once(
    tmp_path: Path, hosts: int | None, kill: Kill
) -> None:
    made: Counter[str] = Counter()

    async def main() -> None:
        async with till_dev(tmp_path / "data", hosts) as dev, connect(Shop, f"http://127.0.0.1:{dev.port}") as shop:
            ended = asyncio.Event()

            async def teller(number: int) -> None:
                name = f"till-{number % TILLS}"
                while not ended.is_set():
                    await shop.TILL.id_from_name(name).add(1)
                    made[name] += 1

            async with asyncio.TaskGroup() as tellers:
                for number in range(TELLERS):
                    tellers.create_task(teller(number))
                await _kill_under_load(dev, kill, made)
                ended.set()
            assert {name: await shop.TILL.id_from_name(name).count() for name in made} == dict(made)

    asyncio.run(main())
    assert made.total() > KILLS * 20


@KILL
def test_no_call_of_the_sync_client_fails_and_each_is_applied_once(tmp_path: Path, kill: Kill) -> None:
    made = Counter({f"till-{number}": 0 for number in range(TELLERS)})

    async def main() -> None:
        async with till_dev(tmp_path / "data") as dev:
            with connect_sync(Shop, f"http://127.0.0.1:{dev.port}") as shop, ThreadPoolExecutor(TELLERS) as threads:
                ended = threading.Event()

                def teller(number: int) -> None:
                    till = shop.env.TILL.id_from_name(f"till-{number}")  # one each: `+=` is not for threads
                    while not ended.is_set():
                        shop.call(till.add, 1)
                        made[f"till-{number}"] += 1

                tellers = [threads.submit(teller, number) for number in range(TELLERS)]
                try:
                    await _kill_under_load(dev, kill, made)
                finally:
                    ended.set()
                await asyncio.to_thread(lambda: [each.result() for each in tellers])
                counts = {name: shop.call(shop.env.TILL.id_from_name(name).count) for name in made}
                assert counts == dict(made)

    asyncio.run(main())
    assert made.total() > KILLS * 20


class Account(Protocol):
    """What the bank of `make run` serves, as another service declares it."""

    async def deposit(self, amount: int) -> int: ...
    async def balance(self) -> int: ...


class Bank(Env):
    ACCOUNT: Binding[Account]


def test_no_call_fails_when_the_whole_make_run_is_killed_and_started_again(
    tmp_path: Path, require: Callable[[str], str]
) -> None:
    made: Counter[str] = Counter()
    dev = Dev(tmp_path / "data", folder=ROOT, environment={"MAKEFLAGS": ""})
    # What it runs from is there: the environment of these tests.
    dev.command = [require("make"), "-o", ".venv/run.stamp", "run", f"PORT={dev.port}", f"DATA={dev.data}"]

    async def main() -> None:
        async with dev, connect(Bank, f"http://127.0.0.1:{dev.port}") as bank:
            ended = asyncio.Event()

            async def customer(name: str) -> None:
                while not ended.is_set():
                    await bank.ACCOUNT.id_from_name(name).deposit(1)
                    made[name] += 1

            async with asyncio.TaskGroup() as customers:
                for number in range(TELLERS):
                    customers.create_task(customer(f"customer-{number % TILLS}"))
                await _kill_under_load(dev, _kill_everything, made)
                ended.set()
            assert {name: await bank.ACCOUNT.id_from_name(name).balance() for name in made} == dict(made)

    asyncio.run(main())
    assert made.total() > KILLS * 20


def test_a_call_that_is_made_while_nothing_runs_is_answered_after_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        dev = till_dev(tmp_path / "data")
        async with connect(Shop, f"http://127.0.0.1:{dev.port}") as shop:
            early = asyncio.create_task(shop.TILL.id_from_name("early").add(3))  # type: ignore[arg-type]
            async with dev:
                assert await early == 3

    asyncio.run(main())
