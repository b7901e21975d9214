"""How httpx is set up for both clients: bounds, peers that died silently, nothing taken from the environment."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import httpx

from kubeactor.client.request import Address, Answer, Request
from kubeactor.client.retry import GRACE_S, Attempts, LostAttemptError
from kubeactor.errors import ActorError

__all__ = ["CONNECTIONS", "Pool", "answer_of", "arguments_of", "async_http", "lost", "sync_http", "tls_of"]

CONNECTIONS: Final = 100
CONNECT_S: Final = 5.0
# Shorter than the 75 s after which an ingress closes an idle connection.
IDLE_S: Final = 30.0

C = TypeVar("C")

_ONE: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_S)
_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "kubeactor-client"}


def _socket_options() -> list[tuple[int, int, int]]:
    """A peer that lost its power answers nothing, not even a reset: probes find it in about 20 s."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


_OPTIONS: Final = _socket_options()


def tls_of(address: Address) -> ssl.SSLContext | bool:
    """What all connections of a client share; reading the certificates takes 15 ms."""
    return httpx.create_ssl_context() if address.secure else False


def async_http(tls: ssl.SSLContext | bool) -> httpx.AsyncClient:
    """One connection on an event loop."""
    transport = httpx.AsyncHTTPTransport(verify=tls, limits=_ONE, socket_options=_OPTIONS)
    return httpx.AsyncClient(transport=transport, headers=_HEADERS, trust_env=False)


def sync_http(tls: ssl.SSLContext | bool) -> httpx.Client:
    """One connection, for one thread at a time."""
    transport = httpx.HTTPTransport(verify=tls, limits=_ONE, socket_options=_OPTIONS)
    return httpx.Client(transport=transport, headers=_HEADERS, trust_env=False)


class Pool(Generic[C]):
    """Connections, the one used last first; whoever takes one gives it back or closes it, and bounds how many are out.

    httpx has a pool of its own, but looks at each of its connections for each of them at every request: with 100 that
    is 13 ms a call.

    Args:
        make: a new connection, which connects when it is first used.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._idle: list[C] = []
        self._closed = False

    def take(self) -> C:
        """A connection for one exchange.

        Raises:
            RuntimeError: when the client is closed.
        """
        with self._lock:
            self.check()
            return self._idle.pop() if self._idle else self._make()

    def give(self, connection: C) -> bool:
        """Take a connection back after an exchange that was completed.

        After any other end it is closed and not given back: httpx may take a connection whose request was cancelled
        for one that is still in use, for ever.

        Returns:
            whether it was kept; if not, the client is closed, and whoever gives it closes it.
        """
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
            return not self._closed

    def check(self) -> None:
        """Raise RuntimeError when the client is closed."""
        if self._closed:
            raise RuntimeError("the client is closed: it makes no calls any more")

    def end(self) -> list[C]:
        """Hand out no more; returns the idle connections, for their owner to close."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            return idle


def arguments_of(request: Request, attempts: Attempts) -> dict[str, Any]:
    """What httpx is given for one attempt. One that is not even accepted must not use up the whole time."""
    limit_s = attempts.remaining_s() + GRACE_S
    return {
        "content": request.body,
        "headers": {**request.headers, "Kubeactor-Timeout": attempts.header()},
        "timeout": httpx.Timeout(limit_s, connect=min(limit_s, CONNECT_S)),
    }


def answer_of(response: httpx.Response, parts: list[bytes]) -> Answer:
    """A response whose body was read."""
    return Answer(response.status_code, response.headers, b"".join(parts))


def lost(request: Request, error: httpx.TransportError) -> LostAttemptError:
    """An attempt that got no answer.

    Raises:
        ActorError: when no other attempt would get one, since the peer is not who it should be.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise ActorError(f"{request.label}: {request.url}: {cause.verify_message}", started="no") from error
        cause = cause.__cause__ or cause.__context__
    return LostAttemptError(
        f"{type(error).__name__}: {error}".rstrip(": "),
        sent=not isinstance(error, _UNSENT),
    )
