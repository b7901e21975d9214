"""A lean HTTP/1.1 client for load: keep-alive connections on asyncio, one request at a time on each.

It tells apart what a caller must tell apart: an answer, and an outcome that is unknown because the connection broke.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

__all__ = ["Answer", "Client", "Connection", "UnknownOutcomeError"]

HOST: Final = "127.0.0.1"
CONNECT_S: Final = 3.0
END_OF_HEAD: Final = b"\r\n\r\n"


class UnknownOutcomeError(Exception):
    """Raised when no answer came: the request may have been carried out, or not, or be carried out later."""


@dataclass(frozen=True)
class Answer:
    """A whole answer; `at_ns` is when it had come in, on CLOCK_MONOTONIC."""

    status: int
    head: bytes
    body: bytes
    at_ns: int

    @property
    def value(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def final(self) -> bool:
        """Whether repeating the request would be wrong or pointless: it isn't a retryable problem."""
        return self.status not in (503, 504)


class Connection(asyncio.Protocol):
    """One connection, opened at the first request and again after it broke."""

    def __init__(self, port: int, host: str = HOST) -> None:
        self.port = port
        self.host = host
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answer: asyncio.Future[Answer] | None = None

    async def request(self, message: bytes, timeout_s: float = 60.0) -> Answer:
        """Send one request and wait for its answer.

        Raises:
            ConnectionRefusedError: when nobody listens; nothing was sent.
            UnknownOutcomeError: when the connection broke, or no answer came in time.
        """
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            await self._open(loop)
        if self._transport is None:
            raise UnknownOutcomeError("the connection broke before anything was sent")
        self._answer = loop.create_future()
        self._buffer = b""
        self._transport.write(message)
        try:
            async with asyncio.timeout(timeout_s):  # wait_for of Python 3.11 loses a cancellation beside an answer
                return await self._answer
        except TimeoutError as error:
            self.close()
            raise UnknownOutcomeError(f"no answer within {timeout_s} s") from error

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(lambda: self, self.host, self.port)
        except ConnectionRefusedError:
            raise
        except OSError as error:
            raise UnknownOutcomeError(str(error) or f"no connection within {CONNECT_S:g} s") from error

    def close(self) -> None:
        """Close it; the next request opens it anew."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's callback."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio's callback."""
        self._buffer += data
        head, found, body = self._buffer.partition(END_OF_HEAD)
        if not found or len(body) < (length := _content_length(head)):
            return
        assert len(body) == length, "more than one answer to one request"
        if b"\r\nconnection: close" in head.lower():
            self.close()  # the server is about to: the next request must not meet that
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(int(head[9:12]), head, body, time.monotonic_ns()))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's callback."""
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(UnknownOutcomeError(f"the connection broke: {exc or 'closed by the peer'}"))


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


@dataclass
class Client:
    """Calls of methods, over one connection each.

    Attributes:
        retries: how often a call was sent again under its key.
    """

    port: int
    binding: str = "ACCOUNT"
    host: str = HOST
    retries: int = 0
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = Connection(self.port, self.host)

    async def get(self, path: str, timeout_s: float = 10.0) -> Answer:
        """GET a path. Raises as `Connection.request`."""
        return await self.connection.request(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode(), timeout_s)

    async def post(self, path: str, body: Any, key: str | None = None, timeout_s: float = 60.0) -> Answer:
        """POST a JSON body. Raises as `Connection.request`."""
        encoded = json.dumps(body).encode()
        extra = f"Idempotency-Key: {key}\r\n" if key else ""
        head = f"POST {path} HTTP/1.1\r\nHost: t\r\n{extra}Content-Length: {len(encoded)}\r\n\r\n"
        return await self.connection.request(head.encode() + encoded, timeout_s)

    async def call(self, name: str, method: str, key: str | None = None, **arguments: Any) -> Answer:
        """Call a method of an instance of `binding`. Raises as `Connection.request`."""
        return await self.post(f"/v1/actors/{self.binding}/{quote(name, safe='')}/{method}", arguments, key)

    async def keyed(self, name: str, method: str, key: str, within_s: float = 60.0, **arguments: Any) -> Answer:
        """Call under a key, again and again until the outcome is known.

        Raises:
            UnknownOutcomeError: when it is still unknown at the end of `within_s`.
        """
        return await self.until_known(lambda: self.call(name, method, key, **arguments), within_s)

    async def until_known(self, attempt: Callable[[], Awaitable[Answer]], within_s: float = 60.0) -> Answer:
        """Repeat an attempt that may be repeated until it gets a final answer. Raises as `keyed`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        last: object = None
        while loop.time() < end:
            try:
                last = answer = await attempt()
                if answer.final:
                    return answer
            except (ConnectionRefusedError, UnknownOutcomeError) as error:
                last = error
            self.retries += 1
            await asyncio.sleep(0.005)  # the pause of a polite client, nothing waits for it
        raise UnknownOutcomeError(f"no final answer within {within_s} s, at last {last!r}")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
