"""The client for asyncio."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeVar

import httpx

from kubeactor.client.bindings import ClientStub, bound_env
from kubeactor.client.request import ANSWER_BYTES, Address, Answer, Request, result_of
from kubeactor.client.retry import GRACE_S, Attempts, LostAttemptError, checked_timeout_s
from kubeactor.client.transport import CONNECTIONS, Pool, answer_of, arguments_of, async_http, lost, tls_of
from kubeactor.env import Env
from kubeactor.errors import ActorError, ActorOverloadedError
from kubeactor.limits import CALL_DEFAULT_S

__all__ = ["connect"]

E = TypeVar("E", bound=Env)

# Of one client at once, most of them waiting for a connection.
CALLS: Final = 10_000


def connect(
    env: type[E], url: str, token: str | None = None, timeout_s: float = CALL_DEFAULT_S
) -> AbstractAsyncContextManager[E]:
    """Open a client for the actors of a namespace.

    >>> async with connect(Bank, "http://bank-api.default:8081") as bank:
    ...     balance = await bank.ACCOUNT.id_from_name("alice").debit(30)

    Nothing is sent before the first call. Each call has an Idempotency-Key and keeps it while it is repeated, within
    its time, after connection errors and errors that are `retryable`: so it is applied once. The block's end closes
    the connections: a call that is made later, or would have to be repeated, raises RuntimeError.

    Args:
        env: the class that declares the bindings, of actor classes or of Protocols.
        url: of the ingress or of the Service `<name>-api`.
        token: sent as `Authorization: Bearer`.
        timeout_s: of each call, over all its attempts; more than 0 and at most 300.

    Raises:
        TypeError: when the class declares no bindings, or a method can't be called as declared.
        ValueError: when url, token or timeout_s can't be used.
    """
    client = AsyncClient(Address(url, token), checked_timeout_s(timeout_s))
    return _opened(bound_env(env, client), client)


@asynccontextmanager
async def _opened(env: E, client: AsyncClient) -> AsyncIterator[E]:
    client.open()
    try:
        yield env
    finally:
        await client.close()


class AsyncClient:
    """Makes the calls of stubs on the event loop that it was opened on."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._pool: Pool[httpx.AsyncClient] | None = None
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._calls = 0

    def open(self) -> None:
        """Take calls from now on."""
        self._pool = Pool(functools.partial(async_http, tls_of(self._address)))

    async def close(self) -> None:
        """Close the connections; an attempt under way ends as it ends, and is the last of its call."""
        for connection in self._open_pool().end():
            await connection.aclose()

    def invoke(
        self, stub: ClientStub, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """A coroutine that makes the call. The arguments and the key are taken now, not when it is awaited.

        Raises:
            RuntimeError: when the client is closed.
        """
        self._open_pool().check()
        request = self._address.request(stub, method, args, kwargs)
        call = self._call(request)
        call.__qualname__ = request.label  # type: ignore[attr-defined]  # "coroutine 'ACCOUNT/alice.debit' was never awaited"
        return call

    def _open_pool(self) -> Pool[httpx.AsyncClient]:
        assert self._pool is not None, "stubs are handed out by `async with`, which opens it"
        return self._pool

    async def _call(self, request: Request) -> Any:
        if self._calls >= CALLS:
            raise ActorOverloadedError(f"{request.label}: a client has at most {CALLS} calls under way at once")
        self._calls += 1
        try:
            return await self._settled(request, Attempts(request.label, self._timeout_s))
        finally:
            self._calls -= 1

    async def _settled(self, request: Request, attempts: Attempts) -> Any:
        while True:
            try:
                return result_of(request, await self._attempt(request, attempts))
            except LostAttemptError as error:
                self._open_pool().check()
                pause_s = attempts.after_loss(error)
            except ActorError as error:
                pause_s = attempts.after_error(error)
            await asyncio.sleep(pause_s)

    async def _attempt(self, request: Request, attempts: Attempts) -> Answer:
        sent = False
        pool = self._open_pool()
        try:
            async with asyncio.timeout(attempts.remaining_s() + GRACE_S), self._slots:
                connection = pool.take()
                sent, kept = True, False
                try:
                    answer = await _exchange(connection, request, attempts)
                    kept = pool.give(connection)
                    return answer
                finally:
                    if not kept:
                        await connection.aclose()
        except httpx.TransportError as error:
            raise lost(request, error) from error
        except TimeoutError as error:
            raise LostAttemptError("it took too long", sent=sent) from error


async def _exchange(http: httpx.AsyncClient, request: Request, attempts: Attempts) -> Answer:
    sending = http.stream("POST", request.url, **arguments_of(request, attempts))
    async with sending as response:
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_raw():
            parts.append(part)
            size += len(part)
            if size > ANSWER_BYTES:
                break
        return answer_of(response, parts)
