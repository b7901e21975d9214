"""Hosts with an engine that answers by rule, on real sockets of 127.0.0.1, for the tests of what lies between them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import uvloop

from kubeactor.call import CLIENT, Call, CallId, Reply
from kubeactor.connection import ClientConnection, ConnectionLost, dial
from kubeactor.errors import ActorError
from kubeactor.host import HostServer
from kubeactor.placement import Table
from kubeactor.router import Router
from kubeactor.wire import INGRESS, VERSION, Hello

NAMESPACE = "uid-1"
SHARDS = 8
LIMIT_S = 60.0
T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine on the loop that is used in production; it may take 60 s."""

    async def limited() -> T:
        async with asyncio.timeout(LIMIT_S):
            return await main

    return uvloop.run(limited())


class ScriptedEngine:
    """Answers each call by `rule`, or keeps it in `held` when the rule says None. `calls` has all that came."""

    def __init__(self, host_id: str = "host-0", volume_id: str = "vol-0", shards: int = SHARDS) -> None:
        self.shards = shards
        self.namespace_uid = NAMESPACE
        self.host_id = host_id
        self.volume_id = volume_id
        self.calls: list[Call] = []
        self.held: list[Call] = []
        self.rule: Callable[[Call], bytes | ActorError | None] = lambda call: call.body
        self.states: list[tuple[int, int, str]] = []
        self.checks: list[tuple[int, int]] = []
        self.checked: bytes | ActorError | None = b""
        self.arrived = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, call: Call) -> None:
        self.calls.append(call)
        answer = self.rule(call)
        if answer is None:
            self.held.append(call)
        else:
            call.reply(answer)
        task = asyncio.get_running_loop().create_task(self._tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        async with self.arrived:
            self.arrived.notify_all()

    async def has(self, count: int) -> list[Call]:
        """Wait until that many calls came."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.calls) >= count)
        return self.calls

    def inventory(self) -> list[tuple[int, int, str]]:
        return self.states

    def grant(self, shards: Sequence[tuple[int, int]]) -> None:
        for shard, epoch in shards:
            if any(known == shard and at != epoch for known, at, _ in self.states):
                raise ValueError(f"shard {shard} is here at another epoch")
        self.states += [(shard, epoch, "owned") for shard, epoch in shards]

    def probe(self, shard: int, body: bytes, reply: Reply) -> None:
        if not body:
            raise ValueError("empty")
        reply(b"%d:%b" % (shard, body))

    def check(self, shard: int, epoch: int, reply: Reply) -> None:
        self.checks.append((shard, epoch))
        if self.checked is not None:
            reply(self.checked)


def bound() -> socket.socket:
    """A socket on a free port of 127.0.0.1."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def address_of(sock: socket.socket) -> str:
    return f"127.0.0.1:{sock.getsockname()[1]}"


class RunningHost:
    """A host server whose listening socket outlives it, as under a supervisor."""

    def __init__(self, engine: ScriptedEngine, credentials: Sequence[bytes] = (b"",)) -> None:
        self.engine = engine
        self.credentials = credentials
        self.socket = bound()
        self.socket.listen(100)
        self.address = address_of(self.socket)
        self.server: HostServer | None = None

    async def start(self) -> RunningHost:
        self.server = HostServer(self.engine, [self.socket.dup()], self.credentials)
        await self.server.start()
        return self

    async def kill(self) -> None:
        """Break all connections and stop to accept; the listening socket stays open."""
        assert self.server is not None
        for connection in list(self.server.connections.values()):
            connection.abort("killed")
        await self.server.close()
        self.server = None

    async def close(self) -> None:
        if self.server is not None:
            await self.server.close()
        self.socket.close()


def table(owners: Iterable[str | None] = ("host-0",) * SHARDS, epoch: int = 1, **volumes: str) -> Table:
    """A table in which the host `host-N` has the volume `vol-N`."""
    owner_list = list(owners)
    known = {host: host.replace("host", "vol") for host in owner_list if host}
    return Table(NAMESPACE, volumes=known | volumes, owners=owner_list, epochs=[epoch if o else 0 for o in owner_list])


def hello(**changes: Any) -> Hello:
    fields: dict[str, Any] = {
        "version": VERSION,
        "namespace": NAMESPACE,
        "credentials": b"",
        "role": INGRESS,
        "session": b"s1",
    }
    return Hello(**(fields | changes))


async def connect(host: RunningHost, **changes: Any) -> ClientConnection:
    return await dial(host.address, hello(**changes), LIMIT_S)


class Asked:
    """A call and its outcome. `times` counts replies, which must be one."""

    def __init__(self, body: bytes = b"{}", *, shard: int = 0, timeout_s: float = LIMIT_S, id: CallId | None = None):
        self.times = 0
        self._outcome: asyncio.Future[bytes | ActorError] = asyncio.get_running_loop().create_future()
        self.call = Call(
            "ACCOUNT",
            b"alice",
            "debit",
            body,
            shard=shard,
            deadline=time.monotonic() + timeout_s,
            reply=self.reply,
            id=id,
        )

    def reply(self, outcome: bytes | ActorError) -> None:
        self.times += 1
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    @property
    def done(self) -> bool:
        return self._outcome.done()

    async def outcome(self) -> bytes | ActorError:
        return await self._outcome

    async def error(self) -> ActorError:
        outcome = await self._outcome
        assert isinstance(outcome, ActorError), outcome
        return outcome


class Waits:
    """A Waiter that keeps what it is told."""

    def __init__(self) -> None:
        self.told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def answered(self, frame: Any) -> None:
        self.told.set_result(frame)

    def lost(self, sent: bool) -> None:
        self.told.set_exception(ConnectionLost("lost", sent))


@asynccontextmanager
async def namespace(
    hosts: int = 1, placement: Table | None = None, **options: Any
) -> AsyncIterator[tuple[Router, list[RunningHost]]]:
    """A router and its hosts, all shards on host-0 unless the table says otherwise."""
    running = [await RunningHost(ScriptedEngine(f"host-{n}", f"vol-{n}")).start() for n in range(hosts)]
    placement = placement or table()
    router = Router(placement, addresses(running), **options)
    try:
        await warm(router, running)
        yield router, running
    finally:
        await router.close()
        for host in running:
            await host.close()


async def warm(router: Router, running: list[RunningHost]) -> None:
    """Wait until the router is connected to the owners, so that a short deadline is not spent on that."""
    for host in running:
        if host.engine.host_id in router._links and (shards := router.table.shards_of(host.engine.host_id)):
            await ask(router, shard=shards[0], id=CallId(CLIENT, b"warm")).outcome()
            host.engine.calls.clear()


def addresses(running: list[RunningHost]) -> dict[str, str]:
    return {host.engine.host_id: host.address for host in running}


def ask(router: Router, body: bytes = b"{}", **options: Any) -> Asked:
    asked = Asked(body, **options)
    router.submit(asked.call)
    return asked


async def down(router: Router, host: RunningHost) -> None:
    """Kill the host and wait until the router has noticed."""
    connection = router._links[host.engine.host_id].connection
    assert connection is not None
    await host.kill()
    await connection.done.wait()


def once(first: ActorError | None, then: Callable[[Call], bytes]) -> Callable[[Call], bytes | ActorError | None]:
    """The first call is answered with an error (None: not at all), others by `then`."""
    answers = iter([first])
    return lambda call: next(answers) if answers.__length_hint__() else then(call)  # type: ignore[attr-defined]
