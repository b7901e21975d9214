"""A real server on a loopback socket, in a thread, in front of a scripted dispatcher."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
import uvloop

from kubeactor.call import Call
from kubeactor.errors import (
    ActorError,
    ActorOverloadedError,
    ActorPrivateMethodError,
    ActorReentrancyError,
    ActorUnknownMethodError,
)
from kubeactor.ingress.app import make_app
from kubeactor.ingress.server import serve
from kubeactor.ingress.state import Ingress, IngressStats

T = TypeVar("T")


class Script:
    """A dispatcher that answers by the method's name; `hold` keeps the call until the test lets it go."""

    shards = 16

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.held: queue.Queue[Call] = queue.Queue()
        self.cycles_left = 0

    def epoch_of(self, shard: int) -> int:
        return 100 + shard

    def submit(self, call: Call) -> None:
        self.calls.append(call)
        answer = getattr(self, f"do_{call.method}", None)
        if answer is None:
            call.reply(ActorUnknownMethodError(f"no method {call.method!r}"))
        else:
            answer(call)

    def do_echo(self, call: Call) -> None:
        seen = {"identity": call.identity.hex(), "binding": call.binding, "body": call.body.decode("latin-1")}
        call.reply(json.dumps(seen).encode())

    def do_later(self, call: Call) -> None:
        asyncio.get_running_loop().call_soon(self.do_echo, call)

    def do_hold(self, call: Call) -> None:
        self.held.put(call)

    def do_busy(self, call: Call) -> None:
        call.reply(ActorOverloadedError("the queue is full"))

    def do_secret(self, call: Call) -> None:
        call.reply(ActorPrivateMethodError("secret is internal"))

    def do_large(self, call: Call) -> None:
        call.reply(b'"' + b"x" * (4 * 1024 * 1024 - 2) + b'"')

    def do_cycle(self, call: Call) -> None:
        if self.cycles_left == 0:
            self.do_echo(call)
            return
        self.cycles_left -= 1
        # What a router does to a call on its way: put an id and a reply of its own.
        reply, call.id, call.reply = call.reply, None, print
        reply(ActorReentrancyError("a cycle", retryable=True))


class Answer:
    """A response as it came over the wire."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = dict(headers)
        self.body = body
        assert len(self.headers) == len(headers), "a header came twice"

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        document = self.json()
        assert document["status"] == self.status
        assert document["request_id"] == self.headers["kubeactor-request-id"]
        return str(document["name"])


class Client:
    """A connection that sends exactly the bytes it is given."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.file = self.socket.makefile("rb")

    def send(self, *parts: bytes) -> Client:
        self.socket.sendall(b"".join(parts))
        return self

    def answer(self) -> Answer:
        status = self.file.readline()
        assert status.startswith(b"HTTP/1.1 "), status
        headers = []
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.decode("latin-1").strip().partition(": ")
            headers.append((name, value))
        length = int(dict(headers).get("content-length", 0))
        return Answer(int(status.split()[1]), headers, self.file.read(length))

    def ended(self) -> bool:
        """Whether the server closed and sent nothing more."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True

    def call(self, target: str | bytes, body: bytes = b"", *headers: str, method: str = "POST") -> Answer:
        return self.send(request(target, body, *headers, method=method)).answer()

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def request(target: str | bytes, body: bytes = b"", *headers: str, method: str = "POST") -> bytes:
    path = target if isinstance(target, bytes) else target.encode()
    lines = [b"%b %b HTTP/1.1" % (method.encode(), path), b"Host: actors"]
    lines += [header.encode("latin-1") for header in headers]
    lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


class Running:
    """A server in a thread."""

    def __init__(
        self, dispatcher: Script, *, fast: bool = True, dev: bool = False, grace_s: int = 1, **app: Any
    ) -> None:
        self.dispatcher = dispatcher
        self.ingress = Ingress(dispatcher, {"ACCOUNT", "CART"}, dev=dev)
        self.app = make_app(self.ingress, **app)
        self.clients: list[Client] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.failure: BaseException | None = None
        self._fast = fast
        self._grace_s = grace_s
        started = threading.Event()
        self.thread = threading.Thread(target=self._main, args=(started,))
        self.thread.start()
        started.wait()

    def _main(self, started: threading.Event) -> None:
        try:
            uvloop.run(self._serve(started.set))
        except RuntimeError as error:
            self.failure = error
        finally:
            started.set()

    async def _serve(self, started: Callable[[], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.stop = asyncio.Event()
        await serve(
            [self.socket],
            self.app,
            self.ingress,
            stop=self.stop,
            fast=self._fast,
            grace_s=self._grace_s,
            started=started,
            on_listener=self._keep,
        )

    def _keep(self, listener: Any) -> None:
        self.listener = listener

    def client(self) -> Client:
        client = Client(self.port)
        self.clients.append(client)
        return client

    def call(self, target: str | bytes, body: bytes = b"", *headers: str, method: str = "POST") -> Answer:
        with contextlib.closing(Client(self.port)) as client:
            return client.call(target, body, *headers, method=method)

    def run(self, function: Callable[[], T]) -> T:
        """Run a function on the server's loop and wait for its result."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(20)

    def held(self) -> Call:
        """The next call that the dispatcher holds."""
        return self.dispatcher.held.get(timeout=60)

    def release(self, call: Call, outcome: bytes | ActorError = b'"released"') -> None:
        self.run(lambda: call.reply(outcome))

    def renew(self) -> None:
        """As if it had just started."""
        self.clients.clear()
        while self.run(lambda: self.ingress.stats.connections):
            pass
        self.ingress.stats = IngressStats()
        self.dispatcher.__init__()  # type: ignore[misc]

    def leave(self) -> None:
        """Begin the graceful end."""
        self.loop.call_soon_threadsafe(self.stop.set)

    def end(self) -> None:
        for client in self.clients:
            client.close()
        if self.thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self.leave()
            self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def serving() -> Iterator[Callable[..., Running]]:
    """Starts servers that end with the test."""
    running: list[Running] = []

    def start(dispatcher: Script | None = None, **options: Any) -> Running:
        running.append(Running(dispatcher or Script(), **options))
        return running[-1]

    yield start
    for server in running:
        server.end()


@pytest.fixture(scope="session")
def _servers() -> Iterator[dict[str, Running]]:
    servers = {kind: Running(Script(), fast=kind == "fast") for kind in ("fast", "slow")}
    yield servers
    for server in servers.values():
        server.end()


@pytest.fixture(params=["fast", "slow"])
def server(request: pytest.FixtureRequest, _servers: dict[str, Running]) -> Iterator[Running]:
    """A server without a front door, once with its fast path and once without: both must behave the same."""
    server = _servers[request.param]
    server.renew()
    yield server
    for client in server.clients:
        client.close()


@pytest.fixture(params=["fast", "slow"])
def own_server(request: pytest.FixtureRequest, serving: Callable[..., Running]) -> Running:
    """The same for a test that ends it."""
    return serving(fast=request.param == "fast")


@pytest.fixture(name="request_bytes")
def _request_bytes() -> Callable[..., bytes]:
    return request


@pytest.fixture(name="script")
def _script() -> type[Script]:
    return Script
