"""Stubs: what `env.ACCOUNT.id_from_name("alice")` returns, typed as the actor's class itself.

For each binding one class is made whose methods are the actor's callable ones; a method call gives a `StubCall`, a
coroutine of ours that does nothing until it is awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from kubeactor.fetch import packed_request, unpacked_response
from kubeactor.ids import ActorId
from kubeactor.nearest import did_you_mean
from kubeactor.scope import SCOPE, Scope, caller_line, process_scope

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from kubeactor.actor import Interface, Method
    from kubeactor.call import Dispatcher

__all__ = ["ActorStub", "Stub", "StubCall", "id_of", "stub_class"]


class StubCall(Coroutine[Any, Any, Any]):
    """One call of a stub's method; `await` makes it. `gather`, `create_task` and `wait_for` take it.

    The arguments are encoded when the call is written, so changing them afterwards changes nothing. One that nobody
    awaited when its turn ends fails the turn with `ActorUnawaitedCallError`.
    """

    __slots__ = ("_coroutine", "_scope", "method", "where")

    def __init__(self, scope: Scope, coroutine: Coroutine[Any, Any, Any], method: str, where: tuple[str, int]) -> None:
        self._scope = scope
        self._coroutine = coroutine
        self.method = method
        self.where = where
        if scope.unawaited is None:
            scope.unawaited = {}
        scope.unawaited[self] = None

    def _started(self) -> Coroutine[Any, Any, Any]:
        if self._scope.unawaited:
            self._scope.unawaited.pop(self, None)
        return self._coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._started().__await__()

    def send(self, value: Any, /) -> Any:
        """Resume, as of any coroutine."""
        return self._started().send(value)

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> Any:
        """Throw into it, as of any coroutine."""
        if val is None and tb is None:
            return self._started().throw(typ)
        return self._started().throw(typ, val, tb)

    def close(self) -> None:
        """Give it up; a call under way goes on at its callee."""
        self._started().close()

    def drop(self) -> None:
        """Close the coroutine inside without the warning that it was never awaited."""
        self._coroutine.close()


class Stub:
    """One instance as its callers see it; a subclass for each binding has the methods.

    Attributes:
        _type: the binding, its class and the methods that can be called.
    """

    __kubeactor_stub__: ClassVar[bool] = True
    __slots__ = ("_id",)
    _type: ClassVar[Interface]

    def __init__(self, id: ActorId) -> None:
        self._id = id

    def __repr__(self) -> str:
        return f"<stub {self._id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stub) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        methods = sorted(self._type.methods)
        near = did_you_mean(name, methods) or f"; a stub has methods only: {', '.join(methods)}"
        raise AttributeError(f"{type(self).__name__} has no method {name!r}{near}")


class ActorStub(Stub):
    """The base of the stubs that actors and the front door call."""

    __slots__ = ("_dispatcher",)

    def __init__(self, id: ActorId, dispatcher: Callable[[], Dispatcher]) -> None:
        super().__init__(id)
        self._dispatcher = dispatcher


def id_of(stub: object) -> ActorId:
    """The id of a stub; the id may be stored, passed and returned, the stub may not.

    Raises:
        TypeError: when it is no stub.
    """
    if not isinstance(stub, Stub):
        raise TypeError(f"id_of takes a stub such as env.ACCOUNT.id_from_name('alice'), not {type(stub).__name__}")
    return stub._id


def stub_class(actor_type: Interface) -> type[ActorStub]:
    """The class of a binding's stubs."""
    body: dict[str, Any] = {"__slots__": (), "_type": actor_type, "__doc__": actor_type.cls.__doc__}
    for name, method in actor_type.methods.items():
        body[name] = _stub_method(name, method)
    fetch = getattr(actor_type, "fetch", None)
    if fetch is not None:
        body["fetch"] = _stub_fetch(fetch)
    return type(f"{actor_type.cls.__name__}Stub", (ActorStub,), body)


def _stub_fetch(method: Method) -> Callable[..., StubCall]:
    def fetch(self: ActorStub, request: Request) -> StubCall:
        """Forward an HTTP request to the instance's `fetch`."""
        scope = SCOPE.get() or process_scope(self._dispatcher())
        scope.fence()
        binding, identity = self._id
        number = scope.number(binding, identity, method.name)

        async def forward() -> Response:
            body = method.arguments.encode([await packed_request(request)], {})
            return unpacked_response(await scope.invoke(binding, identity, method, number, body))

        return StubCall(scope, forward(), f"{binding}.fetch", caller_line(1))

    return fetch


def _stub_method(name: str, method: Method) -> Callable[..., StubCall]:
    def call(self: ActorStub, *args: Any, **kwargs: Any) -> StubCall:
        scope = SCOPE.get() or process_scope(self._dispatcher())
        scope.fence()
        body = method.arguments.encode(args, kwargs)
        binding, identity = self._id
        coroutine = scope.invoke(binding, identity, method, scope.number(binding, identity, method.name), body)
        return StubCall(scope, coroutine, f"{binding}.{name}", caller_line(1))

    call.__name__ = name
    call.__qualname__ = f"{method.owner}.{name}"
    call.__doc__ = method.function.__doc__
    return call
