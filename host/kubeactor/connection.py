"""One multiplexed connection that carries frames, seen from both of its ends.

What is written within one tick of the loop leaves in as few writes as that is good for: a system call per frame would
cost more than all the rest of a call, while a peer that is handed all frames at the end of a long tick has idled until
then. Every buffer is bounded: the side that dials stops sending while the peer does not read
(`usable`), the side that listens stops reading, and cuts off who leaves 64 MiB of answers lying. Input that is no frame
ends the connection it came from and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final, Protocol, cast

from kubeactor.call import Call
from kubeactor.errors import ActorError
from kubeactor.wire import (
    FRAME_BYTES,
    HELLO_BYTES,
    LENGTH_BYTES,
    CallFrame,
    Failure,
    Frame,
    Granted,
    Hello,
    Inventory,
    Refused,
    Result,
    Welcome,
    WireError,
    decode,
    encode,
    error_of,
    frame_size,
    measured,
)

__all__ = [
    "Answer",
    "ClientConnection",
    "Connection",
    "ConnectionLost",
    "ServerConnection",
    "Unwelcome",
    "Waiter",
    "dial",
    "notice_dead_peers",
]

# Written at once instead of at the end of the tick (docs/performance.md, "What decides").
FLUSH_FRAMES: Final = 8
FLUSH_BYTES: Final = 1024 * 1024
HIGH_WATER_BYTES: Final = 1024 * 1024
UNREAD_BYTES: Final = 64 * 1024 * 1024
HELLO_S: Final = 10.0
USER_TIMEOUT_MS: Final = 3_000

_FLUSH_PARTS: Final = 2 * FLUSH_FRAMES  # length and payload
_log = logging.getLogger(__name__)

Answer = Result | Failure | Inventory | Granted
_ANSWERS: Final = (Result, Failure, Inventory, Granted)


class ConnectionLost(Exception):
    """Raised when a connection ends before an answer came. `sent` tells whether the peer can have seen the question."""

    def __init__(self, reason: str, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Unwelcome(WireError):
    """Raised when a host refuses our hello, or is not the host that was meant."""


class Waiter(Protocol):
    """Who waits for an answer. Exactly one of the two is called, once."""

    def answered(self, frame: Answer) -> None:
        """The answer."""

    def lost(self, sent: bool) -> None:
        """The connection is gone; `sent` is False only if the frame never left this process."""


class Connection(asyncio.Protocol):
    """Frames in and out over one transport. Subclasses say what they mean.

    Attributes:
        writable: False while the peer does not read what was written.
        closed: True from the moment on that no more frames go either way.
        reason: why it ended, for logs and errors.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.writable = True
        self.closed = False
        self.reason = ""
        self._limit = HELLO_BYTES
        self._rest = bytearray()
        self._need = LENGTH_BYTES
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._scheduled = False

    def received(self, frame: Frame) -> None:
        """Called for each frame in order.

        Raises:
            WireError: when this frame may not come now: the connection is cut.
        """
        raise NotImplementedError

    def ended(self) -> None:
        """Called once, when the connection is gone."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        notice_dead_peers(transport.get_extra_info("socket"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self.closed = True
        self.reason = self.reason or (str(exc) if exc else "closed by the peer" + " within a frame" * bool(self._rest))
        self._rest.clear()
        self.ended()

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol: cuts the stream into frames."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return
            data = bytes(self._rest)
            self._rest.clear()
        try:
            end = self._cut(data)
        except WireError as error:
            self.fail(str(error))
            return
        if end < len(data) and not self.closed:
            self._rest += data[end:]

    def _cut(self, data: bytes) -> int:
        offset, length = 0, len(data)
        self._need = LENGTH_BYTES
        while length - offset >= LENGTH_BYTES and not self.closed:
            size = frame_size(data, offset)
            if size > self._limit:
                raise WireError(f"a frame of {size} bytes, the limit is {self._limit}")
            end = offset + LENGTH_BYTES + size
            if end > length:
                self._need = LENGTH_BYTES + size
                break
            self.received(decode(data[offset + LENGTH_BYTES : end]))
            offset = end
        return offset

    def write(self, payload: bytes) -> None:
        """Send the payload of a frame, together with others of this tick; nothing happens once closed."""
        if self.closed:
            return
        self._out.append(measured(payload))
        self._out.append(payload)
        self._out_bytes += len(payload)
        if len(self._out) >= _FLUSH_PARTS or self._out_bytes > FLUSH_BYTES:
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Hand to the kernel what was written, unless it takes nothing at the moment."""
        if self._out and self.writable and not self.closed and self.transport is not None:
            joined = b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            self.transport.write(joined)

    def pause_writing(self) -> None:
        """Part of asyncio.Protocol."""
        self.writable = False

    def resume_writing(self) -> None:
        """Part of asyncio.Protocol."""
        self.writable = True
        self.flush()

    def fail(self, reason: str) -> None:
        """Cut the connection since the peer did something wrong."""
        if not self.closed:
            _log.warning("connection cut: %s", reason)
            self.abort(reason)

    def abort(self, reason: str) -> None:
        """Cut the connection: bytes that are unsent or unread count no more."""
        if not self.closed:
            self.closed = True
            self.reason = reason
            if self.transport is not None:
                self.transport.abort()

    def close(self, reason: str) -> None:
        """Send what was written, then close."""
        self.flush()
        if not self.closed:
            self.closed = True
            self.reason = reason
            if self.transport is not None:
                self.transport.close()


class ClientConnection(Connection):
    """The end that dials and asks.

    Attributes:
        welcome: what the host said of itself, once it accepted our hello.
        done: set when the connection is gone.
        resumed: called when the connection can be written to again.
    """

    def __init__(self, hello: Hello) -> None:
        super().__init__()
        self._hello = hello
        self.opened: asyncio.Future[Welcome] = self.loop.create_future()
        self.welcome: Welcome | None = None
        self.done = asyncio.Event()
        self.resumed: Callable[[], None] | None = None
        self._waiting: dict[int, Waiter] = {}
        self._number = 0
        self._flushed = 0

    @property
    def usable(self) -> bool:
        """Whether a frame written now has a way out."""
        return self.writable and not self.closed and self.welcome is not None

    @property
    def waiting(self) -> int:
        """Questions without an answer so far."""
        return len(self._waiting)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        super().connection_made(transport)
        self.write(encode(self._hello))
        self.flush()

    def call(self, call: Call, epoch: int, remaining_ms: int, waiter: Waiter) -> None:
        """Send a call. One that can't be sent since it is too large is answered at once.

        Raises:
            BodyTooLargeError: when its frame would be above the limit.
        """
        number = self._number + 1
        payload = encode(
            CallFrame(
                number,
                call.shard,
                epoch,
                call.binding,
                call.identity,
                call.method,
                call.format,
                call.body,
                remaining_ms,
                call.id,
                call.bucket,
                call.chain,
                call.root,
                call.repeat,
                call.internal,
            )
        )
        self._number = number
        self._waiting[number] = waiter
        self.write(payload)

    def ask(self, question: Callable[[int], Frame], waiter: Waiter) -> None:
        """Send any other question; `question` makes the frame of a number."""
        payload = encode(question(self._number + 1))
        self._number += 1
        self._waiting[self._number] = waiter
        self.write(payload)

    async def answer(self, question: Callable[[int], Frame]) -> Answer:
        """The answer to a question.

        Raises:
            ActorError: which the host answered with.
            ConnectionLost: when the connection ended before.
        """
        if self.closed:
            raise ConnectionLost(self.reason, sent=False)
        waiter = _FutureWaiter(self)
        self.ask(question, waiter)
        return await waiter.future

    def flush(self) -> None:
        """Hand to the kernel what was written; from here on the peer may have seen it."""
        super().flush()
        if not self._out:
            self._flushed = self._number

    def received(self, frame: Frame) -> None:
        """Pair an answer with its question."""
        if isinstance(frame, _ANSWERS) and self.welcome is not None:
            waiter = self._waiting.pop(frame.number, None)
            if waiter is None:
                raise WireError(f"an answer to {frame.number}, which was not asked")
            try:
                waiter.answered(frame)
            except WireError:
                waiter.lost(sent=True)
                raise
        elif self.welcome is None and isinstance(frame, Welcome | Refused):
            self._greeted(frame)
        else:
            raise WireError(f"a {type(frame).__name__} from a host")

    def _greeted(self, frame: Welcome | Refused) -> None:
        if isinstance(frame, Refused):
            raise Unwelcome(f"refused: {frame.reason}")
        if frame.namespace != self._hello.namespace:
            raise Unwelcome(f"reached a host of namespace {frame.namespace!r}, not {self._hello.namespace!r}")
        self._limit = FRAME_BYTES
        self.welcome = frame
        if not self.opened.done():
            self.opened.set_result(frame)

    def resume_writing(self) -> None:
        """Part of asyncio.Protocol."""
        super().resume_writing()
        if self.resumed is not None and self.usable:
            self.resumed()

    def ended(self) -> None:
        """Tell everybody who waits, in the order of their questions."""
        self.done.set()
        if not self.opened.done():
            self.opened.set_exception(Unwelcome(self.reason))
        waiting, self._waiting = self._waiting, {}
        for number, waiter in waiting.items():
            waiter.lost(number <= self._flushed)


class _FutureWaiter:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.future: asyncio.Future[Answer] = connection.loop.create_future()

    def answered(self, frame: Answer) -> None:
        if self.future.done():
            return
        if isinstance(frame, Failure):
            self.future.set_exception(error_of(frame))
        else:
            self.future.set_result(frame)

    def lost(self, sent: bool) -> None:
        if not self.future.done():
            self.future.set_exception(ConnectionLost(self._connection.reason, sent))


class ServerConnection(Connection):
    """The end that listens and answers.

    Attributes:
        hello: what the dialer said of itself, once it was accepted.
    """

    def __init__(
        self,
        greet: Callable[[ServerConnection, Hello], Welcome | Refused],
        handle: Callable[[ServerConnection, Frame], None],
        gone: Callable[[ServerConnection], None],
    ) -> None:
        super().__init__()
        self._greet = greet
        self._handle = handle
        self._gone = gone
        self.hello: Hello | None = None
        self._patience = self.loop.call_later(HELLO_S, self.fail, f"no hello within {HELLO_S:g} s")

    def received(self, frame: Frame) -> None:
        """Check the hello, then hand on what follows."""
        if self.hello is not None:
            self._handle(self, frame)
        elif isinstance(frame, Hello):
            self._greeted(frame)
        else:
            raise WireError(f"a {type(frame).__name__} before the hello")

    def _greeted(self, hello: Hello) -> None:
        answer = self._greet(self, hello)
        self.write(encode(answer))
        if isinstance(answer, Refused):
            self.close(answer.reason)
            return
        self._patience.cancel()
        self._limit = FRAME_BYTES
        self.hello = hello

    def reply(self, frame: Answer) -> None:
        """Send an answer; the peer is cut off when it does not read them."""
        try:
            payload = encode(frame)
        except ActorError as error:  # the engine bounds results, so this is an inventory gone wrong
            self.fail(str(error))
            return
        self.write(payload)
        if self._out_bytes > UNREAD_BYTES:
            self.fail(f"the peer left {self._out_bytes} bytes of answers unread")

    def pause_writing(self) -> None:
        """Who does not read its answers is not heard either."""
        super().pause_writing()
        if self.transport is not None and not self.closed:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Part of asyncio.Protocol."""
        super().resume_writing()
        if self.writable and self.transport is not None and not self.closed:
            self.transport.resume_reading()

    def ended(self) -> None:
        """Part of Connection."""
        self._patience.cancel()
        self._gone(self)


async def dial(address: str, hello: Hello, timeout_s: float) -> ClientConnection:
    """Connect to "host:port", or to the Unix socket of a path, and wait until the host accepts the hello.

    Raises:
        OSError: when nobody listens there, or (TimeoutError) does not answer in time.
        Unwelcome: when the host refuses the hello or hangs up.
    """
    loop = asyncio.get_running_loop()
    connection = ClientConnection(hello)
    try:
        async with asyncio.timeout(timeout_s):
            if "/" in address:
                await loop.create_unix_connection(lambda: connection, address)
            else:
                host, _, port = address.rpartition(":")
                await loop.create_connection(lambda: connection, host.strip("[]"), int(port))
            await connection.opened
    except BaseException:
        connection.opened.cancel()
        connection.close("not opened in time")
        raise
    return connection


def notice_dead_peers(sock: socket.socket | None) -> None:
    """Let a TCP connection whose peer does not answer any more, not even to a keep-alive, end within 5 s."""
    # A node that vanished sends no RST: without this, calls would wait for it until their deadlines. With it one is
    # noticed within 5 s, whether something is under way or not.
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
