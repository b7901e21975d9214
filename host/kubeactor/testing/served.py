"""What a test serves: the application that an Env declares, with fakes and values in the place of some of it."""

from __future__ import annotations

import difflib
import os
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from kubeactor.actor import Actor, ActorType
from kubeactor.application import Application, UserCodeError, actor_type, bindings_of
from kubeactor.env import Binding, Env
from kubeactor.ids import BINDING

__all__ = ["application_with"]

E = TypeVar("E", bound=Env)


def application_with(env_class: type[Env], front_door: Any, values: Mapping[str, Any]) -> Application:
    """The application of an Env with some of its attributes replaced.

    Args:
        front_door: an ASGI app, an `async def fetch(request, env)` or None.
        values: an actor class for a binding, a value for a configuration, any object for a client.

    Raises:
        UserCodeError: when one of them does not fit, or the Env can't be served; one sentence.
    """
    if not (isinstance(env_class, type) and issubclass(env_class, Env)):
        raise UserCodeError(f"testing.run takes an Env class, as in testing.run(Bank), not {env_class!r}")
    if front_door is not None and not callable(front_door):
        raise UserCodeError(f"front_door is an ASGI app or an async def fetch(request, env), not {front_door!r}")
    classes = bindings_of(env_class)
    hints = typing.get_type_hints(env_class, include_extras=True)
    _check_names(env_class, hints, values)
    types: dict[str, ActorType] = {}
    for binding, declared in classes.items():
        given = values.get(binding, declared)
        if not (isinstance(given, type) and issubclass(given, Actor)):
            shown = given.__qualname__ if isinstance(given, type) else repr(given)
            raise UserCodeError(
                f"{shown} is no Actor: give a class for {binding}, as in testing.run(..., {binding}=Fake)"
            )
        types[binding] = actor_type(binding, given)
    set_to = {
        name: _configured(env_class, name, hints[name], value) if BINDING.fullmatch(name) else value
        for name, value in values.items()
        if name not in classes
    }
    return _Replaced(types, env_class, front_door, set_to)


class _Replaced(Application):
    """An application whose Env has some attributes set by a test, whatever its environment and lifespan say."""

    def __init__(
        self, bindings: Mapping[str, ActorType], env_class: type[Env], front_door: Any, values: Mapping[str, Any]
    ) -> None:
        super().__init__(bindings, _keeping(env_class, values) if values else env_class, front_door)
        self._values = values

    def make_env(self, dispatcher: Any, environ: Mapping[str, str] | None = None) -> Env:
        """The Env, with those values.

        Raises:
            UserCodeError: when something else is missing.
        """
        environ = os.environ if environ is None else environ
        left = {name: text for name, text in environ.items() if name not in self._values}
        try:
            env = super().make_env(dispatcher, left)
        except UserCodeError as error:
            raise UserCodeError(f"{error}; set it, or give a value: testing.run(..., NAME=value)") from error
        env.__dict__.update(self._values)
        return env


def _keeping(cls: type[E], values: Mapping[str, Any]) -> type[E]:
    """A subclass on which what a lifespan assigns to one of these names is ignored."""

    def keep(self: Env, name: str, value: object) -> None:
        if name not in values:
            object.__setattr__(self, name, value)

    configured = {name: value for name, value in values.items() if BINDING.fullmatch(name)}
    body = {"__setattr__": keep, "__module__": cls.__module__, "__qualname__": cls.__qualname__, **configured}
    return type(cls.__name__, (cls,), body)


def _check_names(cls: type[Env], hints: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    for name in values:
        if name in hints or hasattr(cls, name) or not BINDING.fullmatch(name):
            continue  # a client need not be declared: a lifespan may just assign it
        near = difflib.get_close_matches(name, [n for n in hints if BINDING.fullmatch(n)], 1)
        raise UserCodeError(f"{cls.__qualname__} declares no {name}" + (f"; did you mean {near[0]}?" if near else ""))


def _configured(cls: type[Env], name: str, hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) is Binding or (isinstance(hint, type) and isinstance(value, hint)):
        return value
    if isinstance(hint, type) and issubclass(hint, str) and isinstance(value, str):
        return hint(value)
    try:
        return msgspec.convert(value, hint)
    except (msgspec.ValidationError, TypeError) as error:
        raise UserCodeError(f"{cls.__qualname__}.{name} is not of its type: {error}") from error
