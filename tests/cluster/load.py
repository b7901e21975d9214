"""The load under which faults are made: 64 connections with deposits, debits and transfers, each at a constant rate.

Clients as they should be: connections are kept alive; a call whose connection broke is made again on a new one, under
the same Idempotency-Key, until its deadline. What must be true of it all is in `books.py`.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from tests.cluster.books import Books, Order
from tests.cluster.kube import Kube, Space, until
from tests.harness.client import Answer, Client, UnknownOutcomeError

from kubeactor.ids import identity_of_name, shard_of
from kubeactor.placement import Document, Table

__all__ = ["DEADLINE_S", "Depositors", "get", "node_port", "owners", "placement", "post", "ready", "transfer"]

HOST: Final = "127.0.0.1"
PORT: Final = 30080  # kind-config.yaml and namespace.yaml
DEADLINE_S: Final = 60.0
CONNECTIONS: Final = 64
EACH_S: Final = 0.25  # from call to call of one connection, so that the load leaves the cores to what it is about
REPEATED: Final = 0.05  # of the calls are made once more under their key
AGAIN_S: Final = 0.05


def post(path: str, amount: int, key: str) -> dict[str, Any]:
    """One call, as those of the load. Raises AssertionError for an answer that is no success."""
    return _alone(path, {"amount": amount}, key)


def transfer(account: str, to: str, amount: int) -> dict[str, Any]:
    """One transfer. Raises as `post`."""
    return _alone(f"/accounts/{account}/transfer", {"to": to, "amount": amount}, uuid.uuid4().hex)


def get(path: str) -> dict[str, Any]:
    return _alone(path)


def _alone(path: str, body: dict[str, Any] | None = None, key: str = "") -> dict[str, Any]:
    async def call() -> dict[str, Any]:
        client = Client(PORT)
        try:
            answer = await carried_out(client, path, body, key)
        finally:
            client.close()
        assert answer.status == 200, f"{answer.status}: {answer.body!r}"
        found: dict[str, Any] = answer.value
        return found

    return asyncio.run(call())


async def carried_out(
    client: Client, path: str, body: dict[str, Any] | None, key: str, broken: list[str] | None = None
) -> Answer:
    """The answer to a call; `broken` gets each connection error on the way. Raises TimeoutError at the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                if body is None:
                    return await client.get(path, DEADLINE_S)
                return await client.post(path, body, key, DEADLINE_S)
            except (ConnectionRefusedError, UnknownOutcomeError) as error:
                if broken is not None:
                    broken.append(f"{time.strftime('%X')} {path}: {error}")
                client.close()
            await asyncio.sleep(AGAIN_S)


class Depositors:
    """The owners of 64 accounts, each with a connection of its own, on a thread with its own loop.

    Args:
        address: host and port of whoever takes the calls.
        accounts: their names, else new ones.

    Attributes:
        books: what they know.
    """

    def __init__(self, address: tuple[str, int] = (HOST, PORT), accounts: Iterable[str] = ()) -> None:
        prefix = uuid.uuid4().hex[:8]
        self.books = Books(list(accounts) or [f"{prefix}-{index}" for index in range(CONNECTIONS)])
        self.crash: BaseException | None = None
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Depositors:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def all_past(self, more: int) -> None:
        """Wait until every owner had so many acknowledgements more: all of their shards serve."""
        wanted = {account: count + more for account, count in self.books.acknowledged.items()}

        def past() -> bool:
            self.sound()
            return all(self.books.acknowledged[account] >= want for account, want in wanted.items())

        until(past, f"{more} more calls of every account", DEADLINE_S * 2)

    def sound(self) -> None:
        """No call has failed so far."""
        assert self.crash is None, self.crash
        assert not self.books.failed, self.books.failed[:5]

    def settle(self, *, may_break: bool = False) -> None:
        """Nothing failed, no connection broke unless it may, and every balance is what was acknowledged.

        What was sent may still be on its way, for a while.
        """
        self.sound()
        broken = self.books.broken
        print(f"{len(self.books.calls)} calls, longest {self.books.longest_s():.2f} s, {len(broken)} connection errors")
        assert may_break or not broken, f"{len(broken)} connection errors: {broken[:5]}"
        balances: dict[str, int] = {}

        def arrived() -> bool:
            balances.update(asyncio.run(self._balances()))
            return not self.books.differences(balances)

        try:
            until(arrived, "all that was sent has arrived", DEADLINE_S)
        except AssertionError as error:
            if not balances:
                raise
            raise AssertionError("; ".join(self.books.differences(balances))) from error
        assert sum(balances.values()) == sum(self.books.due.values())

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # told by `sound`
            self.crash = error

    async def _main(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for index, account in enumerate(self.books.accounts):
                tasks.create_task(self._own(account, random.Random(index)))

    def _client(self) -> Client:
        return Client(self._address[1], host=self._address[0])

    async def _own(self, account: str, rng: random.Random) -> None:
        loop, client = asyncio.get_running_loop(), self._client()
        due = loop.time() + rng.random() * EACH_S
        try:
            while not self._stop.is_set():
                await asyncio.sleep(due - loop.time())  # the rate
                due = max(due + EACH_S, loop.time())
                await self._carry_out(client, self.books.order(account, rng), rng.random() < REPEATED)
        finally:
            client.close()

    async def _carry_out(self, client: Client, order: Order, twice: bool) -> None:
        books, began = self.books, time.time()
        try:
            answer = await carried_out(client, order.path, order.body, order.key, books.broken)
            books.answered(order, answer.status, _read(answer), began, time.time())
            if twice:
                again = await carried_out(client, order.path, order.body, order.key, books.broken)
                books.repeated(order, (answer.status, answer.body), (again.status, again.body))
        except TimeoutError:
            books.gave_up(order, f"no answer within {DEADLINE_S:g} s")

    async def _balances(self) -> dict[str, int]:
        client, found = self._client(), {}
        try:
            for account in self.books.accounts:
                answer = await carried_out(client, f"/accounts/{account}/balance", None, "")
                assert answer.status == 200, answer
                found[account] = int(answer.value["balance"])
        finally:
            client.close()
        return found


def _read(answer: Answer) -> Mapping[str, Any]:
    found = answer.value
    return found if isinstance(found, dict) else {"answer": found}


def placement(bank: Space) -> Table:
    """The bank's table."""
    return Table.of(msgspec.convert(bank.get("actorplacement", "bank")["spec"], Document))


def owners(bank: Space, accounts: Iterable[str]) -> dict[str, str]:
    """Account -> the host that owns its shard by the table."""
    table = placement(bank)
    found = {account: table.owner(shard_of(identity_of_name(account), table.shards)) for account in accounts}
    return {account: owner[0] for account, owner in found.items() if owner is not None}


def node_port(kube: Kube) -> tuple[str, int]:
    """The bank at the node itself: at 127.0.0.1 Docker's proxy accepts at once what it can't bring to the node yet."""
    (node,) = kube.get("nodes", "-l", "node-role.kubernetes.io/control-plane")["items"]
    addresses = {address["type"]: address["address"] for address in node["status"]["addresses"]}
    return addresses["InternalIP"], PORT


def ready(bank: Space) -> None:
    """The condition that is earned: every host answered a probe through an ingress."""

    def look() -> bool:
        conditions = bank.get("actornamespace", "bank").get("status", {}).get("conditions", [])
        status = {condition["type"]: condition["status"] for condition in conditions}
        return status.get("Ready") == "True" and status.get("Progressing") == "False"

    bank.until(look, "ActorNamespace bank Ready", 300)
