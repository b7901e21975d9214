"""Brings each call to the host that owns its shard, however long that host is away.

A call that can't be sent waits (`parking.py`); one whose answer was lost with its connection is sent again under the
same id, marked as a repeat, so that a host which had applied it answers from its records. The caller sees a slow
answer instead of an error, up to the call's deadline. Ingresses route the calls of their clients with it, hosts those
of their actors.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import msgspec

from kubeactor.call import LOCAL, Call, Dispatcher, Reply
from kubeactor.connection import Answer, ClientConnection, ConnectionLost
from kubeactor.errors import (
    ActorArgumentError,
    ActorError,
    ActorFencedError,
    ActorMethodTimeoutError,
    ActorOutputGateError,
    ActorOverloadedError,
    ActorShardUnavailableError,
    BodyTooLargeError,
)
from kubeactor.ids import ActorId, shard_of
from kubeactor.limits import BODY_BYTES
from kubeactor.link import Link
from kubeactor.parked import Item, Retry
from kubeactor.parking import Lane, Parking
from kubeactor.placement import PlacementError, Table
from kubeactor.sessions import Sessions
from kubeactor.wire import (
    INGRESS,
    VERSION,
    Failure,
    Frame,
    Hello,
    ParkedRequest,
    Probe,
    Result,
    RetryRequest,
    Welcome,
    WireError,
    error_of,
)

__all__ = ["Router", "RouterStats"]

SWEEP_S: Final = 0.05
RETRY_FIRST_S: Final = 0.005
RETRY_LONGEST_S: Final = 0.25
REACH_S: Final = 5.0

_log = logging.getLogger(__name__)
_now = time.monotonic


class RouterStats:
    """Counters since the start of the router.

    Attributes:
        calls: accepted; retries: sent again; parked: had to wait; overloaded: refused by a bound of parking;
        expired: answered by their deadline.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.retries = 0
        self.parked = 0
        self.overloaded = 0
        self.expired = 0


class _Pending:
    """A call that the router answers for.

    Attributes:
        sent: it has left this process at least once.
        unknown: an attempt got no answer, so the method may have run.
        flying: an attempt is under way on a connection.
        replied: the caller has its answer; what still comes is only for the slot.
        error: the last answer that made us try again.
    """

    __slots__ = (
        "call",
        "error",
        "flying",
        "order",
        "replied",
        "reply",
        "router",
        "sent",
        "shard",
        "size",
        "slot",
        "unknown",
    )

    def __init__(self, router: Router, call: Call, order: int) -> None:
        self.router = router
        self.call = call
        self.reply: Reply = call.reply
        self.order = order
        self.shard = call.shard
        self.size = len(call.body)
        self.slot = -1
        self.sent = False
        self.unknown = False
        self.flying = False
        self.replied = False
        self.error: ActorError | None = None

    def answered(self, frame: Answer) -> None:
        """Part of Waiter."""
        self.flying = False
        if type(frame) is Result:
            self.router._answered(self, frame.body)
        elif type(frame) is Failure:
            self.router._failed(self, error_of(frame))
        else:
            raise WireError(f"a call was answered with {type(frame).__name__}")

    def local(self, outcome: bytes | ActorError) -> None:
        """The reply of the local engine."""
        if isinstance(outcome, ActorError):
            self.router._failed(self, outcome)
        else:
            self.router._answered(self, outcome)

    def lost(self, sent: bool) -> None:
        """Part of Waiter."""
        self.flying = False
        self.router._lost(self, sent)


class Router:
    """A Dispatcher that forwards to the owners of shards. Made and used on one event loop.

    Attributes:
        shards: of the namespace; table: the placement in use; stats: counters.
    """

    def __init__(
        self,
        table: Table,
        addresses: Mapping[str, str],
        *,
        local: Dispatcher | None = None,
        local_host: str | None = None,
        credentials: bytes = b"",
        role: str = INGRESS,
    ) -> None:
        """Connect to the hosts of the table.

        Args:
            table: who owns what.
            addresses: host id -> "127.0.0.1:7000" or the path of a Unix socket.
            local: takes the calls of shards that `local_host` owns.
            local_host: the host id of this process, if it is a host.
            credentials: the token that the hosts ask for.
            role: what this process says it is, see `kubeactor.wire`.
        """
        self.table = table
        self.shards = table.shards
        self.stats = RouterStats()
        self._loop = asyncio.get_running_loop()
        self._local = local
        self._local_host = local_host
        self._hello = Hello(VERSION, table.namespace, credentials, role, secrets.token_bytes(8))
        self._sessions = Sessions()
        self._links: dict[str, Link] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._parking: Parking[_Pending] = Parking()
        self._calls: set[_Pending] = set()
        self._fences: dict[int, int] = {}
        self._order = 0
        self._earliest = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self.update(table, addresses)

    @property
    def parked_calls(self) -> int:
        """Calls that wait for a way to their host at the moment."""
        return self._parking.calls

    @property
    def parked_bytes(self) -> int:
        """Bytes of the bodies of parked calls."""
        return self._parking.bytes

    @property
    def open_calls(self) -> int:
        """Calls without a final answer at the moment."""
        return len(self._calls)

    def use_credentials(self, credentials: bytes) -> None:
        """Say these to hosts from now on; open connections stay as they are."""
        self._hello = msgspec.structs.replace(self._hello, credentials=credentials)
        for link in self._links.values():
            link.hello = self._hello

    def connected(self, host: str) -> ClientConnection:
        """The open connection to a host.

        Raises:
            ActorShardUnavailableError: when there is none at the moment.
        """
        link = self._links.get(host)
        if link is None or (connection := link.ready) is None:
            trouble = "its address is not known" if link is None else link.trouble or "it does not read what it is sent"
            raise ActorShardUnavailableError(f"{host} can't be reached: {trouble}")
        return connection

    def epoch_of(self, shard: int) -> int:
        """The epoch of a shard by the table; 0 when it has no owner."""
        owner = self.table.owner(shard)
        return 0 if owner is None else owner[1]

    def trouble(self) -> dict[str, str]:
        """Host id -> why it can't be reached, one sentence, for each host that can't."""
        return {link.host: link.trouble for link in self._links.values() if link.ready is None}

    def submit(self, call: Call) -> None:
        """Accept the call; `call.reply` is called once, at the latest shortly after its deadline."""
        self.stats.calls += 1
        self._order += 1
        pending = _Pending(self, call, self._order)
        if pending.size > BODY_BYTES:
            self._finish(
                pending, BodyTooLargeError(f"the call's body has {pending.size} bytes, the limit is {BODY_BYTES}")
            )
        elif self._closed:
            self._finish(pending, ActorShardUnavailableError("this process is shutting down"))
        else:
            self._dispatch(pending)

    def probe(self, shard: int, body: bytes, reply: Reply) -> None:
        """Ask the engine that owns a shard, once: no parking and no retry, since the question is about this moment.

        The answer is the engine's, or an `ActorShardUnavailableError`.
        """
        owner = self.table.owner(shard)
        link = self._links.get(owner[0]) if owner else None
        connection = link.ready if link else None
        if owner is None or connection is None:
            reply(ActorShardUnavailableError(f"shard {shard} can't be reached"))
            return
        epoch = owner[1]
        connection.ask(lambda number: Probe(number, shard, epoch, body), _ProbeWaiter(shard, reply))

    async def list_parked(self) -> list[Item]:
        """What all hosts have parked.

        Raises:
            ActorShardUnavailableError: when one of them can't be reached.
        """
        found = await asyncio.gather(*(self._ask(host, ParkedRequest) for host in self.table.volumes))
        return [item for body in found for item in msgspec.json.decode(body, type=list[Item])]

    async def retry_parked(self, retry: Retry) -> bool:
        """Let the host of an instance try again what it has parked; False when there is none such.

        Raises:
            ActorArgumentError: when the instance is no actor id.
            ActorShardUnavailableError: when its host can't be reached.
        """
        try:
            identity = ActorId.parse(retry.instance).identity
        except ValueError as error:
            raise ActorArgumentError(str(error)) from error
        owner = self.table.owner(shard_of(identity, self.shards))
        if owner is None:
            raise ActorShardUnavailableError(f"{retry.instance} has no owner at the moment")
        question = partial(RetryRequest, kind=retry.kind, instance=retry.instance, message=retry.number)
        return msgspec.json.decode(await self._ask(owner[0], question), type=bool)

    async def _ask(self, host: str, question: Callable[[int], Frame]) -> bytes:
        connection = await self._reach(host)
        try:
            answer = await connection.answer(question)
        except ConnectionLost as error:
            raise ActorShardUnavailableError(f"{host} went away: {error}", started="unknown") from error
        assert isinstance(answer, Result)
        return answer.body

    async def _reach(self, host: str) -> ClientConnection:
        """The connection to a host; one that has just restarted is waited for."""
        end = _now() + REACH_S
        while (link := self._links.get(host)) is None or (connection := link.ready) is None:
            if _now() >= end:
                trouble = link.trouble if link is not None else "its address is not known"
                raise ActorShardUnavailableError(f"{host} can't be reached: {trouble}")
            await asyncio.sleep(SWEEP_S)
        return connection

    def update(self, table: Table, addresses: Mapping[str, str]) -> None:
        """Go by another table or other addresses from now on.

        Raises:
            PlacementError: when it is the table of another namespace.
        """
        if (table.namespace, table.shards) != (self.table.namespace, self.shards):
            raise PlacementError(f"a table of namespace {table.namespace!r} with {table.shards} shards is not ours")
        before, self.table = self.table.volumes, table
        wanted = {host: addresses[host] for host in table.volumes if host in addresses and host != self._local_host}
        for host, link in list(self._links.items()):
            # A host with another volume has to say hello anew: by its old one the open connection leads to lost data.
            if wanted.get(host) != link.address or before.get(host) != table.volumes[host]:
                self._drop(self._links.pop(host))
        for host, address in wanted.items():
            if host not in self._links:
                self._links[host] = Link(host, address, self._hello, self._check, self._opened, self._resumed)
        self._fences.clear()
        for shard, lane in list(self._parking.lanes.items()):
            lane.release()
            self._parking.drain(shard, self._send)

    def _drop(self, link: Link) -> None:
        link.cut()
        task = self._loop.create_task(link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _check(self, host: str, welcome: Welcome) -> str:
        volume = self.table.volumes.get(host)
        if welcome.host != host:
            return f"the address of {host} is answered by {welcome.host}"
        if welcome.volume != volume:
            return f"{host} has volume {welcome.volume}, but the table records volume {volume}"
        if welcome.shards != self.shards:
            return f"{host} divides its names over {welcome.shards} shards, not {self.shards}"
        return ""

    def _opened(self, host: str) -> None:
        for shard, lane in self._lanes_of(host):
            lane.release()
            self._parking.drain(shard, self._send)

    def _resumed(self, host: str) -> None:
        for shard, _ in self._lanes_of(host):
            self._parking.drain(shard, self._send)

    def _lanes_of(self, host: str) -> list[tuple[int, Lane[_Pending]]]:
        lanes = self._parking.lanes.items()
        return [(shard, lane) for shard, lane in lanes if (owner := self.table.owner(shard)) and owner[0] == host]

    def _dispatch(self, pending: _Pending) -> None:
        if pending.shard in self._parking.lanes or not self._send(pending):
            self._park(pending)

    def _send(self, pending: _Pending) -> bool:
        """Give the call to its owner; False when there is no way at the moment."""
        owner = self.table.owner(pending.shard)
        if owner is None:
            return False
        host, epoch = owner
        if host == self._local_host and self._local is not None:
            self._send_local(pending, epoch)
            return True
        link = self._links.get(host)
        connection = link.ready if link is not None else None
        if connection is None:
            return False
        now, call = _now(), pending.call
        if call.id is None or call.id.kind == LOCAL:
            call.id = self._sessions.take(call.shard, now)
            pending.slot = call.id.slot
        if pending.sent:
            self.stats.retries += 1
            call.repeat = True
        self._watch(pending)
        try:
            connection.call(call, epoch, max(0, int((call.deadline - now) * 1000)), pending)
        except BodyTooLargeError as error:
            self._finish(pending, error)
        else:
            pending.sent = pending.flying = True
        return True

    def _send_local(self, pending: _Pending, epoch: int) -> None:
        # The engine minds the deadline, and there is no connection to lose: only a refusal brings the call back here.
        self._calls.discard(pending)
        pending.call.epoch = epoch
        pending.call.reply = pending.local
        assert self._local is not None
        self._local.submit(pending.call)

    def _watch(self, pending: _Pending) -> None:
        self._calls.add(pending)
        if self._sweeper is None:
            self._earliest = pending.call.deadline
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        elif pending.call.deadline < self._earliest:
            self._earliest = pending.call.deadline

    def _park(self, pending: _Pending) -> None:
        if bound := self._parking.full(pending.shard, pending.size):
            self.stats.overloaded += 1
            if pending.unknown:
                self._give_up_slot(pending)
            self._finish(pending, ActorOverloadedError(bound))
        else:
            self.stats.parked += 1
            self._parking.add(pending)
            self._watch(pending)

    def _answered(self, pending: _Pending, body: bytes) -> None:
        if self._fences:
            self._fences.pop(pending.shard, None)
        self._finish(pending, body)

    def _failed(self, pending: _Pending, error: ActorError) -> None:
        """Retry what another attempt can turn into a success, pass on the rest.

        An error of these classes that a turn raised itself is its answer: only a host's own says `started` otherwise.
        """
        again = isinstance(error, ActorFencedError | ActorOutputGateError) and error.started != "yes"
        if isinstance(error, ActorOutputGateError):
            pending.unknown = True
        if again and not (pending.replied or self._closed or _now() >= pending.call.deadline):
            pending.error = error
            pending.call.repeat = True  # a turn that was cancelled with its host may have made calls
            self._hold(pending)
            return
        if again and pending.unknown:
            self._give_up_slot(pending)  # this attempt was refused, one before it may still run
        self._finish(pending, error)

    def _hold(self, pending: _Pending) -> None:
        """The host refuses this shard: let all its calls wait a little, or until another table comes."""
        tries = self._fences.get(pending.shard, 0)
        self._park(pending)
        lane = self._parking.lanes.get(pending.shard)
        if lane is not None and lane.hold is None:
            self._fences[pending.shard] = tries + 1
            lane.hold = self._loop.call_later(_delay(tries), self._release, pending.shard)

    def _release(self, shard: int) -> None:
        lane = self._parking.lanes.get(shard)
        if lane is not None:
            lane.hold = None
            self._parking.drain(shard, self._send)

    def _lost(self, pending: _Pending, sent: bool) -> None:
        pending.unknown = pending.unknown or sent
        if pending.replied:
            self._give_up_slot(pending)
            self._calls.discard(pending)
        elif self._closed:
            self._finish(pending, ActorShardUnavailableError("this process is shutting down"))
        else:
            self._dispatch(pending)

    def _finish(self, pending: _Pending, outcome: bytes | ActorError) -> None:
        """The final answer came, or there will be none: tell the caller, unless it was told."""
        self._calls.discard(pending)
        if pending.slot >= 0:
            self._sessions.free(pending.shard, pending.slot)
            pending.slot = -1
        self._reply(pending, outcome)

    def _reply(self, pending: _Pending, outcome: bytes | ActorError) -> None:
        if pending.replied:
            return
        pending.replied = True
        if pending.unknown and isinstance(outcome, ActorError) and outcome.status >= 500 and outcome.started == "no":
            outcome.started = "unknown"  # true of the last attempt only
        try:
            pending.reply(outcome)
        except Exception:  # one caller's fault must not take the connection, and others' answers, with it
            _log.exception("the caller of %s.%s failed at its answer", pending.call.binding, pending.call.method)

    def _give_up_slot(self, pending: _Pending) -> None:
        if pending.slot >= 0:
            self._sessions.retire(pending.shard, pending.slot, _now())
            pending.slot = -1

    def _sweep(self) -> None:
        """Answer the calls whose deadline has passed. One timer for all, since each call's own would cost more."""
        self._sweeper = None
        now = _now()
        if now >= self._earliest:
            late = [pending for pending in self._calls if pending.call.deadline <= now and not pending.replied]
            for pending in late:
                self._expire(pending)
            self._parking.drop(_is_replied)
            waiting = [pending.call.deadline for pending in self._calls if not pending.replied]
            self._earliest = min(waiting, default=now + SWEEP_S)
        if self._calls:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _expire(self, pending: _Pending) -> None:
        self.stats.expired += 1
        self._reply(pending, self._expired(pending))
        if not pending.flying:  # else the answer, or the loss of the connection, is still to come
            self._calls.discard(pending)
            self._give_up_slot(pending)

    def _expired(self, pending: _Pending) -> ActorError:
        error = pending.error
        if isinstance(error, ActorOutputGateError):
            return error
        if isinstance(error, ActorFencedError) and not (pending.flying or pending.unknown):
            return ActorShardUnavailableError(f"refused until the deadline: {error.detail}", started=error.started)
        if pending.sent:
            return ActorMethodTimeoutError("no answer within the call's deadline", started="unknown")
        owner = self.table.owner(pending.shard)
        if owner is None:
            return ActorShardUnavailableError(f"shard {pending.shard} had no owner within the call's deadline")
        link = self._links.get(owner[0])
        trouble = link.trouble if link is not None else "its address is not known"
        return ActorShardUnavailableError(f"{owner[0]} could not be reached within the call's deadline: {trouble}")

    async def close(self) -> None:
        """Answer what is open with `ActorShardUnavailableError`, then close the connections."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for pending in list(self._calls):
            if not pending.flying:
                self._finish(pending, ActorShardUnavailableError("this process is shutting down"))
        self._parking.drop(_is_replied)
        await asyncio.gather(*(link.close() for link in self._links.values()), *self._closing)


class _ProbeWaiter:
    def __init__(self, shard: int, reply: Reply) -> None:
        self._shard = shard
        self._reply = reply

    def answered(self, frame: Answer) -> None:
        if isinstance(frame, Result):
            self._reply(frame.body)
        elif isinstance(frame, Failure):
            self._reply(error_of(frame))
        else:
            raise WireError(f"a probe was answered with {type(frame).__name__}")

    def lost(self, sent: bool) -> None:
        self._reply(ActorShardUnavailableError(f"the host of shard {self._shard} went away"))


def _is_replied(pending: _Pending) -> bool:
    return pending.replied


def _delay(tries: int) -> float:
    return float(min(RETRY_FIRST_S * 2 ** min(tries, 10), RETRY_LONGEST_S))
