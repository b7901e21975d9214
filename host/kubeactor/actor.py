"""The class that users write: `Actor`, the `@method` decorator, and what of a class can be called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import msgspec

from kubeactor.arguments import Arguments
from kubeactor.context import Context
from kubeactor.errors import ActorError, ActorPrivateMethodError, ActorUnknownMethodError
from kubeactor.fetch import FETCH, run_fetch
from kubeactor.limits import CALL_MAX_S
from kubeactor.nearest import did_you_mean
from kubeactor.page import METHOD_BYTES

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


__all__ = ["Actor", "ActorType", "AlarmInfo", "Interface", "Message", "Method", "method"]

HOOKS = frozenset({"activate", "alarm", "undelivered", "fetch", "web_socket"})
SET_BY_HOST = frozenset({"ctx", "env"})
_HOOKS_TAKE: Mapping[str, tuple[str, ...]] = {
    "activate": (),
    "alarm": ("info",),
    "undelivered": ("message", "error"),
    "fetch": ("request",),
}
P = ParamSpec("P")
R = TypeVar("R")


class AlarmInfo(NamedTuple):
    """What an alarm handler is told.

    Attributes:
        scheduled_time: aware UTC, as it was set; retries keep it.
        retry_count: counted failed runs before this one.
        is_retry: whether there were any; a run that ended with its host is not counted.
    """

    scheduled_time: datetime
    retry_count: int
    is_retry: bool


class Message(NamedTuple):
    """A message that ended without effect, as `undelivered` gets it.

    Attributes:
        receiver: `BINDING/name` of the instance that it was for.
        method: the method's name.
        args: the positional arguments; kwargs: the named ones, both as they were sent.
        number: of the sender; grows.
        attempts: counted tries.
    """

    receiver: str
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    number: int
    attempts: int


class Actor:
    """Base of all actors: one instance per name, one turn at a time, durable before reply.

    `ctx` and `env` are set before `__init__`, which takes nothing. Fields of the instance are a cache: only what is
    put into `self.ctx.storage` survives.
    """

    ctx: Context
    env: Any

    if not TYPE_CHECKING:  # type checkers take a class that has it for one that has every attribute

        def __getattr__(self, name: str) -> Any:
            made = type(self).__qualname__
            if name in ("ctx", "env"):
                raise AttributeError(
                    f"{made}() is an object without a name or storage: write env.BINDING.id_from_name('a'), and await"
                    " its methods"
                )
            raise AttributeError(f"{made!r} object has no attribute {name!r}", name=name, obj=self)

    async def activate(self) -> None:
        """Run before the first turn after activation, as a turn of its own."""

    async def alarm(self, info: AlarmInfo, /) -> None:
        """Run when the alarm is due; override it to use `set_alarm`."""

    async def undelivered(self, message: Message, error: ActorError, /) -> None:
        """Run once for a message that ended without effect; without it such a message is parked."""

    async def fetch(self, request: Request, /) -> Response:
        """Answer an HTTP request that is forwarded to this instance."""
        raise ActorUnknownMethodError(f"{type(self).__name__} does not define fetch")


class _Options(msgspec.Struct, frozen=True):
    internal: bool
    timeout_s: float | None
    aliases: tuple[str, ...]


def method(
    *, internal: bool = False, timeout_s: float | None = None, aliases: list[str] | tuple[str, ...] = ()
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, Coroutine[Any, Any, R]]]:
    """Options of one method.

    Args:
        internal: only actors and the front door may call it; from outside it is 403.
        timeout_s: its budget in seconds instead of the default 30, at most 300.
        aliases: earlier names that still reach it, so that messages and clients outlive a rename.

    Raises:
        ValueError: when timeout_s is out of range or an alias is no public name.
    """
    if timeout_s is not None and not 0 < timeout_s <= CALL_MAX_S:
        raise ValueError(f"timeout_s is more than 0 and at most {CALL_MAX_S:.0f} seconds, not {timeout_s!r}")
    for alias in aliases:
        if not alias.isidentifier() or alias.startswith("_") or alias in HOOKS:
            raise ValueError(f"an alias is a public method name, not {alias!r}")

    def mark(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        function.__kubeactor_options__ = _Options(internal, timeout_s, tuple(aliases))  # type: ignore[attr-defined]
        return function

    return mark


class Method:
    """One callable method of an actor class."""

    __slots__ = ("arguments", "function", "internal", "label", "name", "owner", "timeout_s")

    def __init__(self, name: str, function: Callable[..., Any], owner: str) -> None:
        options: _Options = getattr(function, "__kubeactor_options__", _Options(False, None, ()))
        self.name = name
        self.owner = owner
        self.label = b"\0" + name.encode()[:METHOD_BYTES] + b"\0"  # as kubeactor.page.label_of ends
        self.function = function
        self.internal = options.internal
        self.timeout_s = options.timeout_s
        self.arguments = Arguments(function, f"{owner}.{name}")


class Interface:
    """What can be called under a binding: the public coroutine methods of a class, or of a Protocol that stands for it.

    Attributes:
        methods: by every name that reaches them, aliases too.

    Raises:
        TypeError: when two methods share a name, or a hint can't be served; one sentence says what to write.
    """

    def __init__(self, binding: str, cls: type[Any]) -> None:
        self.binding = binding
        self.cls = cls
        self.methods: dict[str, Method] = {}
        for name, function in _callables(cls).items():
            made = Method(name, function, cls.__qualname__)
            options = getattr(function, "__kubeactor_options__", None)
            for reached in (name, *(options.aliases if options else ())):
                if reached in self.methods and self.methods[reached].function is not function:
                    raise TypeError(f"{cls.__qualname__}: two methods are reached as {reached!r}")
                self.methods[reached] = made


class ActorType(Interface):
    """A class under its binding: which methods can be called, which hooks it has.

    Attributes:
        fetch: the method that runs its `fetch`, if it has one.
        served: the methods, and `fetch` under a name that no client can write.

    Raises:
        TypeError: when the class is no Actor or has a member that can't be served; one sentence says what to write.
    """

    cls: type[Actor]

    def __init__(self, binding: str, cls: type[Actor]) -> None:
        if not (isinstance(cls, type) and issubclass(cls, Actor) and cls is not Actor):
            name = getattr(cls, "__qualname__", cls)
            own = name if isinstance(cls, type) and cls is not Actor else "Account"
            raise TypeError(f"{name!r} is not a subclass of kubeactor.Actor: write `class {own}(Actor)`")
        _check_body(cls)
        _check_init(cls)
        super().__init__(binding, cls)
        self.has_activate = _overrides(cls, "activate")
        self.has_alarm = _overrides(cls, "alarm")
        self.has_undelivered = _overrides(cls, "undelivered")
        self.fetch = _fetch_method(cls) if _overrides(cls, "fetch") else None
        self.served = self.methods if self.fetch is None else {**self.methods, FETCH: self.fetch}

    def method(self, name: str, *, internal: bool) -> Method:
        """The method a caller may call by that name. Looked up in a table made at load, never by getattr.

        Raises:
            ActorUnknownMethodError: when there is none.
            ActorPrivateMethodError: when it is internal and the caller is outside.
        """
        found = self.served.get(name)
        if found is None and name == FETCH:
            raise ActorUnknownMethodError(f"{self.cls.__qualname__} has no `async def fetch(self, request)`: write one")
        if found is None:
            known = [each for each, method in self.methods.items() if internal or not method.internal]
            near = did_you_mean(name, known)
            raise ActorUnknownMethodError(f"{self.cls.__qualname__} has no callable method {name[:100]!r}{near}")
        if found.internal and not internal:
            raise ActorPrivateMethodError(f"{self.cls.__qualname__}.{name} is internal: actors and the front door only")
        return found


def _overrides(cls: type[Actor], hook: str) -> bool:
    return getattr(cls, hook) is not getattr(Actor, hook)


def _fetch_method(cls: type[Actor]) -> Method:
    made = Method(FETCH, run_fetch, cls.__qualname__)
    options: _Options = getattr(cls.fetch, "__kubeactor_options__", _Options(False, None, ()))
    made.internal = True  # a JSON call from outside does not reach it; the route of the ingress does
    made.timeout_s = options.timeout_s
    return made


def _callables(cls: type[Any]) -> dict[str, Callable[..., Any]]:
    """Public coroutine methods of the class and its bases other than Actor, nearest definition first."""
    found: dict[str, Callable[..., Any]] = {}
    hidden: set[str] = set(HOOKS)
    for base in cls.__mro__:
        if base in (Actor, object):
            continue
        for name, member in vars(base).items():
            if name.startswith("_") or name in hidden:
                continue
            hidden.add(name)
            if inspect.iscoroutinefunction(member):
                found[name] = member
    return found


def _check_init(cls: type[Actor]) -> None:
    try:
        first, *others = inspect.signature(cls.__init__).parameters.values()
    except (TypeError, ValueError):
        return  # of a built-in base; it fails at activation if it takes something
    needed = [
        each.name
        for each in others
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if needed:
        raise TypeError(
            f"{cls.__qualname__}.__init__ takes {', '.join(needed)}: an instance is made from its name alone, so write"
            f" `def __init__({first.name})` and read self.ctx.name or storage"
        )


def _check_hook(where: str, name: str, member: Any) -> None:
    takes = _HOOKS_TAKE.get(name, ())
    wanted = f"write `async def {name}({', '.join(('self', *takes))})`"
    if not inspect.iscoroutinefunction(member):
        raise TypeError(f"{where} is a hook: {wanted}")
    try:
        if name in _HOOKS_TAKE:
            inspect.signature(member).bind("self", *takes)
    except TypeError as error:
        raise TypeError(f"{where} is called with other arguments than it takes: {wanted}") from error


def _check_body(cls: type[Actor]) -> None:
    for base in cls.__mro__:
        if base is Actor or not issubclass(base, Actor):
            continue
        for name, member in vars(base).items():
            where = f"{base.__qualname__}.{name}"
            if name in HOOKS:
                _check_hook(where, name, member)
            if name in SET_BY_HOST and callable(member):
                raise TypeError(f"{where} would hide what the host puts there: choose another name")
            if name.startswith("_") or isinstance(member, type | property | staticmethod | classmethod):
                continue
            if inspect.isasyncgenfunction(member):
                raise TypeError(f"{where} is an async generator: return a list, or keep it private as `_{name}`")
            if inspect.isfunction(member) and not inspect.iscoroutinefunction(member):
                raise TypeError(
                    f"{where} is a plain function: write `async def {name}` (and asyncio.to_thread for blocking work),"
                    f" or `_{name}` if it is not to be called"
                )
            if callable(member) and not inspect.isfunction(member) and not isinstance(member, type):
                raise TypeError(f"{where} wraps something that is no coroutine method: write `async def {name}`")
