"""One client connection: the fast path for calls, httptools and ASGI for everything else, answers in order.

Bytes are gone through in order by `_take`. A plain call (plain.py) at a request boundary is submitted at once, up to
`PIPELINED` of them at a time; their answers wait for those before them. Anything else is fed to httptools and runs as
an ASGI task, alone: it starts when all earlier calls are answered, and what follows it waits as bytes. While bytes
wait, the socket is not read, so a connection holds at most one read of the socket beside one request.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from kubeactor.call import JSON, Call
from kubeactor.errors import ActorArgumentError, ActorError
from kubeactor.ids import ActorId, shard_of
from kubeactor.ingress.plain import HEAD_BYTES, REQUEST, PlainHeads, plain_target
from kubeactor.ingress.problem import JSON_TYPE, Answer
from kubeactor.ingress.requests import Conditions, Target
from kubeactor.ingress.state import LATENCY_BUCKETS, Ingress

__all__ = ["ActorHttpProtocol", "Listener"]

PIPELINED: Final = 16
# What httptools is fed at once, so that one read can't start thousands of pipelined requests.
PIECE_BYTES: Final = 4096
# A request's head, give or take a piece.
HEAD_MAX_BYTES: Final = 32 * 1024
# An app that polls for a disconnect makes uvicorn read on while bytes wait: above this the client is cut off.
WAITING_BYTES: Final = 1024 * 1024
ARRIVAL_S: Final = 30.0
STALLED_S: Final = 60.0
LINGER_S: Final = 2.0
KEEP_ALIVE_S: Final = 75.0
SWEEP_S: Final = 1.0

_MALFORMED: Final = "this is no valid HTTP/1.1 request"
_HEAD_TOO_LARGE: Final = f"a request's head has at most {HEAD_MAX_BYTES} bytes"


class Listener:
    """What the connections of one uvicorn server share: preformatted heads and the sweep that ends idle ones.

    One timer for all connections instead of one a response (`call_later` and `cancel` cost 1.5 us).
    """

    def __init__(self, ingress: Ingress, *, fast: bool = True, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self.ingress = ingress
        self.fast = fast
        self.keep_alive_s = keep_alive_s
        self.heads = PlainHeads()
        self.clock = time.monotonic()
        self.draining = False
        self._connections: set[ActorHttpProtocol] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._ok_heads: dict[int, bytes] = {}

    def protocol(self, **arguments: Any) -> ActorHttpProtocol:
        """What uvicorn takes as `http=`: makes the protocol of a new connection."""
        return ActorHttpProtocol(self, **arguments)

    def add(self, connection: ActorHttpProtocol) -> None:
        """A connection was made."""
        if self._timer is None:  # there was none, so the clock stood still
            self.clock = time.monotonic()
            self._wake(connection.loop)
        connection.since = self.clock
        self._connections.add(connection)
        self.ingress.stats.connections += 1

    def discard(self, connection: ActorHttpProtocol) -> None:
        """A connection was lost."""
        if connection in self._connections:
            self._connections.discard(connection)
            self.ingress.stats.connections -= 1

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(SWEEP_S, partial(self._tick, loop))

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self.sweep(time.monotonic())
        if self._connections:
            self._wake(loop)
        else:
            self._timer = None

    def sweep(self, now: float) -> None:
        """End the connections that used up their time; `now` is monotonic, in seconds."""
        self.clock = now
        for connection in list(self._connections):
            connection.expire(now)

    def drain(self) -> None:
        """Let each connection, new ones too, end with the answer to its next request: its client hears that it does."""
        self.draining = True
        for connection in self._connections:
            connection.drain()

    def abort(self) -> None:
        """Cut off all connections and end the sweep."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._connections):
            connection.transport.abort()

    def ok_head(self, default_headers: list[tuple[bytes, bytes]], epoch: int) -> bytes:
        """The head of a 200 up to the first half of its request id; made anew when uvicorn renews the date."""
        if default_headers is not self._default_headers:
            self._default_headers = default_headers
            self._ok_heads.clear()
        head = self._ok_heads.get(epoch)
        if head is None:
            headers = [*default_headers, JSON_TYPE, (b"kubeactor-epoch", b"%d" % epoch)]
            lines = [b"%b: %b\r\n" % header for header in headers]
            head = b"".join([STATUS_LINE[200], *lines, b"kubeactor-request-id: ", self.ingress.session.encode()])
            self._ok_heads[epoch] = head
        return head


class FastCall(Call):
    """A call of the fast path, and the place of its answer in its connection's order."""

    __slots__ = ("answer", "attempt", "connection", "number", "started")

    def __init__(self, connection: ActorHttpProtocol, target: Target, body: bytes, conditions: Conditions) -> None:
        # Call.__init__ with its keywords costs 0.7 us more; a test compares the attributes.
        ingress = connection.ingress
        self.binding, self.identity, self.method = target
        self.body = body
        self.shard = shard_of(target[1], ingress.dispatcher.shards)
        self.epoch = 0
        self.started = started = time.monotonic()
        self.deadline = started + conditions[1]
        self.reply = self.settle
        self.format = JSON
        self.number = number = ingress.next_request()
        self.root = root = ingress.root(number)
        self.id, self.bucket = ingress.call_id(root, conditions[0])
        self.chain = ()
        self.repeat = False
        self.internal = False
        self.scope = None
        self.target = None
        self.connection = connection
        self.attempt = 0
        self.answer: bytes | None = None

    def settle(self, outcome: bytes | ActorError) -> None:
        """Takes the outcome: the call's `reply`."""
        connection = self.connection
        if not isinstance(outcome, bytes) and connection.ingress.repeat_later(self, outcome, self.number, self.attempt):
            self.reply = self.settle
            self.attempt += 1
            return
        self.reply = _settled  # the call refers to itself no more, so that no garbage collection is needed
        connection.settle(self, outcome)


def _settled(outcome: bytes | ActorError) -> None:
    raise AssertionError("a call was replied to twice")


class ActorHttpProtocol(HttpToolsProtocol):
    """See the module."""

    def __init__(
        self,
        listener: Listener,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.listener = listener
        self.ingress = listener.ingress
        self.calls: deque[FastCall] = deque()
        self.closed = False
        self.leaving = False  # starts nothing more
        self.last = listener.draining  # says with its next answer that it closes
        self.since = listener.clock
        self._rest = b""  # bytes that wait for their turn
        self._parts: list[bytes] = []  # a plain call whose body is on its way
        self._missing = 0  # bytes of it
        self._busy = False  # httptools is within a message, or its request is not answered
        self._arriving = False  # httptools is within a message
        self._in_head = False
        self._head_bytes = 0
        self._again = False  # the message asked for an upgrade; it is parsed again without
        self._fault: Answer | None = None
        self._ended = False
        self._running: RequestResponseCycle | None = None

    # The connection's life

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Join the sweep."""
        super().connection_made(transport)
        self.listener.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the sweep; running calls go on, their replies will be dropped."""
        self.closed = True
        self.listener.discard(self)
        self._rest = b""
        self._parts.clear()
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def drain(self) -> None:
        """Close with the next answer, of what runs or of what comes."""
        self.last = True
        if self._running is not None:
            self._running.keep_alive = False

    def shutdown(self) -> None:
        """Close when what was started is answered; start nothing more."""
        self.leaving = self.last = True
        self._rest = b""
        if not self.calls:
            super().shutdown()

    def expire(self, now: float) -> None:
        """Close the connection if what it waits for takes too long."""
        age_s = now - self.since
        if self._ended:
            late = age_s > LINGER_S
        elif self.flow.write_paused:
            late = age_s > STALLED_S
        elif self._missing or self._arriving:
            late = age_s > ARRIVAL_S
        else:
            late = age_s > self.listener.keep_alive_s and not self.calls and not self._busy
        if late:
            self.ingress.stats.expired += not self._ended
            self.transport.abort()

    def pause_writing(self) -> None:
        """The client does not read: start no more of its requests, and cut it off after a while."""
        self.since = self.listener.clock
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self.since = self.listener.clock
        super().resume_writing()
        self._go_on()

    # Bytes in

    def data_received(self, data: bytes) -> None:
        """Go through the bytes, or keep them while they must wait."""
        if self._fault or (self.leaving and not self._arriving):
            return
        if self._rest:
            self._wait(self._rest + data)
            return
        if self._missing:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._parts)
            self._parts.clear()
            self._missing = 0
        self._take(data)

    def _take(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end and self._fault is None:
            if self._busy:
                if not self._arriving or self.pipeline:
                    break
                at += self._feed(data[at : at + PIECE_BYTES])
            elif self.flow.write_paused or len(self.calls) >= PIPELINED:
                break
            elif (after := self._begin_call(data, at)) > 0:
                at = after
            elif after < 0:
                return
            elif self.calls:
                break
            else:
                at += self._feed(data[at : at + PIECE_BYTES])
        if at < end:
            self._wait(data[at:] if at else data)

    def _wait(self, data: bytes) -> None:
        if self._fault or self.leaving:
            return
        self._rest = data
        self.flow.pause_reading()
        if len(data) > WAITING_BYTES:
            self.transport.abort()

    def _go_on(self) -> None:
        if self.closed or self.transport.is_closing():
            return
        if self.leaving:
            if not self.calls and not self._busy:
                self.transport.close()
            return
        rest, self._rest = self._rest, b""
        if self.last and not (rest or self.calls or self._busy or self._missing):
            self.transport.close()
            return
        self.flow.resume_reading()
        if rest:
            self._take(rest)

    # The fast path

    def _begin_call(self, data: bytes, at: int) -> int:
        """Submit the call that begins there.

        Returns:
            where the next request begins; 0 if this one is not plain; -1 if its body is on its way.
        """
        listener = self.listener
        if not listener.fast or (match := REQUEST.match(data, at)) is None:
            return 0
        head = match.end()
        end = data.find(b"\r\n\r\n", head - 2, head + HEAD_BYTES)
        if end < 0 or (conditions := listener.heads.read(data[head : end + 2])) is None:
            return 0
        target = plain_target(match)
        bindings = self.ingress.bindings
        if target is None or (bindings is not None and target[0] not in bindings):
            return 0
        body = end + 4
        after = body + (conditions[2] or 0)
        if after > len(data):
            self._parts.append(data[at:])
            self._missing = after - len(data)
            self.since = listener.clock
            return -1
        self._submit(target, conditions, data[body:after])
        return after

    def _submit(self, target: Target, conditions: Conditions, body: bytes) -> None:
        call = FastCall(self, target, body, conditions)
        self.calls.append(call)
        self.ingress.dispatcher.submit(call)

    def settle(self, call: FastCall, outcome: bytes | ActorError) -> None:
        """Write the answer of a call, and those that waited for it, or keep it for its turn."""
        ingress = self.ingress
        stats = ingress.stats
        took_us = int((time.monotonic() - call.started) * 1e6)
        stats.latency_us += took_us
        stats.latency[min(took_us.bit_length(), LATENCY_BUCKETS - 1)] += 1
        if self.closed:
            stats.dropped += 1
            return
        calls = self.calls
        if isinstance(outcome, bytes) and not self.last:
            stats.ok += 1
            head = self.listener.ok_head(self.server_state.default_headers, ingress.dispatcher.epoch_of(call.shard))
            text = b"%b%016x\r\ncontent-length: %d\r\n\r\n%b" % (head, call.number, len(outcome), outcome)
        else:
            answer = ingress.answer(outcome, call.number, call.shard, str(ActorId(call.binding, call.identity)))
            stats.count(answer.status)
            ends = calls[-1] is call and not (self._rest or self._missing or self._busy)
            text = self._rendered(answer, close=self.last and ends)
        if calls[0] is not call:
            call.answer = text
            return
        calls.popleft()
        self.transport.write(text)
        while calls and (ready := calls[0].answer) is not None:
            calls.popleft()
            self.transport.write(ready)
        self.since = self.listener.clock
        if self._rest or self.last:
            self._go_on()

    def _rendered(self, answer: Answer, *, close: bool) -> bytes:
        lines = [b"%b: %b\r\n" % header for header in self.server_state.default_headers + answer.headers]
        if close:
            lines.append(b"connection: close\r\n")
        return b"".join([STATUS_LINE[answer.status], *lines, b"\r\n", answer.body])

    # The slow path: httptools and ASGI

    def _feed(self, piece: bytes) -> int:
        """Feed httptools; returns how many of the bytes it took."""
        if self._in_head:
            self._head_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_again()
            return int(upgrade.args[0])
        except httptools.HttpParserError:
            self._fail(self.ingress.refuse(ActorArgumentError(_MALFORMED)))
        else:
            if self._in_head and self._head_bytes > HEAD_MAX_BYTES:
                self._fail(self.ingress.refuse(ActorArgumentError(_HEAD_TOO_LARGE), status=431))
        return len(piece)

    def _parse_again(self) -> None:
        """Parse a head again without its `Upgrade`, which a server may ignore (RFC 9110, 7.8).

        httptools takes the body of such a request for another protocol; Java's HttpClient sends them.
        """
        head = [b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        head += [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self._again = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._feed(b"".join([*head, b"\r\n"]))

    def _fail(self, fault: Answer) -> None:
        """Answer bytes that are no request after all earlier ones, and close."""
        self._fault = fault
        self._rest = b""
        self.flow.pause_reading()
        if self._arriving and not self._in_head:  # the newest request would wait for the rest of its body
            if self.pipeline:
                self.pipeline.popleft()
            else:
                self._cut_short(fault)
        elif self._running is None:
            self._end(fault)

    def _cut_short(self, fault: Answer) -> None:
        cycle = self.cycle
        begun = cycle.response_started
        cycle.disconnected = True
        cycle.message_event.set()
        self._end(None if begun else fault)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        if self.last and not self.pipeline:
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, app)

    def _end(self, fault: Answer | None) -> None:
        """Write the last answer, and close when the client does or a little later.

        To close at once, with bytes unread, would be a reset that can take the answer from the client (RFC 9112, 9.6).
        """
        if fault is None or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.ingress.stats.count(fault.status)
        self.transport.write(self._rendered(fault, close=True))
        self.transport.write_eof()
        self._ended = True
        self.since = self.listener.clock
        self.flow.resume_reading()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._busy = self._arriving = self._in_head = True
        self._head_bytes = 0
        self.since = self.listener.clock

    def on_headers_complete(self) -> None:
        """A request's head is there: uvicorn starts the app."""
        if not self.parser.should_upgrade():
            super().on_headers_complete()
        elif self.parser.get_method() == b"CONNECT":
            raise ValueError("CONNECT is not served")
        else:
            self._again = True
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        """A part of a request's body."""
        if not self._again:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's last byte."""
        if self._again:
            return
        super().on_message_complete()
        self._arriving = False
        self.since = self.listener.clock
        if self._running is None:
            self._busy = False

    def on_response_complete(self) -> None:
        """A request of the slow path is answered: the next one's turn, or that of the bytes that wait."""
        self.server_state.total_requests += 1
        self.since = self.listener.clock
        self._running = None
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            self._go_on()  # the rest of its body may wait
        elif self._fault is not None:
            self._end(self._fault)
        else:
            self._busy = self._arriving
            self._go_on()
