"""An `Env` of another service: the same class, with bindings whose stubs call through a client."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from kubeactor.actor import Actor, ActorType, Interface
from kubeactor.env import Binding, Env
from kubeactor.ids import BINDING, ActorId
from kubeactor.stub import Stub

__all__ = ["Caller", "ClientStub", "bound_env"]

A_co = TypeVar("A_co", covariant=True)
E = TypeVar("E", bound=Env)

# A program knows few classes; the bound is for one that makes them as it runs.
INTERFACES = 256


class Caller(Protocol):
    """Makes the calls of stubs."""

    def invoke(self, stub: ClientStub, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `stub.method(*args, **kwargs)` gives."""


class ClientStub(Stub):
    """The base of a client's stubs."""

    __slots__ = ("_client",)

    def __init__(self, id: ActorId, client: Caller) -> None:
        super().__init__(id)
        self._client = client


class ClientBinding(Binding[A_co]):
    """A binding whose stubs call through a client."""

    def __init__(self, interface: Interface, client: Caller) -> None:
        self._type = interface
        self._stubs = _stub_class(interface)
        self._client = client

    def _stub(self, identity: bytes) -> A_co:
        return typing.cast("A_co", self._stubs(ActorId(self._type.binding, identity), self._client))


def bound_env(cls: type[E], client: Caller) -> E:
    """An instance of the class with its bindings; configuration is the host's business and stays unset.

    Raises:
        TypeError: when the class is no Env, binds nothing, or binds what can't be called; one sentence says what to do.
    """
    if not (isinstance(cls, type) and issubclass(cls, Env)):
        raise TypeError(f"connect takes a subclass of kubeactor.Env that declares bindings, not {cls!r}")
    env = cls()
    for name, hint in _hints(cls).items():
        if hint is Binding or typing.get_origin(hint) is Binding:
            env.__dict__[name] = ClientBinding(_interface(name, *typing.get_args(hint)[:1]), client)
    if not env.__dict__:
        raise TypeError(f"{cls.__name__} declares no binding; write `ACCOUNT: Binding[Account]` in it")
    return env


def _hints(cls: type[Env]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except NameError as error:
        raise TypeError(
            f"{cls.__name__}: the type {error.name} can't be resolved; move its import out of `if TYPE_CHECKING`"
        ) from error


@functools.lru_cache(maxsize=INTERFACES)
def _interface(binding: str, cls: Any = None) -> Interface:
    """The methods of an actor class, or of a Protocol or base class that stands for one."""
    if not BINDING.fullmatch(binding):
        raise TypeError(f"{binding!r} is no binding name: upper-case letters, digits and _, as in ACCOUNT")
    if not isinstance(cls, type):
        raise TypeError(f"{binding}: write Binding[Account], with an actor class or a Protocol, not {cls!r}")
    if issubclass(cls, Actor):
        return ActorType(binding, cls)
    for name, member in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("_") and not inspect.iscoroutinefunction(member):
            raise TypeError(f"{cls.__qualname__}.{name} is a plain function: write `async def {name}`")
    interface = Interface(binding, cls)
    if not interface.methods:
        raise TypeError(f"{binding}: {cls.__qualname__} has no public `async def` method that could be called")
    return interface


@functools.lru_cache(maxsize=INTERFACES)
def _stub_class(interface: Interface) -> type[ClientStub]:
    body: dict[str, Any] = {"__slots__": (), "_type": interface, "__doc__": interface.cls.__doc__}
    for name, method in interface.methods.items():
        body[name] = _stub_method(name, method.function)
    return type(f"{interface.cls.__name__}Stub", (ClientStub,), body)


def _stub_method(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: ClientStub, *args: Any, **kwargs: Any) -> Any:
        return self._client.invoke(self, name, args, kwargs)

    call.__name__ = name
    call.__qualname__ = function.__qualname__
    call.__doc__ = function.__doc__
    return call
