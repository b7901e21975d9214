"""Overlapping debits never overdraw."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.harness.client import Client
from tests.harness.dev import BANK, Dev

CLIENTS, MONEY, DEBITS = 64, 1000, 2000


@pytest.mark.parametrize(
    ("actor", "binding", "folder"),
    [
        pytest.param("bank:Account", "ACCOUNT", BANK, id="bank"),
        pytest.param("actors:Sleeper", "SLEEPER", Path(__file__).parent, id="sleeping between get and put"),
    ],
)
def test_of_2000_debits_of_1_from_64_clients_exactly_1000_succeed(
    tmp_path: Path, actor: str, binding: str, folder: Path
) -> None:
    async def main() -> None:
        async with Dev(tmp_path / "data", actors=[actor], front_door=None, folder=folder) as dev:
            clients = [Client(dev.port, binding) for _ in range(CLIENTS)]
            assert (await clients[0].call("hot", "deposit", amount=MONEY)).value == MONEY
            left = iter(range(DEBITS))

            async def debit(client: Client) -> list[dict[str, int]]:
                return [(await client.call("hot", "debit", amount=1)).value for _ in left]

            answers = [answer for each in await asyncio.gather(*map(debit, clients)) for answer in each]
            assert len(answers) == DEBITS
            balances = [answer["balance"] for answer in answers if answer["ok"]]
            assert sorted(balances) == list(range(MONEY))
            assert all(answer["balance"] == 0 for answer in answers if not answer["ok"])
            for client in clients:
                client.close()

    asyncio.run(main())
