"""`self.ctx`: what an instance knows of itself and can do beside its methods."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from kubeactor.errors import ActorArgumentError, ActorFencedError, BlockConcurrencyTimeoutError
from kubeactor.ids import ActorId
from kubeactor.scope import SCOPE
from kubeactor.storage import Storage, from_us
from kubeactor.stub import ActorStub

if TYPE_CHECKING:
    from kubeactor.engine.instance import Instance

__all__ = ["Context"]

P = ParamSpec("P")
R = TypeVar("R")
BLOCK_CONCURRENCY_S = 30.0


class Context:
    """What an instance knows of itself.

    Attributes:
        id: binding and identity.
        name: the name; for a unique id its 32 hex digits.
        storage: its key-value storage.
    """

    __slots__ = ("_instance", "id", "name", "storage")

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self.id = ActorId(instance.type.binding, instance.identity)
        self.name = self.id.name or str(self.id).partition("!")[2]
        self.storage = Storage(instance)

    def now(self) -> datetime:
        """The clock of alarms, aware UTC: constant within a turn, virtual in tests."""
        return from_us(self.storage._turn().now_us())

    def send(self, method: Callable[P, Coroutine[Any, Any, object]], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Send a message if and only if this turn commits; delivered in order per pair, applied once.

        Args:
            method: a stub's method, as in `self.ctx.send(self.env.ACCOUNT.id_from_name("bob").deposit, 30)`.

        Raises:
            ActorArgumentError: when it is no method of a stub.
            ActorFencedError: outside of a turn, as in a front door, or after it has ended.
            CodecError: when an argument has no stored form.
        """
        stub = getattr(method, "__self__", None)
        if not isinstance(stub, ActorStub) or (target := stub._type.methods.get(method.__name__)) is None:
            raise ActorArgumentError("send takes a stub's method: self.ctx.send(stub.deposit, 30)")
        scope = SCOPE.get()
        if scope is None or not scope.live or getattr(scope, "instance", None) is not self._instance:
            raise ActorFencedError("send works inside a turn of this instance only, and this turn has ended")
        self.storage._turn().send(stub._id, target.name, target.arguments.encode(args, kwargs))

    async def block_concurrency_while(self, function: Callable[[], Awaitable[R]]) -> R:
        """Await the function; nothing else of this instance runs meanwhile, as always within a turn.

        It is here for those who come from Durable Objects.

        Raises:
            BlockConcurrencyTimeoutError: after 30 s.
        """
        self.storage._turn()
        try:
            async with asyncio.timeout(BLOCK_CONCURRENCY_S):
                return await function()
        except TimeoutError as error:
            raise BlockConcurrencyTimeoutError(
                f"block_concurrency_while took more than {BLOCK_CONCURRENCY_S:.0f} s"
            ) from error
