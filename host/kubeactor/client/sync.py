"""The client without an event loop, for any number of threads."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar

import httpx

from kubeactor.client.bindings import ClientStub, bound_env
from kubeactor.client.request import ANSWER_BYTES, Address, Answer, Request, result_of
from kubeactor.client.retry import GRACE_S, Attempts, LostAttemptError, checked_timeout_s
from kubeactor.client.transport import CONNECTIONS, Pool, answer_of, arguments_of, lost, sync_http, tls_of
from kubeactor.env import Env
from kubeactor.errors import ActorError
from kubeactor.limits import CALL_DEFAULT_S

__all__ = ["SyncClient", "connect_sync"]

E = TypeVar("E", bound=Env)
P = ParamSpec("P")
R = TypeVar("R")


def connect_sync(env: type[E], url: str, token: str | None = None, timeout_s: float = CALL_DEFAULT_S) -> SyncClient[E]:
    """The same as `connect` without an event loop; threads share it, and it may be made before a server forks.

    Nothing is sent before the first call. End it with `with` or `close()`.

    Args:
        env: the class that declares the bindings, of actor classes or of Protocols.
        url: of the ingress or of the Service `<name>-api`.
        token: sent as `Authorization: Bearer`.
        timeout_s: of each call, over all its attempts; more than 0 and at most 300.

    Raises:
        TypeError: when the class declares no bindings, or a method can't be called as declared.
        ValueError: when url, token or timeout_s can't be used.
    """
    return SyncClient(env, Address(url, token), checked_timeout_s(timeout_s))


class SyncClient(Generic[E]):
    """What `connect_sync` returns.

    Attributes:
        env: the bindings; their stubs' methods are what `call` takes.
    """

    def __init__(self, env: type[E], address: Address, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        self._pool = self._new_pool()
        self._pid = os.getpid()
        self.env = bound_env(env, self)

    def call(self, method: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a method and wait for its result: `bank.call(bank.env.ACCOUNT.id_from_name("a").debit, 30)`.

        It has an Idempotency-Key and keeps it while it is repeated, within its time, after connection errors and
        errors that are `retryable`: so it is applied once.

        Raises:
            ActorError: what the call ended with, of the same class as at the actor.
            RuntimeError: when the client is closed.
            TypeError: when it is no method of one of this client's stubs.
        """
        stub = getattr(method, "__self__", None)
        if not isinstance(stub, ClientStub) or stub._client is not self:
            raise TypeError(
                'call takes a method of this client\'s stubs: call(bank.env.ACCOUNT.id_from_name("a").debit)'
            )
        self._own_pool().check()
        request = self._address.request(stub, method.__name__, args, kwargs)
        result: R = self._settled(request, Attempts(request.label, self._timeout_s))
        return result

    if not TYPE_CHECKING:  # type checkers take a class that has it for one that has every attribute

        def __getattr__(self, name: str) -> Any:
            hint = f"; the bindings are in env: write bank.env.{name}" if name.isupper() else ""
            raise AttributeError(f"{type(self).__name__} has no {name!r}{hint}")

    def invoke(self, stub: ClientStub, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a stub's method does when it is called by itself: it says how to call it.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"this client is synchronous; write call(stub.{method}, ...) instead of stub.{method}(...)")

    def close(self) -> None:
        """Close the connections; an attempt that another thread is making ends as it ends and is its call's last."""
        idle = self._pool.end()
        if self._pid == os.getpid():
            for connection in idle:
                connection.close()

    def __enter__(self) -> Self:
        self._own_pool().check()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _new_pool(self) -> Pool[httpx.Client]:
        return Pool(functools.partial(sync_http, tls_of(self._address)))

    def _own_pool(self) -> Pool[httpx.Client]:
        """The connections of this process. A forked child makes its own; those that it inherited are its parent's."""
        if self._pid != os.getpid():
            self._renew()
        return self._pool

    def _renew(self) -> None:
        with self._lock:
            if self._pid != os.getpid():
                self._pool.check()
                self._slots = threading.BoundedSemaphore(CONNECTIONS)
                self._pool = self._new_pool()
                self._pid = os.getpid()

    def _settled(self, request: Request, attempts: Attempts) -> Any:
        while True:
            try:
                return result_of(request, self._attempt(request, attempts))
            except LostAttemptError as error:
                self._own_pool().check()
                pause_s = attempts.after_loss(error)
            except ActorError as error:
                pause_s = attempts.after_error(error)
            time.sleep(pause_s)

    def _attempt(self, request: Request, attempts: Attempts) -> Answer:
        pool, slots = self._own_pool(), self._slots
        if not slots.acquire(timeout=attempts.remaining_s()):
            raise LostAttemptError(f"all {CONNECTIONS} connections are in use", sent=False)
        try:
            connection, kept = pool.take(), False
            try:
                answer = _exchange(connection, request, attempts)
                kept = pool.give(connection)
                return answer
            except httpx.TransportError as error:
                raise lost(request, error) from error
            finally:
                if not kept:
                    connection.close()
        finally:
            slots.release()


def _exchange(http: httpx.Client, request: Request, attempts: Attempts) -> Answer:
    end_s = time.monotonic() + attempts.remaining_s() + GRACE_S
    with http.stream("POST", request.url, **arguments_of(request, attempts)) as response:
        parts: list[bytes] = []
        size = 0
        for part in response.iter_raw():
            parts.append(part)
            size += len(part)
            if size > ANSWER_BYTES:
                break
            if time.monotonic() > end_s:  # httpx bounds each read, not all of them
                raise LostAttemptError("it took too long", sent=True)
        return answer_of(response, parts)
