"""The listening side of a host: takes frames from ingresses, other hosts and operators to the engine, and answers back.

`place` is the operator of one machine: it asks hosts what their volumes hold and writes the placement table as a file.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import msgspec

from kubeactor.call import Call, Dispatcher
from kubeactor.connection import ClientConnection, ServerConnection, dial
from kubeactor.errors import ActorError, ActorFencedError, ActorUnauthenticatedError, BodyTooLargeError
from kubeactor.limits import BODY_BYTES, CALL_MAX_S
from kubeactor.parked import Keeper, Retry
from kubeactor.placement import PlacementError, Table, adopted, plan
from kubeactor.placement_file import load, save
from kubeactor.wire import (
    OPERATOR,
    VERSION,
    CallFrame,
    CheckRequest,
    Frame,
    Granted,
    GrantRequest,
    Hello,
    Inventory,
    InventoryRequest,
    ParkedRequest,
    Probe,
    Refused,
    Result,
    RetryRequest,
    Welcome,
    WireError,
    authentic,
    failure,
)

__all__ = ["HostServer", "Owner", "place"]

DIAL_S: Final = 5.0
RETRY_S: Final = 0.02
# To an engine 0 means "whichever", which is for calls of its own process: a frame says for which owner it was sent.
NO_EPOCH: Final = -1


class Owner(Dispatcher, Protocol):
    """What the server needs of an engine."""

    namespace_uid: str
    host_id: str
    volume_id: str
    parked: Keeper

    def inventory(self) -> list[tuple[int, int, str]]:
        """(shard, epoch, state) of all that the volume knows."""

    def grant(self, shards: Sequence[tuple[int, int]]) -> None:
        """Begin (shard, epoch) empty: stored and synced when it returns. Idempotent.

        Raises:
            ValueError: when the volume knows one of them at another epoch.
        """

    def probe(self, shard: int, body: bytes, reply: Callable[[bytes | ActorError], None]) -> None:
        """Answer what another host's `Router.probe` asks; raises ValueError when it is malformed."""

    def check(self, shard: int, epoch: int, reply: Callable[[bytes | ActorError], None]) -> None:
        """Write, sync and read in a shard that is owned at that epoch, then reply."""


class HostServer:
    """Serves an engine on listening sockets.

    Attributes:
        credentials: the tokens that are accepted; replace it to rotate them.
        connections: the open ones, by the session of the dialer.
    """

    def __init__(self, engine: Owner, sockets: Sequence[socket.socket], credentials: Sequence[bytes] = (b"",)) -> None:
        """Made before `start`.

        Args:
            engine: takes the calls.
            sockets: bound (TCP or Unix); they are listened on and closed by this server.
            credentials: accepted tokens; the empty one lets everybody in.
        """
        self.credentials = tuple(credentials)
        self.connections: dict[bytes, ServerConnection] = {}
        self._engine = engine
        self._sockets = list(sockets)
        self._servers: list[asyncio.Server] = []
        self._unknown: set[ServerConnection] = set()
        self._closing = False

    async def start(self) -> None:
        """Accept connections from now on."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            listen = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
            self._servers.append(await listen(self._accept, sock=sock, backlog=1024))

    async def close(self) -> None:
        """Accept nothing more, send the answers that are ready, close."""
        self._closing = True
        for server in self._servers:
            server.close()
        for connection in [*self.connections.values(), *self._unknown]:
            connection.close("the host is shutting down")
        for server in self._servers:
            await server.wait_closed()

    def _accept(self) -> ServerConnection:
        connection = ServerConnection(self._greet, self._handle, self._gone)
        self._unknown.add(connection)
        return connection

    def _greet(self, connection: ServerConnection, hello: Hello) -> Welcome | Refused:
        engine = self._engine
        if reason := self._objection(hello):
            return Refused(VERSION, reason)
        # What the dialer sent on an earlier connection and we have not read yet, it will send again as a repeat. Read
        # after that, it would look like a new call and be applied twice.
        if earlier := self.connections.pop(hello.session, None):
            earlier.abort("the dialer has a newer connection")
        self._unknown.discard(connection)
        self.connections[hello.session] = connection
        return Welcome(VERSION, engine.namespace_uid, engine.host_id, engine.volume_id, engine.shards)

    def _objection(self, hello: Hello) -> str:
        if hello.version != VERSION:
            return f"protocol version {hello.version} is not {VERSION}"
        if not authentic(hello.credentials, self.credentials):
            return "wrong credentials: the peer secret of the two differs"
        if hello.namespace != self._engine.namespace_uid:
            return f"this host belongs to namespace {self._engine.namespace_uid!r}, not {hello.namespace!r}"
        return "the host is shutting down" if self._closing else ""

    def _gone(self, connection: ServerConnection) -> None:
        self._unknown.discard(connection)
        if connection.hello and self.connections.get(connection.hello.session) is connection:
            del self.connections[connection.hello.session]

    def _handle(self, connection: ServerConnection, frame: Frame) -> None:
        if type(frame) is CallFrame:
            self._engine.submit(_call(frame, partial(_answer, connection, frame.number)))
        elif type(frame) is Probe:
            self._probe(connection, frame)
        elif type(frame) is InventoryRequest:
            connection.reply(Inventory(frame.number, self._engine.inventory()))
        elif type(frame) is GrantRequest:
            self._grant(connection, frame)
        elif type(frame) is ParkedRequest:
            connection.reply(Result(frame.number, msgspec.json.encode(self._engine.parked.items())))
        elif type(frame) is RetryRequest:
            self._retry(connection, frame)
        elif type(frame) is CheckRequest:
            self._engine.check(frame.shard, frame.epoch, partial(_answer, connection, frame.number))
        else:
            raise WireError(f"a {type(frame).__name__} from a dialer")

    def _probe(self, connection: ServerConnection, frame: Probe) -> None:
        try:
            self._engine.probe(frame.shard, frame.body, partial(_answer, connection, frame.number))
        except ValueError as error:
            raise WireError(f"not a probe: {error}") from error

    def _grant(self, connection: ServerConnection, frame: GrantRequest) -> None:
        assert connection.hello is not None
        if connection.hello.role != OPERATOR:
            error = ActorUnauthenticatedError(f"an {connection.hello.role} may not grant shards")
            connection.reply(failure(frame.number, error))
            return
        try:
            self._engine.grant(frame.shards)
        except ValueError as error:
            connection.reply(failure(frame.number, ActorFencedError(str(error))))
        else:
            connection.reply(Granted(frame.number))

    def _retry(self, connection: ServerConnection, frame: RetryRequest) -> None:
        try:
            retried = self._engine.parked.retry(Retry(frame.kind, frame.instance, frame.message))
        except ActorError as error:
            connection.reply(failure(frame.number, error))
        else:
            connection.reply(Result(frame.number, msgspec.json.encode(retried)))


def _call(frame: CallFrame, reply: Callable[[bytes | ActorError], None]) -> Call:
    return Call(
        frame.binding,
        frame.identity,
        frame.method,
        frame.body,
        shard=frame.shard,
        deadline=time.monotonic() + min(frame.remaining_ms / 1000, CALL_MAX_S),
        reply=reply,
        epoch=frame.epoch or NO_EPOCH,
        format=frame.format,
        id=frame.id,
        bucket=frame.bucket,
        chain=frame.chain,
        root=frame.root,
        repeat=frame.repeat,
        internal=frame.internal,
    )


def _answer(connection: ServerConnection, number: int, outcome: bytes | ActorError) -> None:
    if isinstance(outcome, ActorError):
        connection.reply(failure(number, outcome))
    elif len(outcome) > BODY_BYTES:
        error = BodyTooLargeError(f"the result has {len(outcome)} bytes, the limit is {BODY_BYTES}", started="yes")
        connection.reply(failure(number, error))
    else:
        connection.reply(Result(number, outcome))


async def place(
    hosts: Mapping[str, str],
    path: Path,
    shards: int,
    namespace_uid: str,
    *,
    credentials: bytes = b"",
    timeout_s: float = 30.0,
) -> Table:
    """Decide who owns which shard by what the volumes of the hosts hold, grant what never had an owner, save the table.

    The file comes first and last: before anything is granted it names the volumes, so that a start that was killed
    half-way is told from a volume that was lost; a shard is in it only when its host has stored the grant.

    Args:
        hosts: host id -> address, all of them.
        path: of the table's file; its folder exists.
        shards: of the namespace.
        namespace_uid: which the hosts must belong to.
        credentials: the token that the hosts ask for.
        timeout_s: how long hosts may take to answer.

    Raises:
        PlacementError: when table and hosts contradict each other; `VolumeLost` when a host has another volume, or
            less on it, than the table says. Nothing was granted.
        ActorError: which a host answered a grant with.
        TimeoutError: when a host did not answer.
    """
    recorded = _recorded(path, shards, namespace_uid)
    table = recorded or Table.empty(namespace_uid, shards)
    hello = Hello(VERSION, namespace_uid, credentials, OPERATOR, b"operator")
    connections: dict[str, ClientConnection] = {}
    try:
        async with asyncio.timeout(timeout_s):
            for host, address in hosts.items():
                connections[host] = await _reach(host, address, hello)
            return await _decide(table, recorded is not None, connections, path, hosts)
    finally:
        for connection in connections.values():
            connection.close("placed")


def _recorded(path: Path, shards: int, namespace_uid: str) -> Table | None:
    if not path.exists():
        return None
    table = load(path).table
    if (table.namespace, table.shards) != (namespace_uid, shards):
        raise PlacementError(
            f"{path} is the table of namespace {table.namespace!r} with {table.shards} shards, "
            f"not of {namespace_uid!r} with {shards}; the number of shards never changes"
        )
    return table


async def _reach(host: str, address: str, hello: Hello) -> ClientConnection:
    while True:
        try:
            connection = await dial(address, hello, DIAL_S)
        except OSError:
            await asyncio.sleep(RETRY_S)  # it is still starting
            continue
        except WireError as error:
            raise PlacementError(f"{host} at {address}: {error}") from error
        assert connection.welcome is not None
        if connection.welcome.host != host:
            connection.close("another host was meant")
            raise PlacementError(f"{host} at {address} says that it is {connection.welcome.host}")
        return connection


async def _decide(
    table: Table, recorded: bool, connections: Mapping[str, ClientConnection], path: Path, addresses: Mapping[str, str]
) -> Table:
    volumes: dict[str, str] = {}
    reports: dict[str, list[tuple[int, int, str]]] = {}
    for host, connection in connections.items():
        assert connection.welcome is not None
        if connection.welcome.shards != table.shards:
            raise PlacementError(f"{host} has {connection.welcome.shards} shards, the table {table.shards}")
        volumes[host] = connection.welcome.volume
        inventory = await connection.answer(InventoryRequest)
        assert isinstance(inventory, Inventory)
        reports[host] = inventory.shards
    table = adopted(table, volumes, reports, recorded=recorded)
    save(path, table, addresses)
    grants = plan(table, volumes).grants  # its moves are left: a balanced table is no reason to stop a start
    for host, granted in grants.items():
        await connections[host].answer(partial(GrantRequest, shards=list(granted)))
    table = table.assigned((shard, host, epoch) for host, granted in grants.items() for shard, epoch in granted)
    save(path, table, addresses)
    return table
