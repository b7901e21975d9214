"""`Env`: the bindings and the configuration that actors and the front door share."""

from __future__ import annotations

import os
import typing
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import msgspec

from kubeactor.ids import BINDING, ActorId, identity_of_name, new_unique_identity
from kubeactor.stub import stub_class

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from kubeactor.actor import ActorType, Interface
    from kubeactor.call import Dispatcher

__all__ = ["Binding", "Env", "Secret"]

A_co = TypeVar("A_co", covariant=True)
STATE_KEY = "kubeactor.env"


class Secret(str):
    """A configuration text that does not show in a repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"


class Binding(Generic[A_co]):
    """The instances of one actor class; each method gives a stub that is typed as the class itself."""

    def __init__(self, actor_type: Interface, dispatcher: Callable[[], Dispatcher]) -> None:
        self._type = actor_type
        self._stub_class = stub_class(actor_type)
        self._dispatcher = dispatcher

    def _stub(self, identity: bytes) -> A_co:
        return typing.cast("A_co", self._stub_class(ActorId(self._type.binding, identity), self._dispatcher))

    def id_from_name(self, name: str, /) -> A_co:
        """The instance of that name.

        Raises:
            ValueError: when the name is empty, above 1,024 bytes of UTF-8, or holds NUL or a lone surrogate.
            TypeError: when it is no text.
        """
        return self._stub(identity_of_name(name))

    def idFromName(self, name: str, /) -> A_co:  # noqa: N802 - the Durable Objects spelling
        """The same as `id_from_name`."""
        return self.id_from_name(name)

    def get_by_name(self, name: str, /) -> A_co:
        """The same as `id_from_name`."""
        return self.id_from_name(name)

    def new_unique_id(self) -> A_co:
        """A new instance without a name: 128 random bits that no name collides with."""
        return self._stub(new_unique_identity())

    def get(self, id: ActorId | str, /) -> A_co:
        """The instance of an id, or of its text.

        Raises:
            ValueError: when it is the id of another binding, or no id.
        """
        parsed = ActorId.parse(id) if isinstance(id, str) else id
        if parsed.binding != self._type.binding:
            raise ValueError(f"{parsed} belongs to {parsed.binding}, not to {self._type.binding}")
        return self._stub(parsed.identity)

    def __repr__(self) -> str:
        return f"<binding {self._type.binding} of {self._type.cls.__qualname__}>"


class Env:
    """Subclass it to declare bindings (`ACCOUNT: Binding[Account]`) and configuration (`FEE: int = 0`).

    Any upper-case attribute that is no binding is read from the environment variable of that name and converted to
    its type, which is that of its default if it has no hint; without a default it is required.
    """

    if not TYPE_CHECKING:  # type checkers take a class that has it for one that has every attribute

        def __getattr__(self, name: str) -> Any:
            bound = ", ".join(sorted(key for key, value in vars(self).items() if isinstance(value, Binding)))
            raise AttributeError(f"env has no {name!r}; bound are: {bound or 'none'}")

    @classmethod
    def of(cls, request: HTTPConnection) -> Self:
        """The env of the process that serves this request.

        Raises:
            TypeError: when the request did not come through a kubeactor front door.
        """
        env = request.scope.get("state", {}).get(STATE_KEY)
        if not isinstance(env, cls):
            raise TypeError(
                f"{cls.__name__}.of(request) works behind a kubeactor front door; found {type(env).__name__}"
            )
        return env

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Open clients here (HTTP, databases): entered in each process after the fork, before the first turn."""
        yield


def make_env(
    cls: type[Env],
    types: Mapping[str, ActorType],
    dispatcher: Callable[[], Dispatcher],
    environ: Mapping[str, str] | None = None,
) -> Env:
    """An instance of the user's Env with all bindings and all configuration set.

    Args:
        types: the bound classes by binding.
        dispatcher: gives the process's dispatcher once it exists.
        environ: instead of `os.environ`.

    Raises:
        ValueError: one text that tells all that is missing or wrong.
    """
    env = cls()
    wrong: list[str] = []
    for name, hint in _declared(cls).items():
        if typing.get_origin(hint) is Binding or hint is Binding:
            if name not in types:
                wrong.append(f"{name} is declared as a binding, but no class is bound under that name")
        elif BINDING.fullmatch(name):
            try:
                env.__dict__[name] = _configured(cls, name, hint, os.environ if environ is None else environ)
            except ValueError as error:
                wrong.append(str(error))
    if wrong:
        raise ValueError(f"{cls.__name__}: " + "; ".join(wrong))
    for name, actor_type in types.items():
        env.__dict__[name] = Binding(actor_type, dispatcher)
    return env


def _declared(cls: type[Env]) -> dict[str, Any]:
    """The hints of a class; `FEE = 0` without one is of the type of its value."""
    if cls is Env:
        return {}
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise ValueError(
            f"a type in {cls.__qualname__} can't be resolved: {error}; move its import out of `if TYPE_CHECKING`"
        ) from error
    for base in cls.__mro__:
        for name, value in vars(base).items():
            if BINDING.fullmatch(name) and isinstance(value, bool | int | float | str):
                hints.setdefault(name, type(value))
    return hints


def _configured(cls: type[Env], name: str, hint: Any, environ: Mapping[str, str]) -> Any:
    text = environ.get(name)
    if text is None:
        if name in cls.__dict__ or any(name in base.__dict__ for base in cls.__mro__):
            return getattr(cls, name)
        raise ValueError(f"the environment variable {name} is not set")
    if hint is str:
        return text
    if isinstance(hint, type) and issubclass(hint, str):
        return hint(text)
    try:
        return msgspec.convert(text, hint, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"the environment variable {name} is not of its type: {error}") from error
