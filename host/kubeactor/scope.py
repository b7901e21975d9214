"""Who is calling: the scope that a stub, storage, an alarm or a send acts for.

A contextvar holds it, so tasks and threads started by a method inherit it. When a turn or request ends, its scope is
revoked: code that it left behind still finds the scope, sees that it is dead, and gets `ActorFencedError`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from kubeactor.call import CODEC, DAY, Call, Dispatcher, derived_id
from kubeactor.errors import ActorError, ActorFencedError, ActorOverloadedError, ActorReentrancyError
from kubeactor.ids import shard_of
from kubeactor.limits import CALL_DEFAULT_S, CHAIN_DEPTH, OUTGOING_CALLS

if TYPE_CHECKING:
    from kubeactor.actor import Method
    from kubeactor.stub import StubCall

__all__ = ["SCOPE", "RequestScope", "Scope"]


class Scope:
    """A turn or a front-door request: gives each call made inside it its id, and what remains of its time.

    Attributes:
        parent: the token that derived ids are made from.
        bucket, root, chain, deadline, repeat: as on `Call`, handed down to the calls made inside.
        live: False once the turn or request has ended.
        waiting: the calls that are under way, for cycle detection and the limit on outgoing calls.
    """

    __slots__ = (
        "bucket",
        "chain",
        "deadline",
        "dispatcher",
        "live",
        "numbers",
        "parent",
        "repeat",
        "root",
        "unawaited",
        "waiting",
    )
    # What the poison page shows while this scope's code runs; a turn has one.
    label: bytes = b""

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        parent: bytes,
        bucket: int,
        deadline: float,
        root: bytes,
        chain: tuple[bytes, ...] = (),
        repeat: bool = False,
    ) -> None:
        self.dispatcher = dispatcher
        self.parent = parent
        self.bucket = bucket
        self.deadline = deadline
        self.root = root
        self.chain = chain
        self.repeat = repeat
        self.live = True
        self.numbers: dict[tuple[str, bytes, str], int] | None = None
        self.waiting: dict[Call, None] | None = None
        self.unawaited: dict[StubCall, None] | None = None

    def number(self, binding: str, identity: bytes, method: str) -> int:
        """How many calls of that method of that instance were made here before this one."""
        if self.numbers is None:
            self.numbers = {}
        key = (binding, identity, method)
        n = self.numbers.get(key, 0)
        self.numbers[key] = n + 1
        return n

    def fence(self) -> None:
        """Refuse to act for a scope that has ended.

        Raises:
            ActorFencedError: when it has.
        """
        if not self.live:
            raise ActorFencedError(
                "the turn or request that this code belongs to has ended; await what you start, or let an alarm do it"
            )

    def parent_token(self) -> bytes:
        """The token that derived ids are made from."""
        return self.parent

    def inner_chain(self) -> tuple[bytes, ...]:
        """The chain that a call made inside carries."""
        return self.chain

    def ready(self, shard: int) -> asyncio.Future[None] | None:
        """What a call to that shard waits for before it leaves this process; None if nothing."""
        return None

    def saw(self, batch: int) -> None:
        """Note that a result computed from that unsynced batch of this host was handed in."""

    def end(self) -> None:
        """Revoke: from now on everything that acts for this scope is fenced."""
        self.live = False

    async def invoke(self, binding: str, identity: bytes, method: Method, number: int, body: bytes) -> Any:
        """Make a call and wait for its result.

        Raises:
            ActorError: whatever the call ended with.
            ActorFencedError: when the scope has ended.
            ActorOverloadedError: when 64 calls of this scope are under way.
            ActorReentrancyError: when the chain is 16 deep.
        """
        self.fence()
        chain = self.inner_chain()
        if len(chain) >= CHAIN_DEPTH:
            raise ActorReentrancyError(f"a chain of calls is at most {CHAIN_DEPTH} deep: {chain_text(chain)}")
        if self.waiting is None:
            self.waiting = {}
        if len(self.waiting) >= OUTGOING_CALLS:
            raise ActorOverloadedError(f"a turn has at most {OUTGOING_CALLS} calls under way at once")
        future: asyncio.Future[bytes | ActorError] = asyncio.get_running_loop().create_future()
        call = Call(
            binding,
            identity,
            method.name,
            body,
            shard=shard_of(identity, self.dispatcher.shards),
            deadline=self.deadline,
            reply=lambda outcome: None if future.done() else future.set_result(outcome),
            format=CODEC,
            id=derived_id(self.parent_token(), binding, identity, method.name, number),
            bucket=self.bucket,
            chain=chain,
            root=self.root or self.parent_token(),
            repeat=self.repeat or self.bucket == DAY,
            internal=True,
            scope=self,
        )
        self.waiting[call] = None
        try:
            if (safe := self.ready(call.shard)) is not None:
                await safe
            self.dispatcher.submit(call)
            outcome = await future
        finally:
            self.waiting.pop(call, None)
        if isinstance(outcome, ActorError):
            if outcome.instance is None:
                outcome.instance = instance_text(call.instance)
            raise outcome
        return method.arguments.decode_result(outcome)

    def unawaited_call(self) -> StubCall | None:
        """A stub call that was made and never awaited, if there is one."""
        return next(iter(self.unawaited)) if self.unawaited else None


class RequestScope(Scope):
    """The scope of one front-door request, or of code that runs outside of any turn."""

    __slots__ = ()


def process_scope(dispatcher: Dispatcher) -> RequestScope:
    """A scope of its own for a call that is made outside of any turn or request (a lifespan, a background task)."""
    import secrets

    parent = secrets.token_bytes(16)
    return RequestScope(
        dispatcher,
        parent=parent,
        bucket=int(time.time()) // 600,
        deadline=time.monotonic() + CALL_DEFAULT_S,
        root=parent,
    )


def chain_text(chain: tuple[bytes, ...]) -> str:
    """A chain as a person reads it: `ACCOUNT/a -> ACCOUNT/b`."""
    return " -> ".join(instance_text(link) for link in chain)


def instance_text(instance: bytes) -> str:
    """`BINDING NUL identity` as `BINDING/name`, or `BINDING!digits` for a unique id."""
    binding, _, identity = instance.partition(b"\0")
    if identity[:1] == b"\xff":
        return f"{binding.decode()}!{identity[1:].decode()}"
    return f"{binding.decode()}/{identity.decode(errors='replace')}"


def caller_line(depth: int) -> tuple[str, int]:
    """File and line of the caller that many frames up."""
    frame = sys._getframe(depth + 1)
    return frame.f_code.co_filename, frame.f_lineno


SCOPE: ContextVar[Scope | None] = ContextVar("kubeactor.scope", default=None)
